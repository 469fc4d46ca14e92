//! What somebody wants of a lock, and how it is said.

use std::{future::Future, sync::Arc, time::Duration};

use super::{
    acquire::{Wish, acquire},
    error::LockError,
    guard::LeaseGuard,
    lease::Lease,
    locks::Client,
};
use crate::{
    error::{ErrorKind, StoreError},
    name::LockName,
    request::{Mode, ReleaseRequest},
};

/// How long `run` waits for the release of its lock.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// A lock to be acquired: [`Locks::lock`](crate::Locks::lock) makes it, the methods say how it is wanted.
#[derive(Clone, Debug)]
#[must_use = "nothing is acquired until `run`, `acquire` or `try_acquire` is awaited"]
pub struct Lock {
    client: Arc<Client>,
    name: String,
    ttl: Duration,
    wait: Option<Duration>,
    fair: bool,
    at_most_for: Option<Duration>,
    at_least_for: Duration,
    label: String,
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

    /// Acquires it, waiting as was said.
    ///
    /// Cancel safe: dropped at any point, it leaves nothing held and no place in a queue; what may have been granted is
    /// released behind it.
    ///
    /// # Errors
    /// [`LockError::Busy`] when the time to wait is over, [`LockError::Store`] when the store refused the wish or, to one
    /// that doesn't wait, was out of reach. A waiting one goes on through outages until its time is over, and is then told
    /// what the store said, or failed with, last. [`LockError::Lost`] if the answer took longer than at-most-for.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn acquire(self) -> Result<LeaseGuard, LockError> {
        let (client, wish) = self.wish()?;
        acquire(client, wish).await
    }

    /// Acquires it if it can be had now; `None` if somebody else holds it.
    ///
    /// # Errors
    /// [`LockError::Store`], as for [`acquire`](Self::acquire). Cancel safe in the same way.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn try_acquire(self) -> Result<Option<LeaseGuard>, LockError> {
        match self.no_wait().acquire().await {
            Ok(guard) => Ok(Some(guard)),
            Err(LockError::Busy(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Acquires it, does the work, and releases it.
    ///
    /// When the lease is lost the work's future is *dropped*, before the store may give the lock to another; after a stop
    /// of the process it isn't polled again. What it does between two `await`s can't be stopped from outside: let it look
    /// at [`Lease::check`]. A task that it spawns is not dropped with it. Dropping this
    /// future drops the work and releases the lock.
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire), and [`LockError::Lost`] when the lease ended before the work did. A release
    /// that fails is logged and left to the ttl, one that takes longer than 5 s goes on behind: the work was done.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn run<T, F, W>(self, work: F) -> Result<T, LockError>
    where
        F: FnOnce(Lease) -> W,
        W: Future<Output = T>,
    {
        let guard = self.clone().acquire().await?;
        let lease = guard.lease().clone();
        // The work's future is gone when this ends, before the lock is given back.
        let done = lease.while_held(work(lease.clone())).await;
        let clock = self.client.clock.clone();
        tokio::select! {
            released = guard.release() => if let Err(error) = released {
                tracing::warn!(lock = %lease.name(), %error, "the work is done, its lock could not be released; its ttl frees it");
            },
            () = clock.sleep_until(clock.now() + RELEASE_PATIENCE) => {
                tracing::warn!(lock = %lease.name(), "the work is done, the release of its lock takes long and goes on behind");
            }
        }
        Ok(done?)
    }

    fn wish(self) -> Result<(Arc<Client>, Wish), StoreError> {
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
        };
        Ok((self.client, wish))
    }
}
