//! One who asks for a lock, straight at the provider: the words in which properties are written.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use lock_core::{
    AcquireRequest, Acquired, Clock, FencingToken, Grant, Held, HolderInfo, LockName, LockProvider, Locks, Moment,
    OsEntropy, OwnerId, ReleaseRequest, Released, RenewRequest, Renewed, SystemClock,
};

use crate::{Failure, Harness, ensure};

/// What a property returns.
pub type Outcome = Result<(), Failure>;

/// How late a noisy machine may be with what has to happen "soon".
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// How often an asker that waits without the client's help looks again: dense, so that "too early" is seen sharply.
const LOOK: Duration = Duration::from_millis(10);

/// An owner with the lock it is after.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) provider: Arc<dyn LockProvider>,
    pub(crate) name: LockName,
    pub(crate) owner: OwnerId,
    pub(crate) ttl: Duration,
}

/// A grant, with the moments between which the store made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Got {
    pub(crate) token: FencingToken,
    pub(crate) ttl: Duration,
    /// Before the request left: the store's lease can't have begun earlier.
    pub(crate) asked: Moment,
    /// After the answer arrived: the store's lease can't have begun later.
    pub(crate) answered: Moment,
}

impl Asker {
    /// A new owner.
    pub(crate) fn new(provider: &Arc<dyn LockProvider>, name: &LockName, ttl: Duration) -> Self {
        Self { provider: Arc::clone(provider), name: name.clone(), owner: OwnerId::random(&OsEntropy), ttl }
    }

    pub(crate) fn request(&self) -> AcquireRequest {
        let holder = HolderInfo::this_process("conformance", SystemClock.wall_micros());
        AcquireRequest { holder, ..AcquireRequest::new(self.name.clone(), self.owner, self.ttl) }
    }

    /// Asks once.
    pub(crate) async fn ask(&self) -> Result<Acquired, Failure> {
        Ok(self.provider.acquire(&self.request()).await?)
    }

    /// Asks once, and must get it.
    pub(crate) async fn get(&self) -> Result<Got, Failure> {
        let asked = now();
        match self.ask().await? {
            Acquired::Granted(Grant { token, ttl }) => Ok(Got { token, ttl, asked, answered: now() }),
            other => {
                Err(Failure::new(format!("{:?} should have been granted, and the answer was {other:?}", self.name)))
            }
        }
    }

    /// Asks once, and must not get it.
    pub(crate) async fn must_be_refused(&self, why: &str) -> Result<Held, Failure> {
        match self.ask().await? {
            Acquired::Held(held) => Ok(held),
            other => Err(Failure::new(format!("{why}: the answer was {other:?}"))),
        }
    }

    /// Asks again and again until it is granted, for at most `limit`.
    pub(crate) async fn get_within(&self, limit: Duration) -> Result<Got, Failure> {
        let end = now() + limit;
        loop {
            let asked = now();
            let answer = self.ask().await?;
            let answered = now();
            if let Acquired::Granted(Grant { token, ttl }) = answer {
                return Ok(Got { token, ttl, asked, answered });
            }
            ensure!(answered < end, "{:?} was still not granted after {limit:?}: {answer:?}", self.name);
            sleep(LOOK).await;
        }
    }

    pub(crate) async fn renew(&self, token: FencingToken) -> Result<Renewed, Failure> {
        self.renew_for(token, self.ttl).await
    }

    pub(crate) async fn renew_for(&self, token: FencingToken, ttl: Duration) -> Result<Renewed, Failure> {
        Ok(self.provider.renew(&RenewRequest::new(self.name.clone(), self.owner, token, ttl)).await?)
    }

    /// Renews, and must be told that it is still the holder.
    pub(crate) async fn must_renew(&self, token: FencingToken) -> Outcome {
        let answer = self.renew(token).await?;
        ensure!(matches!(answer, Renewed::Held(ttl) if !ttl.is_zero()), "a live lease was renewed: {answer:?}");
        Ok(())
    }

    pub(crate) async fn release(&self, token: FencingToken) -> Result<Released, Failure> {
        Ok(self.provider.release(&ReleaseRequest::new(self.name.clone(), self.owner, Some(token))).await?)
    }

    /// Releases, and must be told that it was the holder.
    pub(crate) async fn must_release(&self, token: FencingToken) -> Outcome {
        let answer = self.release(token).await?;
        ensure!(answer == Released::Released, "the holder's release of {:?}: {answer:?}", self.name);
        Ok(())
    }

    /// The lease that was granted must still stand at the store under this token.
    pub(crate) async fn must_still_hold(&self, token: FencingToken, why: &str) -> Outcome {
        let state = self.provider.inspect(&self.name).await?.map(|status| status.state);
        let mine = matches!(&state, Some(lock_core::LockState::Held(holding))
            if holding.owner == self.owner && holding.token == token);
        ensure!(mine, "{why}: {:?} should be held by {} under {token}, and is {state:?}", self.name, self.owner);
        Ok(())
    }
}

impl Got {
    /// The earliest moment at which another may have it if it isn't renewed, given the drift that the contract allows.
    pub(crate) fn not_before(&self, provider: &Arc<dyn LockProvider>) -> Moment {
        self.holds_until(provider) + provider.capabilities().grace
    }

    /// The earliest moment at which the store's lease may end if it isn't renewed.
    pub(crate) fn holds_until(&self, provider: &Arc<dyn LockProvider>) -> Moment {
        (self.asked + self.ttl.mul_f64(0.99)) - provider.capabilities().ttl.granularity
    }

    /// A moment by which the store's lease has ended for certain, the grace not counted.
    pub(crate) fn over_at(&self, provider: &Arc<dyn LockProvider>) -> Moment {
        self.answered + self.ttl.mul_f64(1.01) + provider.capabilities().ttl.granularity
    }

    /// The longest that another may have to ask for it from now on, noise included.
    pub(crate) fn gone_within(&self, provider: &Arc<dyn LockProvider>) -> Duration {
        self.ttl + provider.capabilities().grace + SOON
    }
}

/// Now, on the host's suspend-proof clock.
pub(crate) fn now() -> Moment {
    SystemClock.now()
}

pub(crate) async fn sleep(by: Duration) {
    sleep_until(now() + by).await;
}

pub(crate) fn sleep_until(at: Moment) -> BoxFuture<'static, ()> {
    Box::pin(async move { SystemClock.sleep_until(at).await })
}

/// A name that no other property and no other run uses.
pub(crate) fn fresh_name(about: &str) -> Result<LockName, Failure> {
    Ok(LockName::new(format!("{about}-{}", OwnerId::random(&OsEntropy)))?)
}

/// The ttl nearest to the one wished for that the store can keep.
pub(crate) fn ttl(provider: &Arc<dyn LockProvider>, millis: u64) -> Duration {
    let range = provider.capabilities().ttl;
    Duration::from_millis(millis).clamp(range.min, range.max)
}

/// Ends with a failure that names what was waited for if it takes longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(limit, work).await.map_err(|_| Failure::new(format!("{what} took longer than {limit:?}")))
}

/// A client of the store, with connections of its own.
pub(crate) async fn client(h: &dyn Harness) -> Result<Locks, Failure> {
    Ok(client_of(h.provider().await?))
}

/// Several of them.
pub(crate) async fn clients(h: &dyn Harness, count: usize) -> Result<Vec<Locks>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(client(h).await?);
    }
    Ok(clients)
}

pub(crate) fn client_of(provider: Arc<dyn LockProvider>) -> Locks {
    Locks::builder_shared(provider).build()
}
