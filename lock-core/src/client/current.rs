//! Which leases the running task is under: so that work can ask for its lease, and join one it is under already.

use std::{
    future::Future,
    sync::{Arc, Weak},
};

use super::{
    guard::{Hold, LeaseGuard},
    lease::Lease,
    locks::Client,
};
use crate::{clock::Moment, tick::Tick};

tokio::task_local! {
    static INNERMOST: Arc<Under>;
}

/// Work under a lease, and what that work is in turn under.
#[derive(Debug)]
pub(super) struct Under {
    lease: Lease,
    /// Not the hold itself: the work must not keep the lock from being released.
    hold: Weak<Hold>,
    outer: Option<Arc<Self>>,
}

impl Under {
    /// Under this guard's lease, within whatever the task is under already.
    pub(super) fn new(guard: &LeaseGuard) -> Arc<Self> {
        Self::within(guard.lease().clone(), guard.downgrade())
    }

    /// Under the same hold once more, until `cap` at the latest: for work that joins it.
    pub(super) fn joined(&self, cap: Option<Moment>) -> Arc<Self> {
        Self::within(self.lease.joined(cap), self.hold.clone())
    }

    fn within(lease: Lease, hold: Weak<Hold>) -> Arc<Self> {
        Arc::new(Self { lease, hold, outer: INNERMOST.try_with(Arc::clone).ok() })
    }

    /// What the running task is under, by this client and of this lock.
    pub(super) fn of(client: &Arc<Client>, name: &str) -> Option<Arc<Self>> {
        find(|under| under.lease.name().as_str() == name && under.hold.upgrade().is_some_and(|hold| hold.is_of(client)))
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// A share of the guard; `None` once it is gone.
    pub(super) fn share(&self) -> Option<LeaseGuard> {
        self.hold.upgrade().map(LeaseGuard::of)
    }

    /// The tick that the hold is for.
    pub(super) fn tick(&self) -> Option<Tick> {
        self.hold.upgrade().and_then(|hold| hold.tick())
    }

    /// Runs work that can see that it is under this.
    pub(super) fn scope<W: Future>(self: Arc<Self>, work: W) -> impl Future<Output = W::Output> {
        INNERMOST.scope(self, work)
    }

    /// The same for work that doesn't wait but blocks.
    pub(super) fn scope_blocking<T>(self: Arc<Self>, work: impl FnOnce() -> T) -> T {
        INNERMOST.sync_scope(self, work)
    }
}

fn find(wanted: impl Fn(&Under) -> bool) -> Option<Arc<Under>> {
    let mut next = INNERMOST.try_with(Arc::clone).ok();
    while let Some(under) = next {
        if wanted(&under) {
            return Some(under);
        }
        next = under.outer.clone();
    }
    None
}

/// The lease that the running work is under, the innermost if there are several; `None` outside
/// [`run`](crate::Lock::run) and its kin.
///
/// It goes by the task: a task that the work spawns is not under its lease.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), lock_core::LockError> {
/// use lock_core::{Locks, MemoryLocks, current};
///
/// async fn save() {
///     let token = current().expect("is called under a lock").token();
///     // … hand it to the resource.
///     # let _ = token;
/// }
///
/// Locks::new(MemoryLocks::new()).lock("x").run(|_| save()).await?;
/// assert!(current().is_none());
/// # Ok(()) }
/// ```
#[must_use]
pub fn current() -> Option<Lease> {
    find(|_| true).map(|under| under.lease.clone())
}

/// For code that must only run under the lock of this name: panics if the running work isn't under it, or if that lease
/// has ended. Gives the lease.
///
/// A mistake in the program is what it finds, hence the panic; whether the lease *still* holds later is what
/// [`Lease::check`] tells.
///
/// # Panics
/// See above. The message says what was missing.
#[track_caller]
#[expect(clippy::panic, reason = "that is what it is for")]
pub fn assert_locked(name: &str) -> Lease {
    let Some(under) = find(|under| under.lease.name().as_str() == name) else {
        panic!("this code must run under the lock \"{name}\", and doesn't");
    };
    if let Err(lost) = under.lease.check() {
        panic!("this code must run under the lock \"{name}\": {lost}");
    }
    under.lease.clone()
}
