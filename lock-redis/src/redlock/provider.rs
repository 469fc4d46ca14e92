//! The provider: requests become messages to all masters, a majority of their answers is the answer.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{
    AcquireRequest, Acquired, Capabilities, ListRequest, Listener, LockName, LockProvider, LockStatus, Operation,
    OwnerId, ReleaseRequest, Released, RenewRequest, Renewed, StoreError, WakeHub, Watch, in_waves,
};

use super::{
    ballot::{Vote, quorum},
    campaign::Campaign,
    config::{Builder, Settings},
    masters::{Heard, Masters},
    people,
    records::{self, Records, Words},
    rows, scripts,
};
use crate::{scripts::Script, wake::Announcements};

/// This store's word in capabilities and errors.
pub(crate) const STORE: &str = "redlock";

/// Locks that a majority of independent Redis masters agrees on. Clones share their connections.
///
/// A lock is held while a majority keeps it, so it stands while a minority is down or stands still. It fences for sure only
/// where every master has each write on its disk before it answers (`appendonly yes`, `appendfsync always`), which
/// [`Capabilities::durability`] tells: a master that forgets and is back early can give a majority to a second holder.
/// Choose a single Redis or a store with consensus where you can; the project's `docs/stores/redis.md` compares them.
///
/// # Limits
/// - The masters are servers of their own, none a replica, at least three, with the same database number and prefix.
/// - No shared locks, semaphores or queueing in order.
#[derive(Clone)]
pub struct Redlock {
    inner: Arc<Inner>,
}

struct Inner {
    masters: Masters,
    records: Records,
    capabilities: Capabilities,
    hub: WakeHub,
    releases: Vec<Arc<Listener<Announcements>>>,
}

impl Redlock {
    /// Connects by URL, with the defaults of [`Builder`]: `redlock://user:password@a:6379,b:6379,c:6379/database`.
    ///
    /// `redlocks://` for TLS; `?leasehold_prefix=…` names the prefix of the keys. User, password and database are the
    /// same at each master; where they differ, see [`builder`](Self::builder).
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Builder::from_url(url)?.build().await
    }

    /// Sets a provider up over the masters at these URLs, `redis://…` or `rediss://…`, each with its own credentials.
    pub fn builder<U: Into<String>>(masters: impl IntoIterator<Item = U>) -> Builder {
        Builder::new(masters.into_iter().map(Into::into).collect())
    }

    pub(crate) fn start(settings: Settings) -> Self {
        let Settings { masters, records, releases, hub, capabilities } = settings;
        Self { inner: Arc::new(Inner { masters, records, capabilities, hub, releases }) }
    }
}

/// What a vote came to: what a majority said, or why there is none.
type Outcome = Result<bool, StoreError>;

impl Inner {
    /// Puts a wave to the vote: one script at each master, yes or no for each request.
    async fn vote(&self, script: &Arc<Script>, (keys, arguments): Words) -> Vec<Outcome> {
        let mut votes = vec![Vote::new(self.masters.count()); keys.len()];
        let mut failures = Vec::new();
        let answers = self.masters.send_all(script, &keys, &arguments);
        let hear = |Heard { about, answers, .. }: Heard| {
            match answers {
                Ok(answers) => {
                    for (at, answer) in about.into_iter().zip(answers) {
                        match rows::yes(&answer) {
                            Ok(yes) => votes[at].count(yes),
                            Err(error) => failures.push(error),
                        }
                    }
                }
                Err(error) => failures.push(error),
            }
            votes.iter().all(|vote| vote.outcome().is_some())
        };
        self.masters.listen(answers, self.masters.node_timeout, hear).await;
        let judge = |vote: &Vote| vote.outcome().ok_or_else(|| self.masters.too_few(vote.answered(), &failures, true));
        votes.iter().map(judge).collect()
    }

    async fn renew_wave(&self, asked: &[&RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        let outcomes = self.vote(&scripts::RENEW, self.records.renew(asked)).await;
        let answer = |(held, request): (Outcome, &&RenewRequest)| {
            held.map(|held| if held { Renewed::Held(records::whole_micros(request.ttl)) } else { Renewed::Lost })
        };
        outcomes.into_iter().zip(asked).map(answer).collect()
    }

    async fn release_wave(&self, asked: &[&ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        let outcomes = self.vote(&scripts::RELEASE, self.records.release(asked)).await;
        let answer = |released| if released { Released::Released } else { Released::NotHeld };
        outcomes.into_iter().map(|outcome| outcome.map(answer)).collect()
    }

    /// Subscribes at every master; it is enough if all but so few can be heard that a majority tells of each release.
    async fn watch(&self, name: &LockName) -> Result<Watch, StoreError> {
        // Before the listening begins: it ends again where nobody watches.
        let watch = self.hub.subscribe(name);
        let enough = quorum(self.masters.count());
        let mut subscribing: FuturesUnordered<_> = self
            .releases
            .iter()
            .cloned()
            .map(|releases| {
                // In a task: a master that can't be reached is tried behind.
                let task = tokio::spawn(async move { releases.listen().await });
                async { task.await.unwrap_or_else(|error| Err(rows::corrupt(error.to_string()))) }
            })
            .collect();
        let (mut listening, mut failures) = (0, Vec::new());
        while let Some(outcome) = subscribing.next().await {
            match outcome {
                Ok(()) => listening += 1,
                Err(error) => failures.push(error),
            }
            if listening == enough {
                return Ok(watch);
            }
        }
        Err(self.masters.too_few(listening, &failures, false))
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let outcomes = self.vote(&scripts::FORCE_RELEASE, self.records.force_release(name)).await;
        outcomes.into_iter().next().unwrap_or_else(|| Err(rows::corrupt("there was no answer")))
    }
}

#[async_trait]
impl LockProvider for Redlock {
    fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        only(self.acquire_many(std::slice::from_ref(request)).await)
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        only(self.renew_many(std::slice::from_ref(request)).await)
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        only(self.release_many(std::slice::from_ref(request)).await)
    }

    async fn watch(&self, name: &LockName, _owner: OwnerId) -> Result<Watch, StoreError> {
        self.inner.watch(name).await.map_err(|error| error.at(STORE, Operation::Watch, Some(name)))
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let found = people::inspect(&self.inner.masters, &self.inner.records, std::slice::from_ref(name)).await;
        let first = found.map(|statuses| statuses.into_iter().next().flatten());
        first.map_err(|error| error.at(STORE, Operation::Inspect, Some(name)))
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        let found = people::list(&self.inner.masters, &self.inner.records, request).await;
        found.map_err(|error| error.at(STORE, Operation::List, None))
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let done = self.inner.force_release(name).await;
        done.map_err(|error| error.at(STORE, Operation::ForceRelease, Some(name)))
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        let send = |asked: Vec<_>| async move {
            let Inner { masters, records, .. } = &*self.inner;
            Ok(Campaign { masters, records, asked: &asked }.run().await)
        };
        in_waves(requests, self.capabilities(), send).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        let send = |asked: Vec<_>| async move { Ok(self.inner.renew_wave(&asked).await) };
        in_waves(requests, self.capabilities(), send).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        let send = |asked: Vec<_>| async move { Ok(self.inner.release_wave(&asked).await) };
        in_waves(requests, self.capabilities(), send).await
    }
}

impl fmt::Debug for Redlock {
    /// Without users and passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masters: Vec<&str> = self.inner.masters.nodes.iter().map(crate::node::Node::address).collect();
        f.debug_struct("Redlock")
            .field("masters", &masters)
            .field("prefix", &self.inner.records.keys.prefix())
            .finish_non_exhaustive()
    }
}

fn only<A>(answers: Vec<Result<A, StoreError>>) -> Result<A, StoreError> {
    answers.into_iter().next().unwrap_or_else(|| Err(rows::corrupt("there was no answer")))
}
