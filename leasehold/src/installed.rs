//! The locks that a program uses unless it says otherwise.

use std::sync::{PoisonError, RwLock};

use lock_core::{ErrorKind, Locks, StoreError};

static INSTALLED: RwLock<Option<Locks>> = RwLock::new(None);

tokio::task_local! {
    static IN_THIS_TASK: Locks;
}

/// Makes these the locks of the whole program: those that [`#[locked]`](macro@crate::locked) takes unless it is told which,
/// and that [`installed`] gives. To be called once, when the program starts; returns those that were there before, if any.
///
/// They belong to one tokio runtime, as every [`Locks`] does. Tests, which have a runtime each, use [`with_locks`] instead.
pub fn install(locks: Locks) -> Option<Locks> {
    INSTALLED.write().unwrap_or_else(PoisonError::into_inner).replace(locks)
}

/// Runs something that takes these locks for the installed ones: for tests, and for programs of several stores.
///
/// It goes by the task: what is spawned in it takes the installed ones.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use leasehold::{Outcome, testing::Stage, with_locks};
///
/// # #[cfg(feature = "macros")] {
/// #[leasehold::locked(name = "job")]
/// async fn job() -> u32 { 7 }
///
/// let stage = Stage::new();
/// assert_eq!(with_locks(stage.locks(), job()).await.unwrap(), Outcome::Ran(7));
/// # } }
/// ```
pub async fn with_locks<W: Future>(locks: Locks, work: W) -> W::Output {
    IN_THIS_TASK.scope(locks, work).await
}

/// The locks that are to be used here: those of [`with_locks`], else those of [`install`].
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] if there are none; the message says what to do.
pub fn installed() -> Result<Locks, StoreError> {
    if let Ok(locks) = IN_THIS_TASK.try_with(Clone::clone) {
        return Ok(locks);
    }
    INSTALLED.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| {
        let message = "no locks are installed: call leasehold::install(locks) when the program starts, or say which with \
                       #[locked(locks = …)]";
        StoreError::refused(ErrorKind::InvalidConfig, message)
    })
}
