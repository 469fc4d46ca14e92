//! A provider that can be watched and made to misbehave, around the one in memory, on a clock that the test owns.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod hooked;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lock_core::*;

/// What is to happen to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// Nothing: it is passed on.
    None,
    /// It fails and is never applied.
    Refused,
    /// It is applied, and its reply is lost.
    ReplyLost,
    /// It is applied, and its reply comes this much later.
    Late(Duration),
}

#[derive(Debug)]
pub(crate) struct Spy {
    pub(crate) store: MemoryLocks,
    pub(crate) clock: Arc<TestClock>,
    capabilities: Capabilities,
    pub(crate) mishaps: Mutex<VecDeque<(Operation, Mishap)>>,
    /// While set, every operation fails unapplied.
    pub(crate) down: std::sync::atomic::AtomicBool,
    pub(crate) acquires: AtomicUsize,
    pub(crate) renewals: AtomicUsize,
    pub(crate) releases: AtomicUsize,
    pub(crate) watches: AtomicUsize,
}

impl Spy {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Capabilities)) -> Arc<Self> {
        let clock = Arc::new(TestClock::new());
        let store = MemoryLocks::with_clock(clock.clone());
        let mut capabilities = store.capabilities().clone();
        change(&mut capabilities);
        Arc::new(Self {
            store,
            clock,
            capabilities,
            mishaps: Mutex::default(),
            down: false.into(),
            acquires: 0.into(),
            renewals: 0.into(),
            releases: 0.into(),
            watches: 0.into(),
        })
    }

    pub(crate) fn locks(self: &Arc<Self>) -> Locks {
        Locks::builder_shared(self.clone()).clock(self.clock.clone()).entropy(Arc::new(SeededEntropy::new(42))).build()
    }

    /// The next operation of this kind meets this.
    pub(crate) fn next(&self, operation: Operation, mishap: Mishap) {
        self.mishaps.lock().unwrap().push_back((operation, mishap));
    }

    pub(crate) fn count(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::SeqCst)
    }

    pub(crate) async fn pass(&self, by: Duration) {
        self.clock.sleep_until(self.clock.now() + by).await;
    }

    pub(crate) async fn is_free(&self, name: &str) -> bool {
        let status = self.store.inspect(&LockName::new(name).unwrap()).await.unwrap();
        status.is_none_or(|status| status.state == LockState::Free)
    }

    async fn meet<T>(
        &self,
        operation: Operation,
        apply: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::refused(ErrorKind::Unreachable, "down").at("spy", operation, None));
        }
        let mishap = {
            let mut mishaps = self.mishaps.lock().unwrap();
            match mishaps.iter().position(|(kind, _)| *kind == operation) {
                Some(place) => mishaps.remove(place).map_or(Mishap::None, |(_, mishap)| mishap),
                None => Mishap::None,
            }
        };
        match mishap {
            Mishap::None => apply.await,
            Mishap::Refused => Err(StoreError::refused(ErrorKind::Unreachable, "refused")),
            Mishap::ReplyLost => {
                apply.await?;
                Err(StoreError::unknown(ErrorKind::Timeout, "the reply was lost"))
            }
            Mishap::Late(by) => {
                let reply = apply.await;
                self.pass(by).await;
                reply
            }
        }
    }
}

#[async_trait]
impl LockProvider for Spy {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        self.acquires.fetch_add(1, Ordering::SeqCst);
        self.meet(Operation::Acquire, self.store.acquire(request)).await
    }
    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        self.meet(Operation::Renew, self.store.renew(request)).await
    }
    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        self.releases.fetch_add(1, Ordering::SeqCst);
        self.meet(Operation::Release, self.store.release(request)).await
    }
    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        self.watches.fetch_add(1, Ordering::SeqCst);
        self.meet(Operation::Watch, self.store.watch(name, owner)).await
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
    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        let mut outcomes = Vec::new();
        for request in requests {
            outcomes.push(self.meet(Operation::Renew, self.store.renew(request)).await);
        }
        outcomes
    }
}
