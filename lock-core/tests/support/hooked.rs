//! A provider whose `_many` operations a test replaces, around the one in memory.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use lock_core::*;

pub(crate) type Answers<A> = Vec<Result<A, StoreError>>;

/// Gets the number of the call (from 0), its requests, and the store behind.
type Hook<Q, A> = Box<dyn Fn(usize, Vec<Q>, MemoryLocks) -> BoxFuture<'static, Answers<A>> + Send + Sync>;

pub(crate) struct Hooked {
    pub(crate) store: MemoryLocks,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) can: Capabilities,
    pub(crate) on_acquire: Hook<AcquireRequest, Acquired>,
    pub(crate) on_renew: Hook<RenewRequest, Renewed>,
    pub(crate) on_release: Hook<ReleaseRequest, Released>,
    calls: [AtomicUsize; 3],
}

impl Hooked {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(TestClock::new());
        let store = MemoryLocks::with_clock(clock.clone());
        Self {
            can: store.capabilities().clone(),
            store,
            clock,
            on_acquire: Box::new(|_, asked, store| Box::pin(acquired(asked, store))),
            on_renew: Box::new(|_, asked, store| Box::pin(renewed(asked, store))),
            on_release: Box::new(|_, asked, store| Box::pin(released(asked, store))),
            calls: Default::default(),
        }
    }

    /// A client of it on its clock.
    pub(crate) fn locks(self) -> (Locks, Arc<TestClock>) {
        let clock = self.clock.clone();
        (Locks::builder(self).clock(clock.clone()).entropy(Arc::new(SeededEntropy::new(42))).build(), clock)
    }
}

pub(crate) async fn acquired(asked: Vec<AcquireRequest>, store: MemoryLocks) -> Answers<Acquired> {
    store.acquire_many(&asked).await
}

pub(crate) async fn renewed(asked: Vec<RenewRequest>, store: MemoryLocks) -> Answers<Renewed> {
    store.renew_many(&asked).await
}

pub(crate) async fn released(asked: Vec<ReleaseRequest>, store: MemoryLocks) -> Answers<Released> {
    store.release_many(&asked).await
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

fn the_one<A>(mut answers: Answers<A>) -> Result<A, StoreError> {
    answers.pop().unwrap()
}

#[async_trait]
impl LockProvider for Hooked {
    fn capabilities(&self) -> &Capabilities {
        &self.can
    }
    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        the_one(self.acquire_many(std::slice::from_ref(request)).await)
    }
    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        the_one(self.renew_many(std::slice::from_ref(request)).await)
    }
    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        the_one(self.release_many(std::slice::from_ref(request)).await)
    }
    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        self.store.watch(name, owner).await
    }
    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        self.store.inspect(name).await
    }
    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.store.list(request).await
    }
    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        self.store.force_release(name).await
    }
    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Answers<Acquired> {
        let call = self.calls[0].fetch_add(1, Ordering::SeqCst);
        (self.on_acquire)(call, requests.to_vec(), self.store.clone()).await
    }
    async fn renew_many(&self, requests: &[RenewRequest]) -> Answers<Renewed> {
        let call = self.calls[1].fetch_add(1, Ordering::SeqCst);
        (self.on_renew)(call, requests.to_vec(), self.store.clone()).await
    }
    async fn release_many(&self, requests: &[ReleaseRequest]) -> Answers<Released> {
        let call = self.calls[2].fetch_add(1, Ordering::SeqCst);
        (self.on_release)(call, requests.to_vec(), self.store.clone()).await
    }
}
