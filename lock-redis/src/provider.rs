//! The provider: requests become calls of scripts, replies become answers.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;
use lock_core::{
    AcquireRequest, Acquired, Capabilities, ErrorKind, FenceReport, KeptBy, ListRequest, Listener, LockName,
    LockProvider, LockStatus, Operation, OwnerId, ReleaseRequest, Released, RenewRequest, Renewed, Request, StoreError,
    Tick, Waiting, Wake, WakeHub, Watch, in_waves,
};
use redis::Value;

use crate::{
    config::{Builder, Settings},
    connect::{Connected, connect},
    keys::Keys,
    list,
    operation::{Done, Runner},
    replies::{self, micros, whole_micros},
    scripts::{ACQUIRE, Call, FORCE_RELEASE, RELEASE, RENEW, Script},
    server,
    source::Source,
    wake::Announcements,
};

/// This store's word in capabilities and errors.
pub(crate) const STORE: &str = "redis";

/// How many requests one script carries at most: it keeps the server from everything else for about a millisecond.
pub(crate) const MOST: usize = 256;

/// The longest that a waiter's wish to be woken is remembered.
const LONGEST_MARK: Duration = Duration::from_secs(24 * 3600);

/// Locks in Redis. Clones share their connections.
#[derive(Clone)]
pub struct RedisLocks {
    inner: Arc<Inner>,
    /// Of what scripts of the application's come to.
    pub(crate) report: FenceReport,
}

struct Inner {
    runner: Runner,
    keys: Keys,
    capabilities: Capabilities,
    grace: Duration,
    retention: Duration,
    releases: Option<Listener<Announcements>>,
}

impl RedisLocks {
    /// Connects by URL, with the defaults of [`Builder`]: `redis://user:password@host:port/database`.
    ///
    /// See the [crate] for the other schemes. `?leasehold_prefix=…` names what all keys begin with.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build().await
    }

    /// Sets a provider up, from a URL or from what the application has: a client, a connection manager, a cluster client
    /// or a cluster connection.
    pub fn builder(source: impl Into<Source>) -> Builder {
        Builder::new(source.into())
    }

    /// What scripts of the application's are sent with.
    pub(crate) fn way(&self) -> (&Runner, &Keys) {
        (&self.inner.runner, &self.inner.keys)
    }

    pub(crate) async fn start(settings: Settings) -> Result<Self, StoreError> {
        let Settings { way, listen_with, keys, limits } = settings;
        let Connected { link, door, database } = connect(way, listen_with, &limits).await?;
        let keys = keys.in_database(database);
        let runner = Runner { link, timeout: limits.operation_timeout, clock: Arc::clone(&limits.clock) };
        let durability = server::examine(&runner, &keys, limits.allow_eviction).await?;
        let (channel, clock) = (keys.channel(), limits.clock);
        let releases = door.map(|door| {
            let announcements = Announcements { door, channel, clock: clock.clone() };
            Listener::new(WakeHub::default(), announcements, clock)
        });

        let mut capabilities = Capabilities::new(STORE);
        capabilities.durability = durability;
        capabilities.grace = limits.grace;
        capabilities.wake = if releases.is_some() { Wake::Event } else { Wake::Poll(limits.poll_interval) };
        capabilities.minimum_hold = KeptBy::Store;
        capabilities.ticks = true;
        capabilities.grouping = NonZeroUsize::new(MOST);
        Ok(Self {
            inner: Arc::new(Inner {
                runner,
                keys,
                capabilities,
                grace: limits.grace,
                retention: limits.retention,
                releases,
            }),
            report: FenceReport::new(STORE),
        })
    }
}

type Answers<A> = Result<Vec<Result<A, StoreError>>, StoreError>;

impl Inner {
    async fn acquire_wave(&self, asked: Vec<&AcquireRequest>) -> Answers<Acquired> {
        let common = [micros(self.grace), micros(self.retention)].map(decimal).to_vec();
        let arguments = |request: &AcquireRequest| {
            let holder = serde_json::to_vec(&request.holder.clone().bounded()).map_err(|error| {
                StoreError::refused(ErrorKind::Other, "the holder can't be written").caused_by(error)
            })?;
            let (ttl, wait) = (micros(request.ttl), wait_micros(request.waiting));
            let (about, used) = (tick(request.tick), tick(request.used_by_grant()));
            Ok([owner(request.owner), decimal(ttl), decimal(wait), holder, about, used])
        };
        let answer = |request: &AcquireRequest, answer: &Value, in_doubt| {
            request.after_doubt(replies::acquired(answer, request)?, in_doubt)
        };
        self.wave(&ACQUIRE, asked, common, arguments, answer).await
    }

    async fn renew_wave(&self, asked: Vec<&RenewRequest>) -> Answers<Renewed> {
        let common = [micros(self.grace), micros(self.retention)].map(decimal).to_vec();
        let arguments = |request: &RenewRequest| {
            Ok([owner(request.owner), decimal(request.token.get()), decimal(micros(request.ttl))])
        };
        let answer = |request: &RenewRequest, answer: &Value, _| {
            Ok(if replies::yes(answer)? { Renewed::Held(whole_micros(request.ttl)) } else { Renewed::Lost })
        };
        self.wave(&RENEW, asked, common, arguments, answer).await
    }

    async fn release_wave(&self, asked: Vec<&ReleaseRequest>) -> Answers<Released> {
        let common = vec![self.keys.channel().into_bytes(), decimal(micros(self.retention))];
        let arguments = |request: &ReleaseRequest| {
            let token = request.token.map_or_else(Vec::new, |token| decimal(token.get()));
            Ok([owner(request.owner), token, decimal(micros(request.keep_for)), tick(request.done)])
        };
        let answer = |_: &ReleaseRequest, answer: &Value, in_doubt| match (replies::yes(answer)?, in_doubt) {
            (true, _) => Ok(Released::Released),
            (false, false) => Ok(Released::NotHeld),
            // What an attempt finds whose predecessor did it, too.
            (false, true) => {
                let message = "the connection broke; it isn't yours any more, by this release or since before";
                Err(StoreError::unknown(ErrorKind::Unreachable, message))
            }
        };
        self.wave(&RELEASE, asked, common, arguments, answer).await
    }

    /// Sends a wave: in one script, or in a cluster in one script for each slot, all at once.
    async fn wave<R: Request, A, const N: usize>(
        &self,
        script: &Arc<Script>,
        asked: Vec<&R>,
        common: Vec<Vec<u8>>,
        arguments: impl Fn(&R) -> Result<[Vec<u8>; N], StoreError>,
        answer: impl Fn(&R, &Value, bool) -> Result<A, StoreError>,
    ) -> Answers<A> {
        let groups = self.runner.link.groups(&self.keys, &asked, Request::name);
        let mut calls = Vec::new();
        for group in &groups {
            let records = group.iter().map(|at| self.keys.record(asked[*at].name())).collect();
            let mut words = common.clone();
            for at in group {
                words.extend(arguments(asked[*at])?);
            }
            calls.push(self.runner.run(Call::new(script, records, words)));
        }
        let mut answers: Vec<Option<Result<A, StoreError>>> = asked.iter().map(|_| None).collect();
        for (group, done) in groups.iter().zip(join_all(calls).await) {
            let replies = done.and_then(|Done { reply, in_doubt }| Ok((replies::answers(reply)?, in_doubt)));
            match replies {
                Ok((replies, in_doubt)) => group.iter().zip(&replies).for_each(|(at, reply)| {
                    answers[*at] = Some(answer(asked[*at], reply, in_doubt));
                }),
                Err(error) => group.iter().for_each(|at| answers[*at] = Some(Err(error.clone()))),
            }
        }
        let left_out = || Err(StoreError::unknown(ErrorKind::Corrupt, "the server's answer left a lock out"));
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(left_out)).collect())
    }

    async fn watch(&self, name: &LockName) -> Result<Watch, StoreError> {
        match &self.releases {
            Some(releases) => releases.watch(name).await,
            None => Err(StoreError::refused(
                ErrorKind::Unsupported,
                "nothing wakes a waiter over the application's connection; ask, or set listen_with",
            )),
        }
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let found = list::inspect(&self.runner, &self.keys, std::slice::from_ref(name)).await?;
        Ok(found.into_iter().next())
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let channel = self.keys.channel().into_bytes();
        let done = self.runner.run(Call::new(&FORCE_RELEASE, vec![self.keys.record(name)], vec![channel])).await?;
        match (replies::yes(&done.reply)?, done.in_doubt) {
            (true, _) => Ok(true),
            (false, false) => Ok(false),
            // The attempt whose answer was lost may have taken it away.
            (false, true) => Err(StoreError::unknown(
                ErrorKind::Unreachable,
                "the connection broke; nobody holds it any more, by this or since before",
            )),
        }
    }
}

#[async_trait]
impl LockProvider for RedisLocks {
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
        self.inner.inspect(name).await.map_err(|error| error.at(STORE, Operation::Inspect, Some(name)))
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        let page = list::list(&self.inner.runner, &self.inner.keys, request).await;
        page.map_err(|error| error.at(STORE, Operation::List, None))
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let done = self.inner.force_release(name).await;
        done.map_err(|error| error.at(STORE, Operation::ForceRelease, Some(name)))
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        in_waves(requests, self.capabilities(), |wave| self.inner.acquire_wave(wave)).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        in_waves(requests, self.capabilities(), |wave| self.inner.renew_wave(wave)).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        in_waves(requests, self.capabilities(), |wave| self.inner.release_wave(wave)).await
    }
}

impl fmt::Debug for RedisLocks {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLocks")
            .field("server", &self.inner.runner.link)
            .field("prefix", &self.inner.keys.prefix())
            .finish_non_exhaustive()
    }
}

fn owner(owner: lock_core::OwnerId) -> Vec<u8> {
    owner.to_string().into_bytes()
}

fn decimal(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// Nothing if there is none.
fn tick(tick: Option<Tick>) -> Vec<u8> {
    tick.map_or_else(Vec::new, |Tick(micros)| decimal(micros))
}

fn wait_micros(waiting: Waiting) -> u64 {
    match waiting {
        Waiting::Wake(span) => micros(span.min(LONGEST_MARK)),
        // The check of the request has refused those who want to queue.
        _ => 0,
    }
}

fn only<A>(answers: Vec<Result<A, StoreError>>) -> Result<A, StoreError> {
    answers.into_iter().next().unwrap_or_else(|| Err(replies::corrupt("there was no answer")))
}
