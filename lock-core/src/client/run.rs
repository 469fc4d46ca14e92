//! Work under a lock: done, dropped when the lease is lost, and the lock given back however it ends.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::task::AbortHandle;

use super::{
    current::Under,
    error::{LockError, LossReason, Outcome, Skipped},
    guard::LeaseGuard,
    lease::Lease,
    lock::Lock,
    locks::Client,
};
use crate::error::{ErrorKind, StoreError};

/// How long a caller waits for what is only tidied up: the release of its lock, the roll-back of its transaction.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

impl Lock {
    /// Acquires it, does the work, and releases it.
    ///
    /// When the lease is lost the work's future is *dropped*, before the store may give the lock to another; after a stop
    /// of the process it isn't polled again. What it does between two `await`s can't be stopped from outside: let it look
    /// at [`Lease::check`]. A task that it spawns is not dropped with it. Dropping this
    /// future drops the work and releases the lock. What the work gives, an `Err` as well, is its own affair: it has ended
    /// well, unless it said [`Lease::fail`]. When the work panics, the lock is released before the panic goes on.
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
        match self.run_or_skip(work).await? {
            Outcome::Ran(value) => Ok(value),
            Outcome::Skipped(why) => Err(why.into()),
        }
    }

    /// Like [`run`](Self::run), for work that is somebody else's if the lock isn't to be had: that is a value then, and not
    /// an error.
    ///
    /// # Errors
    /// Those of [`run`](Self::run) but for `Busy` and `Finished`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn run_or_skip<T, F, W>(self, work: F) -> Result<Outcome<T>, LockError>
    where
        F: FnOnce(Lease) -> W,
        W: Future<Output = T>,
    {
        self.run_judged(work, |_| false).await
    }

    /// The same, for work whose result may say that it failed ([`Lease::fail`]). What `#[locked]` is made of.
    #[doc(hidden)]
    pub async fn run_judged<T, F, W>(self, work: F, failed: fn(&T) -> bool) -> Result<Outcome<T>, LockError>
    where
        F: FnOnce(Lease) -> W,
        W: Future<Output = T>,
    {
        if let Some(under) = self.joins()? {
            let (lease, has_tick) = (under.lease().clone(), self.tick.is_some());
            let work = async { lease.while_held(work(lease.clone())).await };
            let done = Box::pin(under.scope(work)).await?;
            // For the same tick: it isn't done by a run of which a part failed.
            if has_tick && failed(&done) {
                lease.fail();
            }
            return Ok(Outcome::Ran(done));
        }
        let client = self.client.clone();
        let guard = match acquired(self).await? {
            Outcome::Ran(guard) => guard,
            Outcome::Skipped(why) => return Ok(Outcome::Skipped(why)),
        };
        let lease = guard.lease().clone();
        // The work's future is gone when this ends, before the lock is given back.
        let done = {
            let work = async { lease.while_held(work(lease.clone())).await };
            AssertUnwindSafe(Under::new(&guard).scope(work)).catch_unwind().await
        };
        if done.as_ref().map_or(true, |done| done.as_ref().is_ok_and(failed)) {
            lease.fail();
        }
        give_back(&client, guard).await;
        match done {
            Ok(done) => Ok(Outcome::Ran(done?)),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Acquires it, does blocking work on a thread of its own, and releases it.
    ///
    /// A thread can't be stopped from outside: let the work look at [`Lease::check`] between its steps, and give up when
    /// that fails. The lock is given back when the thread is through, also if this future is dropped before (then
    /// [`Locks::settled`](crate::Locks::settled) waits for it); a lease that is lost meanwhile is free for others after
    /// its ttl, while the thread may still run. Work that panics releases, and the panic goes on.
    ///
    /// # Errors
    /// Those of [`run`](Self::run); [`LockError::Lost`] once the thread is through.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), lock_core::LockError> {
    /// use lock_core::{Lost, Locks, MemoryLocks};
    ///
    /// let locks = Locks::new(MemoryLocks::new());
    /// let sum = locks
    ///     .lock("sum")
    ///     .run_blocking(|lease| {
    ///         let mut sum = 0_u64;
    ///         for number in 0..1000 {
    ///             lease.check()?; // gives up as soon as the lock is lost
    ///             sum += number;
    ///         }
    ///         Ok::<_, Lost>(sum)
    ///     })
    ///     .await??;
    /// assert_eq!(sum, 499_500);
    /// # Ok(()) }
    /// ```
    pub async fn run_blocking<T, F>(self, work: F) -> Result<T, LockError>
    where
        F: FnOnce(Lease) -> T + Send + 'static,
        T: Send + 'static,
    {
        let client = self.client.clone();
        let (guard, under) = match self.joins()? {
            // Its own share: the thread goes on when whoever is under the lease has gone.
            Some(under) => (under.share().ok_or_else(|| under.lease().loss(LossReason::Released))?, under),
            None => match acquired(self).await? {
                Outcome::Ran(guard) => {
                    let under = Under::new(&guard);
                    (guard, under)
                }
                Outcome::Skipped(why) => return Err(why.into()),
            },
        };
        let lease = under.lease().clone();
        let on_thread = tokio::task::spawn_blocking(move || {
            // Threads may be scarce, and this one come late.
            lease.check()?;
            let done = under.scope_blocking(|| work(lease.clone()));
            // What ended after the lease did ended outside of it.
            lease.check().map(|()| done)
        });
        // Dropped with this call: what has not begun by then doesn't.
        let _unbegun = AbortOnDrop(on_thread.abort_handle());
        let ended = client.behind.spawn({
            let client = client.clone();
            async move {
                let ended = on_thread.await;
                if ended.is_err() {
                    guard.fail();
                }
                give_back(&client, guard).await;
                ended
            }
        });
        let cut_off = |error| StoreError::unknown(ErrorKind::Other, "the runtime shut down").caused_by(error);
        match ended.await {
            Ok(Ok(done)) => Ok(done?),
            Ok(Err(error)) | Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(error) => Err(cut_off(error).into()),
            },
        }
    }

    /// What this joins, if it is to join what the running work is under.
    pub(super) fn joins(&self) -> Result<Option<Arc<Under>>, LockError> {
        let Some(under) = Under::of(&self.client, &self.name).filter(|_| self.reentrant) else { return Ok(None) };
        self.clone().wish()?;
        under.lease().check()?;
        if self.tick.is_some() && self.tick != under.tick() {
            let message = format!(
                "\"{}\" is held by the very work that asks for it, and for another tick: it would wait for itself",
                self.name
            );
            return Err(StoreError::refused(ErrorKind::InvalidConfig, message).into());
        }
        Ok(Some(under.joined(self.at_most_for.map(|most| self.client.clock.now() + most))))
    }
}

/// Takes a thread's work back that has not begun.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The guard, or why there is none for now.
async fn acquired(lock: Lock) -> Result<Outcome<LeaseGuard>, LockError> {
    // In a box: it is large, and gone before the work begins.
    match Box::pin(lock.acquire()).await {
        Ok(guard) => Ok(Outcome::Ran(guard)),
        Err(LockError::Busy(busy)) => Ok(Outcome::Skipped(Skipped::Held(busy))),
        Err(LockError::Finished(finished)) => Ok(Outcome::Skipped(Skipped::Finished(finished))),
        Err(error) => Err(error),
    }
}

/// Releases, for as long as somebody should wait for it.
pub(super) async fn give_back(client: &Client, guard: LeaseGuard) {
    let lease = guard.lease().clone();
    tokio::select! {
        // What the release came to is told, also if it came at the last moment.
        biased;
        released = guard.release() => if let Err(error) = released {
            tracing::warn!(lock = %lease.name(), %error, "the work is done, its lock could not be released; its ttl frees it");
        },
        () = client.clock.sleep_until(client.clock.now() + PATIENCE) => {
            tracing::warn!(lock = %lease.name(), "the work is done, the release of its lock takes long and goes on behind");
        }
    }
}
