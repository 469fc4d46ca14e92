//! The guard: the value that is the lease.

use std::{ops::Deref, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::{
    error::LossReason,
    lease::{Lease, Phase},
    locks::Client,
};
use crate::{
    capability::KeptBy,
    clock::Moment,
    error::{ErrorKind, StoreError},
    request::{ReleaseRequest, Released},
};

/// A held lock: renewed in the background, released by [`release`](Self::release) or on drop.
///
/// It dereferences to its [`Lease`], which can be cloned and handed to the work. A guard that is dropped releases in the
/// background, which needs a runtime that goes on: see [`Locks::settled`](crate::Locks::settled). One that is leaked
/// (`mem::forget`) is renewed until the process ends.
#[derive(Debug)]
#[must_use = "dropping the guard releases the lock"]
pub struct LeaseGuard {
    lease: Lease,
    client: Arc<Client>,
    /// For a drop outside any runtime.
    runtime: Handle,
    ttl: Duration,
    /// Until when the lock is to stay taken whatever happens.
    stay_until: Moment,
    released: bool,
}

/// What a release found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// The lease was live and is given back.
    Released,
    /// It had been lost before.
    AlreadyLost(LossReason),
}

impl LeaseGuard {
    pub(super) fn new(lease: Lease, client: Arc<Client>, ttl: Duration, stay_until: Moment) -> Self {
        Self { lease, client, runtime: Handle::current(), ttl, stay_until, released: false }
    }

    /// The lease that this guard keeps.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Gives the lock back and says whether it was still ours. Nobody believes in the lease from the moment of the call.
    ///
    /// Dropping the future doesn't undo it: the release goes on behind it. While the store is out of reach it is tried
    /// again for as long as the lease had left.
    ///
    /// # Errors
    /// The store's, when it could not be told; the lock is free after its ttl.
    pub async fn release(mut self) -> Result<ReleaseOutcome, StoreError> {
        // In the caller's runtime, which goes on as long as the caller does.
        let Some(ending) = self.end(&Handle::current()) else { return Ok(ReleaseOutcome::Released) };
        let told = self.client.behind.spawn(ending.at_store);
        match ending.phase {
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

    /// Ends the lease here and now, once, and says what is left to do.
    fn end(&mut self, runtime: &Handle) -> Option<Ending> {
        if std::mem::replace(&mut self.released, true) {
            return None;
        }
        let (client, lease, stay_until) = (self.client.clone(), &self.lease, self.stay_until);
        let deadline = lease.deadline();
        let phase = lease.end();
        client.keeper.forget(lease);
        let request = ReleaseRequest::new(lease.name().clone(), lease.owner(), Some(lease.token()));
        let now = client.clock.now();
        let by_process = client.provider.capabilities().minimum_hold == KeptBy::Process;
        let stays = phase == Phase::Released && by_process && stay_until > now;
        let at_store: BoxFuture<'static, _> = if stays {
            let kept = lease.again_until(deadline);
            client.keeper.keep(kept.clone(), self.ttl, self.ttl, now, runtime);
            Box::pin(stay(client, kept, request, stay_until))
        } else {
            // A lost lease is given back as well, once: the store may still have it as ours (at-most-for, a late renewal).
            let patience = if phase == Phase::Released { deadline.since(now) } else { Duration::ZERO };
            Box::pin(async move { client.give_back(request, Some(stay_until), patience).await })
        };
        Some(Ending { phase, stays, at_store })
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
        &self.lease
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        let name = self.lease.name().clone();
        // The runtime of the drop if there is one, else the one that acquired; if that is gone the ttl frees the lock.
        let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
        let Some(ending) = self.end(&runtime) else { return };
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
        _ = kept.lost() => {}
        () = client.clock.sleep_until(until) => {}
    }
    let left = kept.remaining();
    kept.end();
    client.keeper.forget(&kept);
    client.give_back(request, None, left).await
}
