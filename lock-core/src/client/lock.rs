//! What somebody wants of a lock, and how it is said.

use std::{sync::Arc, time::Duration};

use super::{
    acquire::{Wish, acquire},
    error::LockError,
    guard::LeaseGuard,
    locks::Client,
};
use crate::{
    error::{ErrorKind, StoreError},
    name::LockName,
    request::{Mode, ReleaseRequest},
    tick::{Tick, TickUse},
};

/// A lock to be acquired: [`Locks::lock`](crate::Locks::lock) makes it, the methods say how it is wanted.
#[derive(Clone, Debug)]
#[must_use = "nothing is acquired until `run`, `acquire` or `try_acquire` is awaited"]
pub struct Lock {
    pub(super) client: Arc<Client>,
    pub(super) name: String,
    ttl: Duration,
    wait: Option<Duration>,
    fair: bool,
    pub(super) at_most_for: Option<Duration>,
    at_least_for: Duration,
    label: String,
    class: Option<Arc<str>>,
    pub(super) tick: Option<Tick>,
    tick_use: TickUse,
    pub(super) reentrant: bool,
}

impl Lock {
    /// The ttl unless another is asked for: 30 seconds.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(30);

    pub(super) fn new(client: Arc<Client>, name: String) -> Self {
        Self {
            client,
            name,
            ttl: Self::DEFAULT_TTL,
            wait: None,
            fair: false,
            at_most_for: None,
            at_least_for: Duration::ZERO,
            label: String::new(),
            class: None,
            tick: None,
            tick_use: TickUse::AtGrant,
            reentrant: false,
        }
    }

    /// How soon others may take the lock after this process vanishes; it is renewed meanwhile. 30 s by default.
    ///
    /// The store's range is in its [`Capabilities`](crate::Capabilities).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Gives up when it isn't to be had within this time. By default it waits for ever.
    pub fn wait_at_most(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Doesn't wait at all.
    pub fn no_wait(self) -> Self {
        self.wait_at_most(Duration::ZERO)
    }

    /// Is granted in the order in which waiters over all processes asked, each with a place of its own in the store's queue.
    ///
    /// Otherwise the waiters of one client queue within it, and only the first of them contends at the store: a thousand
    /// cost the store as much as one. Where the store doesn't keep the order
    /// ([`Capabilities::fairness`](crate::Capabilities)), acquiring fails with `Unsupported`. A waiter whose lease at the
    /// store ended meanwhile, as after an outage, queues anew.
    pub fn fair(mut self) -> Self {
        self.fair = true;
        self
    }

    /// Ends the lease after this time, renewals included, counted from before the request was sent.
    pub fn at_most_for(mut self, cap: Duration) -> Self {
        self.at_most_for = Some(cap);
        self
    }

    /// Keeps the lock taken for this long after it was granted, even when it is released sooner.
    ///
    /// If the process dies first, the ttl decides. Where [`Capabilities::minimum_hold`](crate::Capabilities) says `Process`,
    /// this process goes on renewing the lease for that time. At most 366 days.
    pub fn at_least_for(mut self, least: Duration) -> Self {
        self.at_least_for = least;
        self
    }

    /// What the application calls this use of the lock, for people who look at it.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Which kind of use this is, for metrics: `invoice` for the locks `invoice-1`, `invoice-2`…, so that there are few.
    pub fn class(mut self, class: impl Into<Arc<str>>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// Is for this scheduled time: granted only if no grant was made for it, or a later one, before. So a job runs at most
    /// once per tick over all processes, however short it is and however far their clocks differ.
    ///
    /// The grant uses the tick up, in the same step at the store. If the holder then dies, or the answer of the store is
    /// lost, that tick isn't run at all; [`retry`](Self::retry) is the other choice. The store remembers the last tick of
    /// a lock for as long as its token.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), lock_core::LockError> {
    /// use std::time::SystemTime;
    /// use lock_core::{Locks, MemoryLocks, Outcome, Skipped};
    ///
    /// let locks = Locks::new(MemoryLocks::new());
    /// let fired_at = SystemTime::UNIX_EPOCH; // what the scheduler planned
    /// let job = || locks.lock("report").tick(fired_at).run_or_skip(|_| async { "sent" });
    /// assert_eq!(job().await?, Outcome::Ran("sent"));
    /// assert!(matches!(job().await?, Outcome::Skipped(Skipped::Finished(_))));
    /// # Ok(()) }
    /// ```
    pub fn tick(mut self, tick: impl Into<Tick>) -> Self {
        self.tick = Some(tick.into());
        self
    }

    /// Lets a tick be run again whose run failed, panicked, was dropped, lost its lease or died with its process: it is
    /// used up by the release after work that ended well, and not by the grant. So it runs at least once, if anybody
    /// still asks for it. Without a tick it says nothing.
    ///
    /// **An `Err` that the work of [`run`](Self::run) and its kin gives is a run that ended well**, unless the work calls
    /// [`Lease::fail`](crate::Lease::fail) as well. (`#[locked]` does that for functions that return a `Result`.)
    ///
    /// With a guard, the release is what says that the work ended well, unless [`Lease::fail`](crate::Lease::fail) was
    /// called; a drop doesn't.
    pub fn retry(mut self) -> Self {
        self.tick_use = TickUse::AtRelease;
        self
    }

    /// Lets [`run`](Self::run) and its kin join: work that runs under this lock already, in the same task and by a clone
    /// of the same [`Locks`](crate::Locks), does this work under the same lease, without a request.
    ///
    /// The joined work has an at-most-for of its own, if that is set; its other wishes are those of the lease it joins. It
    /// excludes all others, but not what joins at the same time within the same task.
    /// Across tasks it is a second owner, as without this. A guard that was [acquired](Self::acquire) is nothing that
    /// work runs under.
    pub fn reentrant(mut self) -> Self {
        self.reentrant = true;
        self
    }

    /// Acquires it, waiting as was said.
    ///
    /// Cancel safe: dropped at any point, it leaves nothing held and no place in a queue; what may have been granted is
    /// released behind it.
    ///
    /// # Errors
    /// [`LockError::Busy`] when the time to wait is over, [`LockError::Finished`] when the tick it is for was used up, [`LockError::Store`] when the store refused the wish or, to one
    /// that doesn't wait, was out of reach. A waiting one goes on through outages until its time is over, and is then told
    /// what the store said, or failed with, last. [`LockError::Lost`] if the answer took longer than at-most-for.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn acquire(self) -> Result<LeaseGuard, LockError> {
        let (client, wish) = self.wish()?;
        acquire(client, wish).await
    }

    /// Acquires it if it can be had now; `None` if somebody else holds it, or its tick was used up.
    ///
    /// # Errors
    /// [`LockError::Store`], as for [`acquire`](Self::acquire). Cancel safe in the same way.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn try_acquire(self) -> Result<Option<LeaseGuard>, LockError> {
        match self.no_wait().acquire().await {
            Ok(guard) => Ok(Some(guard)),
            Err(LockError::Busy(_) | LockError::Finished(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn wish(self) -> Result<(Arc<Client>, Wish), StoreError> {
        let name = LockName::new(&self.name)?;
        if self.at_most_for.is_some_and(|most| most < self.at_least_for) {
            let message = "at-most-for can't be shorter than at-least-for";
            return Err(StoreError::refused(ErrorKind::InvalidTtl, message));
        }
        if self.at_most_for.is_some_and(|most| most.is_zero()) {
            return Err(StoreError::refused(ErrorKind::InvalidTtl, "at-most-for can't be zero"));
        }
        if self.at_least_for > ReleaseRequest::KEEP_FOR_MAX {
            return Err(StoreError::refused(ErrorKind::InvalidTtl, "at-least-for can be 366 days at most"));
        }
        let wish = Wish {
            name,
            mode: Mode::Exclusive,
            ttl: self.ttl,
            wait: self.wait,
            fair: self.fair,
            at_most_for: self.at_most_for,
            at_least_for: self.at_least_for,
            label: self.label,
            class: self.class,
            tick: self.tick,
            tick_use: self.tick_use,
        };
        Ok((self.client, wish))
    }
}
