//! The client: a store, seen as a source of locks.

use std::{fmt, sync::Arc, time::Duration};

use tokio_util::task::TaskTracker;

use super::{
    keeper::Keeper,
    lock::Lock,
    observer::{Event, Observer, Watched},
    queue::LocalQueues,
};
use crate::{
    clock::{Clock, Moment, SystemClock},
    entropy::{Entropy, OsEntropy},
    error::{Applied, StoreError},
    group::Grouped,
    provider::LockProvider,
    request::{ReleaseRequest, Released},
    timing::{Timing, jitter},
};

/// A source of locks: what an application keeps and clones. Clones share one keeper, which renews all their leases.
///
/// It belongs to the tokio runtime that it is first used in: the keeper, the requests under way and the drivers'
/// connections live there. So that runtime's workers must not be blocked for as long as a lease lasts, and another
/// runtime needs a `Locks` of its own. Before a program ends, [`settled`](Self::settled) lets dropped guards release.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use lock_core::{Locks, MemoryLocks};
///
/// let locks = Locks::new(MemoryLocks::new());
/// let total = locks
///     .lock("invoice-42")
///     .ttl(Duration::from_secs(15))
///     .wait_at_most(Duration::from_secs(5))
///     .run(|lease| async move { format!("charged under token {}", lease.token()) })
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Locks(Arc<Client>);

/// What all clones of a [`Locks`], and its guards, share.
pub(super) struct Client {
    pub(super) provider: Arc<dyn LockProvider>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) timing: Timing,
    pub(super) queues: Arc<LocalQueues>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) watched: Watched,
    /// Releases that nobody awaits. Always closed, which means that it can be waited for.
    pub(super) behind: TaskTracker,
}

/// Makes a [`Locks`] with a clock, a source of chance or a timing of its own.
#[derive(Debug)]
#[must_use]
pub struct LocksBuilder {
    provider: Arc<dyn LockProvider>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    timing: Timing,
    observer: Option<Arc<dyn Observer>>,
}

impl Locks {
    /// Locks of this store, on the host's clock.
    #[must_use]
    pub fn new(provider: impl LockProvider) -> Self {
        Self::builder(provider).build()
    }

    /// Locks of this store, with more to say.
    pub fn builder(provider: impl LockProvider) -> LocksBuilder {
        Self::builder_shared(Arc::new(provider))
    }

    /// The same, for a store that is shared already.
    pub fn builder_shared(provider: Arc<dyn LockProvider>) -> LocksBuilder {
        LocksBuilder {
            provider,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            timing: Timing::default(),
            observer: None,
        }
    }

    /// A lock of this name, to be acquired. The name is checked when it is.
    pub fn lock(&self, name: impl Into<String>) -> Lock {
        Lock::new(self.0.clone(), name.into())
    }

    /// Returns once the releases that go on behind dropped guards and dropped acquires have ended, well or not.
    ///
    /// For the end of a program: a runtime that is shut down takes them along, and the ttls free the locks. Each ends by
    /// itself: a release when the lease that it gives back would have ended, or after 5 s; but a lock that this process
    /// keeps taken (at-least-for, where the store can't) only when that is over, and blocking work when its thread is
    /// through. So give it a time-out. Not to be called from within blocking work, which would wait for itself. Cancel safe.
    pub async fn settled(&self) {
        self.0.behind.wait().await;
    }

    /// The store: to look at locks and to take them away, not to hold them.
    #[must_use]
    pub fn provider(&self) -> &Arc<dyn LockProvider> {
        &self.0.provider
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locks").field(&self.0.provider).finish()
    }
}

impl LocksBuilder {
    /// On this clock instead of the host's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// With this source of chance instead of the operating system's.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// With another bound on clock drift, or another margin.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// With somebody who is told what happens to the locks, for metrics.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The client. Where the store takes many operations in one request, concurrent ones are sent together.
    #[must_use]
    pub fn build(self) -> Locks {
        let Self { provider, clock, entropy, timing, observer } = self;
        let watched = Watched { store: provider.capabilities().store, observer };
        let keeper = Arc::new(Keeper::new(provider.clone(), clock.clone(), entropy.clone(), timing, watched.clone()));
        let provider = match provider.capabilities().grouping {
            Some(_) => Arc::new(Grouped::new(provider)),
            None => provider,
        };
        let behind = TaskTracker::new();
        behind.close();
        Locks(Arc::new(Client { provider, clock, entropy, timing, queues: Arc::default(), keeper, watched, behind }))
    }
}

impl Client {
    /// Tells whoever watches; `event` is given the time it is.
    pub(super) fn tell(&self, class: Option<&str>, event: impl FnOnce(Moment) -> Event) {
        self.watched.tell(class, || event(self.clock.now()));
    }

    /// Gives a lock back; while the store is out of reach it tries again until `patience` is over, at least once.
    ///
    /// The lock stays taken until `stay_until`, if that is later. After an attempt that may have been applied, "not yours" means that it was.
    ///
    /// # Errors
    /// Those of the last attempt.
    pub(super) async fn give_back(
        &self,
        mut request: ReleaseRequest,
        stay_until: Option<Moment>,
        patience: Duration,
    ) -> Result<Released, StoreError> {
        let until = self.clock.now() + patience;
        let mut backoff = Backoff::default();
        let mut may_be_done = false;
        loop {
            request.keep_for = stay_until.map_or(Duration::ZERO, |until| until.since(self.clock.now()));
            let outcome = self.provider.release(&request).await;
            match &outcome {
                Ok(Released::NotHeld) if may_be_done => return Ok(Released::Released),
                Err(error) if error.is_transient() => {
                    may_be_done |= error.applied() == Applied::Maybe;
                    tracing::debug!(lock = %request.name, %error, "a release failed");
                    let again = self.clock.now() + backoff.next(&*self.entropy);
                    if again >= until {
                        return outcome;
                    }
                    self.clock.sleep_until(again).await;
                }
                _ => return outcome,
            }
        }
    }
}

/// Growing waits between attempts: 20 ms, doubled up to a second, each between a half and the whole of that.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(20);
    const MOST: Duration = Duration::from_secs(1);

    pub(super) fn next(&mut self, entropy: &dyn Entropy) -> Duration {
        self.next_up_to(Self::MOST, entropy)
    }

    pub(super) fn next_up_to(&mut self, most: Duration, entropy: &dyn Entropy) -> Duration {
        let whole = Self::FIRST.saturating_mul(1 << self.0.min(20)).min(most);
        self.0 += 1;
        whole / 2 + jitter(whole / 2, entropy)
    }

    /// How many waits there were.
    pub(super) fn count(&self) -> u32 {
        self.0
    }
}
