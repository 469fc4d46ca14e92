//! The guard: the value that is the lease.

use std::{
    ops::Deref,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::{
    error::LossReason,
    lease::{Lease, Phase},
    locks::Client,
    observer::Event,
};
use crate::{
    capability::KeptBy,
    clock::Moment,
    error::{ErrorKind, StoreError},
    request::{ReleaseRequest, Released},
    tick::Tick,
};

/// How long a lease that at-most-for ended is tried to be given back while the store is out of reach.
const PATIENCE: Duration = Duration::from_secs(5);

/// A held lock: renewed in the background, released by [`release`](Self::release) or on drop.
///
/// It dereferences to its [`Lease`], which can be cloned and handed to the work. A guard that is dropped releases in the
/// background, which needs a runtime that goes on: see [`Locks::settled`](crate::Locks::settled). One that is leaked
/// (`mem::forget`) is renewed until the process ends.
#[derive(Debug)]
#[must_use = "dropping the guard releases the lock"]
pub struct LeaseGuard(Arc<Hold>);

/// What all shares of a guard hold; the last of them ends it.
#[derive(Debug)]
pub(super) struct Hold {
    lease: Lease,
    client: Arc<Client>,
    /// For a drop outside any runtime.
    runtime: Handle,
    keeping: Keeping,
    ended: bool,
}

/// How a hold is kept, and ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    /// What is asked for at each renewal.
    pub(super) ttl: Duration,
    /// When the request was sent that was granted.
    pub(super) since: Moment,
    /// Until when the lock is to stay taken whatever happens.
    pub(super) stay_until: Moment,
    /// The tick it is for.
    pub(super) tick: Option<Tick>,
    /// The tick that is used up when work ended well.
    pub(super) done: Option<Tick>,
}

/// What a release found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// The lease was live and is given back.
    Released,
    /// It had been lost before.
    AlreadyLost(LossReason),
    /// Another share of the guard still holds it ([`LeaseGuard::share`]).
    StillShared,
}

impl LeaseGuard {
    pub(super) fn new(lease: Lease, client: Arc<Client>, keeping: Keeping) -> Self {
        Self(Arc::new(Hold { lease, client, runtime: Handle::current(), keeping, ended: false }))
    }

    /// The lease that this guard keeps.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.0.lease
    }

    /// Another guard of the same hold, for a task that works under it too: same owner, same token, no request. The lock is
    /// given back when the last share is released or dropped.
    pub fn share(&self) -> Self {
        Self(self.0.clone())
    }

    pub(super) fn of(hold: Arc<Hold>) -> Self {
        Self(hold)
    }

    pub(super) fn downgrade(&self) -> Weak<Hold> {
        Arc::downgrade(&self.0)
    }

    /// Gives the lock back and says whether it was still ours. Nobody believes in the lease from the moment of the call.
    ///
    /// Dropping the future doesn't undo it: the release goes on behind it. While the store is out of reach it is tried
    /// again for as long as the lease had left.
    ///
    /// A tick with [`retry`](crate::Lock::retry) is used up by it, if the lease was live and the work didn't say that it
    /// [failed](Lease::fail); a guard that is dropped uses up none.
    ///
    /// # Errors
    /// The store's, when it could not be told; the lock is free after its ttl.
    pub async fn release(self) -> Result<ReleaseOutcome, StoreError> {
        let Some(mut hold) = Arc::into_inner(self.0) else { return Ok(ReleaseOutcome::StillShared) };
        let done = hold.keeping.done.filter(|_| !hold.lease.has_failed());
        // In the caller's runtime, which goes on as long as the caller does.
        let ending = hold.end(done, &Handle::current());
        let told = hold.client.behind.spawn(ending.at_store);
        match ending.phase {
            // The store still has it as ours, and others may have it once it was told.
            Phase::Lost(LossReason::AtMostFor) => {
                let _ = told.await;
                return Ok(ReleaseOutcome::AlreadyLost(LossReason::AtMostFor));
            }
            Phase::Lost(reason) => return Ok(ReleaseOutcome::AlreadyLost(reason)),
            _ if ending.stays => return Ok(ReleaseOutcome::Released),
            _ => {}
        }
        match told.await {
            Ok(Ok(Released::Released)) => Ok(ReleaseOutcome::Released),
            Ok(Ok(Released::NotHeld)) => Ok(ReleaseOutcome::AlreadyLost(LossReason::NotOurs)),
            Ok(Err(error)) => Err(error),
            Err(error) => {
                Err(StoreError::unknown(ErrorKind::Other, "the task of the release ended early").caused_by(error))
            }
        }
    }
}

impl Hold {
    pub(super) fn is_of(&self, client: &Arc<Client>) -> bool {
        Arc::ptr_eq(&self.client, client)
    }

    pub(super) fn tick(&self) -> Option<Tick> {
        self.keeping.tick
    }

    /// Ends the lease here and now, and says what is left to do.
    fn end(&mut self, done: Option<Tick>, runtime: &Handle) -> Ending {
        self.ended = true;
        let (client, lease, Keeping { ttl, stay_until, .. }) = (self.client.clone(), &self.lease, self.keeping);
        let deadline = lease.deadline();
        let phase = lease.end();
        client.keeper.forget(lease);
        self.tell(phase);
        let mut request = ReleaseRequest::new(lease.name().clone(), lease.owner(), Some(lease.token()));
        let now = client.clock.now();
        let by_process = client.provider.capabilities().minimum_hold == KeptBy::Process;
        let stays = phase == Phase::Released && by_process && stay_until > now;
        if phase == Phase::Released {
            request.done = done;
        }
        let at_store: BoxFuture<'static, _> = if stays {
            let kept = lease.again_until(deadline);
            client.keeper.keep(kept.clone(), ttl, ttl, now, runtime);
            Box::pin(stay(client, kept, request, stay_until))
        } else {
            // A lost lease is given back as well: the store may still have it as ours (at-most-for, a late renewal).
            let patience = match phase {
                Phase::Released => deadline.since(now),
                Phase::Lost(LossReason::AtMostFor) => PATIENCE,
                _ => Duration::ZERO,
            };
            Box::pin(async move { client.give_back(request, Some(stay_until), patience).await })
        };
        Ending { phase, stays, at_store }
    }

    fn tell(&self, phase: Phase) {
        let (class, since) = (self.lease.class(), self.keeping.since);
        self.client.tell(class, |now| match phase {
            Phase::Lost(reason) => Event::Lost { reason, held: now.since(since) },
            _ => Event::Released { held: now.since(since) },
        });
    }
}

/// What ending a lease came to.
struct Ending {
    phase: Phase,
    /// Whether this process keeps the lock taken for a while (at-least-for).
    stays: bool,
    at_store: BoxFuture<'static, Result<Released, StoreError>>,
}

impl Deref for LeaseGuard {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.0.lease
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let name = self.lease.name().clone();
        // The runtime of the drop if there is one, else the one that acquired; if that is gone the ttl frees the lock.
        let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
        let ending = self.end(None, &runtime);
        let work = async move {
            if let Err(error) = ending.at_store.await {
                tracing::warn!(lock = %name, %error, "a dropped lock could not be released; its ttl frees it");
            }
        };
        self.client.behind.spawn_on(work, &runtime);
    }
}

/// At-least-for where the store can't keep it: this process does, renewing a lease that nobody believes in any more.
async fn stay(
    client: Arc<Client>,
    kept: Lease,
    request: ReleaseRequest,
    until: Moment,
) -> Result<Released, StoreError> {
    tokio::select! {
        biased;
        _ = kept.lost() => {}
        () = client.clock.sleep_until(until) => {}
    }
    let left = kept.remaining();
    kept.end();
    client.keeper.forget(&kept);
    client.give_back(request, None, left).await
}
