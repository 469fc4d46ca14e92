//! For tests of applications and providers: a store in memory on a clock that the test owns, with mishaps on demand.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    capability::Capabilities,
    client::{LeaseGuard, LockError, Locks},
    clock::{Clock, TestClock},
    entropy::SeededEntropy,
    error::{ErrorKind, Operation, StoreError},
    memory::MemoryLocks,
    name::LockName,
    owner::OwnerId,
    provider::LockProvider,
    request::{
        AcquireRequest, Acquired, ListRequest, LockState, LockStatus, ReleaseRequest, Released, RenewRequest, Renewed,
    },
    wake::Watch,
};

/// A store for tests. Each [`locks`](Self::locks) is a node of its own; all of them live by one clock, which follows tokio's
/// paused time: hours pass in milliseconds, and a job's own sleeps and its leases move together.
///
/// ```
/// use std::time::Duration;
/// use lock_core::{LockError, LossReason, Lost, testing::Stage};
///
/// # async fn charge() {}
/// async fn job(locks: &lock_core::Locks) -> Result<(), LockError> {
///     locks.lock("job").ttl(Duration::from_secs(30)).no_wait().run(|_| async {
///         tokio::time::sleep(Duration::from_secs(3600)).await;
///     }).await
/// }
///
/// #[tokio::main(flavor = "current_thread", start_paused = true)]
/// async fn main() {
///     let stage = Stage::new();
///     let locks = stage.locks();
///     job(&locks).await.unwrap(); // an hour, at once
///
///     // Another node has it.
///     let other = stage.hold("job").await.unwrap();
///     assert!(matches!(job(&locks).await, Err(LockError::Busy(_))));
///     other.release().await.unwrap();
///
///     // The store goes away for good while the job runs.
///     let (outcome, ()) = tokio::join!(job(&locks), async {
///         stage.pass(Duration::from_secs(60)).await;
///         stage.set_down(true);
///     });
///     assert!(matches!(outcome, Err(LockError::Lost(Lost { reason: LossReason::Expired, .. }))));
/// }
/// ```
#[derive(Clone)]
pub struct Stage(Arc<Inner>);

struct Inner {
    store: MemoryLocks,
    clock: Arc<TestClock>,
    capabilities: Capabilities,
    script: Mutex<Script>,
    down: AtomicBool,
    nodes: AtomicU64,
}

#[derive(Default)]
struct Script {
    mishaps: VecDeque<(Operation, Mishap)>,
    asked: Vec<(Operation, usize)>,
}

/// What is to happen to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mishap {
    /// Nothing: it is passed on.
    None,
    /// It fails and is never applied.
    Refused,
    /// It is applied, and its reply is lost.
    ReplyLost,
    /// It is applied, and its reply comes this much later.
    Late(Duration),
}

impl Stage {
    /// An empty store, on a clock that starts now.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, of a store that can do other things than the one in memory.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn with(change: impl FnOnce(&mut Capabilities)) -> Self {
        let clock = Arc::new(TestClock::new());
        let store = MemoryLocks::with_clock(clock.clone());
        let mut capabilities = store.capabilities().clone();
        change(&mut capabilities);
        Self(Arc::new(Inner {
            store,
            clock,
            capabilities,
            script: Mutex::default(),
            down: false.into(),
            nodes: 0.into(),
        }))
    }

    /// A node: a client of this store, on its clock, whose chance is its own and the same in each run.
    #[must_use]
    pub fn locks(&self) -> Locks {
        // Two nodes with the same chance would be one owner.
        let seed = 42 + self.0.nodes.fetch_add(1, Ordering::SeqCst);
        Locks::builder(self.clone()).clock(self.0.clock.clone()).entropy(Arc::new(SeededEntropy::new(seed))).build()
    }

    /// The clock: to let time pass as in a suspend of the machine, or to step the wall clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<TestClock> {
        &self.0.clock
    }

    /// The store behind the mishaps.
    #[must_use]
    pub fn store(&self) -> &MemoryLocks {
        &self.0.store
    }

    /// Lets so much time pass.
    pub async fn pass(&self, by: Duration) {
        self.0.clock.sleep_until(self.0.clock.now() + by).await;
    }

    /// The next operation of this kind meets this; several are met one after the other.
    pub fn next(&self, operation: Operation, mishap: Mishap) {
        self.script().mishaps.push_back((operation, mishap));
    }

    /// Those that were not met yet are off.
    pub fn no_more_mishaps(&self) {
        self.script().mishaps.clear();
    }

    /// While the store is down, every operation fails unapplied.
    pub fn set_down(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
    }

    /// How many requests of this kind came; a group counts once.
    #[must_use]
    pub fn asked(&self, operation: Operation) -> usize {
        self.script().asked.iter().find(|(kind, _)| *kind == operation).map_or(0, |(_, count)| *count)
    }

    /// Has another node hold this lock, until its guard is released or dropped.
    ///
    /// # Errors
    /// As for [`Lock::acquire`](crate::Lock::acquire); it doesn't wait.
    pub async fn hold(&self, name: &str) -> Result<LeaseGuard, LockError> {
        // Past the mishaps, which are meant for the node under test.
        let other = Locks::builder(self.0.store.clone()).clock(self.0.clock.clone()).build();
        other.lock(name).label("another node").no_wait().acquire().await
    }

    /// Takes the lock away from whoever holds it, as an operator might; `true` if somebody did.
    ///
    /// # Errors
    /// That of a bad name.
    pub async fn take_away(&self, name: &str) -> Result<bool, StoreError> {
        self.0.store.force_release(&LockName::new(name)?).await
    }

    /// Whether anybody could have the lock now.
    pub async fn is_free(&self, name: &str) -> bool {
        let Ok(name) = LockName::new(name) else { return false };
        matches!(self.0.store.inspect(&name).await, Ok(status) if status.as_ref().is_none_or(|status| status.state == LockState::Free))
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, operation: Operation) {
        let asked = &mut self.script().asked;
        match asked.iter_mut().find(|(kind, _)| *kind == operation) {
            Some((_, count)) => *count += 1,
            None => asked.push((operation, 1)),
        }
    }

    async fn meet<T>(
        &self,
        operation: Operation,
        apply: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if self.0.down.load(Ordering::SeqCst) {
            return Err(StoreError::refused(ErrorKind::Unreachable, "down").at("stage", operation, None));
        }
        let mishap = {
            let mishaps = &mut self.script().mishaps;
            let place = mishaps.iter().position(|(kind, _)| *kind == operation);
            place.and_then(|place| mishaps.remove(place)).map_or(Mishap::None, |(_, mishap)| mishap)
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

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("store", &self.0.store).field("clock", &self.0.clock).finish_non_exhaustive()
    }
}

#[async_trait]
impl LockProvider for Stage {
    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        request.check(&self.0.capabilities)?;
        self.count(Operation::Acquire);
        self.meet(Operation::Acquire, self.0.store.acquire(request)).await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        request.check(&self.0.capabilities)?;
        self.count(Operation::Renew);
        self.meet(Operation::Renew, self.0.store.renew(request)).await
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        request.check(&self.0.capabilities)?;
        self.count(Operation::Release);
        self.meet(Operation::Release, self.0.store.release(request)).await
    }

    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        self.count(Operation::Watch);
        self.meet(Operation::Watch, self.0.store.watch(name, owner)).await
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        self.meet(Operation::Inspect, self.0.store.inspect(name)).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.meet(Operation::List, self.0.store.list(request)).await
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        self.meet(Operation::ForceRelease, self.0.store.force_release(name)).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        self.count(Operation::Renew);
        let mut outcomes = Vec::new();
        for request in requests {
            outcomes.push(self.meet(Operation::Renew, self.0.store.renew(request)).await);
        }
        outcomes
    }
}
