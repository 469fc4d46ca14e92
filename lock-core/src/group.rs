//! Grouping: concurrent operations leave together.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::{
    capability::Capabilities,
    error::{ErrorKind, StoreError},
    name::LockName,
    owner::OwnerId,
    provider::LockProvider,
    request::{AcquireRequest, Acquired, ListRequest, LockStatus, ReleaseRequest, Released, RenewRequest, Renewed},
    wake::Watch,
};

/// A provider that sends concurrent operations together, through the `_many` operations of the one it wraps.
///
/// While requests are under way, those that arrive wait and leave together in the next one, so a lone request waits for
/// nobody and a thousand share a few round trips and commits. Acquires, renewals and releases go in lanes of their own:
/// a slow acquire doesn't hold up a renewal.
///
/// # Cancellation safety
/// Dropping a call doesn't withdraw its request: it is sent all the same, and its outcome is unknown to the caller.
#[derive(Debug)]
pub struct Grouped {
    inner: Arc<dyn LockProvider>,
    acquires: Lane<AcquireRequest, Acquired>,
    renewals: Lane<RenewRequest, Renewed>,
    releases: Lane<ReleaseRequest, Released>,
}

impl Grouped {
    /// Groups the operations of this provider; as many in one request as its capabilities say.
    #[must_use]
    pub fn new(inner: Arc<dyn LockProvider>) -> Self {
        Self { inner, acquires: Lane::default(), renewals: Lane::default(), releases: Lane::default() }
    }

    fn most(&self) -> usize {
        self.inner.capabilities().grouping.map_or(1, std::num::NonZero::get)
    }
}

/// One kind of operation on its way.
struct Lane<Q, A>(Arc<Mutex<Waiting<Q, A>>>);

struct Waiting<Q, A> {
    requests: VecDeque<(Q, oneshot::Sender<Result<A, StoreError>>)>,
    under_way: usize,
}

/// So many groups of one lane may be under way at once: two, so that one slow group is not the only way through.
const GROUPS_UNDER_WAY: usize = 2;

impl<Q, A> Default for Lane<Q, A> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Waiting { requests: VecDeque::new(), under_way: 0 })))
    }
}

impl<Q, A> fmt::Debug for Lane<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "{} waiting, {} groups under way", waiting.requests.len(), waiting.under_way)
    }
}

impl<Q: Send + 'static, A: Send + 'static> Lane<Q, A> {
    /// Sends this request with the next group, and returns its answer.
    async fn send<S, W>(&self, request: Q, most: usize, send_many: S) -> Result<A, StoreError>
    where
        S: Fn(Vec<Q>) -> W + Send + 'static,
        W: Future<Output = Vec<Result<A, StoreError>>> + Send,
    {
        let (answer, answered) = oneshot::channel();
        let starts = {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.requests.push_back((request, answer));
            let starts = waiting.under_way < GROUPS_UNDER_WAY;
            waiting.under_way += usize::from(starts);
            starts
        };
        if starts {
            let mut carrier = Carrier { lane: self.0.clone(), ended: false };
            tokio::spawn(async move {
                while let Some((requests, answers)) = carrier.load(most) {
                    let outcomes = send_many(requests).await;
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        // Nobody may wait for it any more: then it is as if the answer was lost.
                        let _ = answer.send(outcome);
                    }
                }
            });
        }
        answered.await.unwrap_or_else(|_| {
            Err(StoreError::unknown(ErrorKind::Other, "the runtime shut down, or the provider gave no answer"))
        })
    }
}

/// Carries groups until the lane is empty; gives its place up when it ends, however it ends.
struct Carrier<Q, A> {
    lane: Arc<Mutex<Waiting<Q, A>>>,
    ended: bool,
}

type Load<Q, A> = (Vec<Q>, Vec<oneshot::Sender<Result<A, StoreError>>>);

impl<Q, A> Carrier<Q, A> {
    fn load(&mut self, most: usize) -> Option<Load<Q, A>> {
        let mut waiting = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.requests.len().min(most.max(1));
        if count == 0 {
            // In the same breath as the look: a request that comes now finds the place free.
            waiting.under_way -= 1;
            self.ended = true;
            return None;
        }
        Some(waiting.requests.drain(..count).unzip())
    }
}

impl<Q, A> Drop for Carrier<Q, A> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Cut off, by a panic in the provider or with its runtime. What nobody is left to carry is handed back unsent.
        let stranded = {
            let mut waiting = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.under_way -= 1;
            if waiting.under_way == 0 { std::mem::take(&mut waiting.requests) } else { VecDeque::new() }
        };
        for (_, answer) in stranded {
            let message = "the request was not sent: the one before it was cut off; try again";
            let _ = answer.send(Err(StoreError::refused(ErrorKind::Contention, message)));
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LockProvider for Grouped {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        request.check(self.capabilities())?;
        let inner = self.inner.clone();
        let many = move |group: Vec<_>| {
            let inner = inner.clone();
            async move { inner.acquire_many(&group).await }
        };
        self.acquires.send(request.clone(), self.most(), many).await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        request.check(self.capabilities())?;
        let inner = self.inner.clone();
        let many = move |group: Vec<_>| {
            let inner = inner.clone();
            async move { inner.renew_many(&group).await }
        };
        self.renewals.send(request.clone(), self.most(), many).await
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        request.check(self.capabilities())?;
        let inner = self.inner.clone();
        let many = move |group: Vec<_>| {
            let inner = inner.clone();
            async move { inner.release_many(&group).await }
        };
        self.releases.send(request.clone(), self.most(), many).await
    }

    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        self.inner.watch(name, owner).await
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        self.inner.inspect(name).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.inner.list(request).await
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        self.inner.force_release(name).await
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        self.inner.acquire_many(requests).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        self.inner.renew_many(requests).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        self.inner.release_many(requests).await
    }
}
