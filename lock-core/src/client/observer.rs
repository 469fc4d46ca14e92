//! What happens to locks, told to whoever counts it.

use std::{
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::error::{LockError, LossReason};
use crate::{
    error::ErrorKind,
    fence::{FenceError, RefusalReason},
};

/// Is told what happens to the locks of one client ([`LocksBuilder::observer`](crate::LocksBuilder::observer)), or what a
/// register or guard of fences refuses (its method `observer`), for metrics.
///
/// It is called in the midst of the work, so it must not block. One that panics is not asked to account for it: the panic
/// goes no further, and no lease suffers.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Something happened to a lock of this store (a register's: `files`, `object store` and `service` as well), and of the
    /// class that the application gave it ([`Lock::class`](crate::Lock::class)). Names of locks are not told: metrics must be
    /// bounded.
    fn observed(&self, store: &'static str, class: Option<&str>, event: &Event);
}

/// Keeps what it is told, for tests.
///
/// ```
/// use lock_core::{Fence, FenceRegister, MemoryFences, Pass, RefusalReason, Resource, TestObserver};
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let told = Arc::new(TestObserver::default());
/// let (fences, accounts) = (MemoryFences::new().observer(told.clone()), Resource::new("accounts")?);
/// fences.raise(&accounts, &"6@accounts".parse()?, Pass::Again).await?;
/// assert!(fences.raise(&accounts, &"5@accounts".parse()?, Pass::Again).await.is_err());
/// assert_eq!(told.refusals(), [RefusalReason::Stale]);
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct TestObserver(Mutex<Vec<Told>>);

/// What an [`Observer`] is told at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// Of which store.
    pub store: &'static str,
    /// Of which class.
    pub class: Option<String>,
    /// What happened.
    pub event: Event,
}

impl TestObserver {
    /// What was told since this was last asked.
    #[must_use]
    pub fn take(&self) -> Vec<Told> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, as far as fences were refused: why.
    #[must_use]
    pub fn refusals(&self) -> Vec<RefusalReason> {
        let reason = |told: Told| match told.event {
            Event::FenceRefused { reason } => Some(reason),
            _ => None,
        };
        self.take().into_iter().filter_map(reason).collect()
    }
}

impl Observer for TestObserver {
    fn observed(&self, store: &'static str, class: Option<&str>, event: &Event) {
        let told = Told { store, class: class.map(str::to_owned), event: *event };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A lock was granted, after this time in all.
    Acquired {
        /// From the call to the grant.
        waited: Duration,
    },
    /// Somebody else held it until the time to wait was over.
    Busy {
        /// From the call to its end.
        waited: Duration,
    },
    /// The tick that was asked for was used up.
    Finished,
    /// It could not be acquired for another reason.
    AcquireFailed {
        /// What went wrong; `None` if the grant came too late to be believed.
        kind: Option<ErrorKind>,
    },
    /// A lease was renewed.
    Renewed,
    /// A renewal failed, or nobody knows; the lease holds until its deadline.
    RenewalFailed {
        /// What went wrong.
        kind: ErrorKind,
    },
    /// A guard ended whose lease had been lost.
    Lost {
        /// Why.
        reason: LossReason,
        /// From the request that was granted to the end of the guard.
        held: Duration,
    },
    /// A guard gave its lock back; whether the store took it is not known yet.
    Released {
        /// From the request that was granted to the release.
        held: Duration,
    },
    /// A write was refused by its fence: told by the register or guard that refused it, without a class, or by
    /// [`run_in_transaction`](crate::Lock::run_in_transaction), with its lock's.
    FenceRefused {
        /// Why.
        reason: RefusalReason,
    },
}

impl Event {
    /// What an acquire came to.
    pub(super) fn of_acquire<T>(outcome: &Result<T, LockError>, waited: Duration) -> Self {
        match outcome {
            Ok(_) => Self::Acquired { waited },
            Err(LockError::Busy(_)) => Self::Busy { waited },
            Err(LockError::Finished(_)) => Self::Finished,
            Err(LockError::Lost(_)) => Self::AcquireFailed { kind: None },
            Err(LockError::Store(error)) => Self::AcquireFailed { kind: Some(error.kind()) },
        }
    }
}

/// The observer of a client, if it has one, and what is the same each time.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) store: &'static str,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Watched {
    /// Tells it; what it takes to say is only worked out if somebody listens.
    pub(crate) fn tell(&self, class: Option<&str>, event: impl FnOnce() -> Event) {
        let Some(observer) = &self.observer else { return };
        let event = event();
        if catch_unwind(AssertUnwindSafe(|| observer.observed(self.store, class, &event))).is_err() {
            tracing::error!(?event, "the observer panicked");
        }
    }

    /// Tells it that a check said no, if it did.
    pub(crate) fn tell_of_refusal<T>(&self, class: Option<&str>, outcome: &Result<T, FenceError>) {
        if let Some(reason) = outcome.as_ref().err().and_then(FenceError::reason) {
            self.tell(class, || Event::FenceRefused { reason });
        }
    }
}
