//! A place for one test: the testbed's server with a prefix of the test's own, or a server of the test's own.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

pub(crate) mod accounts;
pub(crate) mod lossy;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lock_core::{
    AcquireRequest, Acquired, Clock, Grant, LockName, LockProvider, OsEntropy, OwnerId, ReleaseRequest, RenewRequest,
    SystemClock,
};
use lock_redis::{
    Builder, RedisLocks,
    redis::{self, AsyncConnectionConfig, Client, FromRedisValue, aio::MultiplexedConnection},
};
use testbed::{Missing, PrivateServer, Server};

/// The testbed's own; nothing we show may hold it.
pub(crate) const PASSWORD: &str = "leasehold";

/// What one test works on.
pub(crate) struct Place<S> {
    pub(crate) server: S,
    pub(crate) prefix: String,
}

impl Place<Server> {
    /// On the server that all tests share.
    pub(crate) async fn shared() -> Self {
        Self::on(start(testbed::redis).await)
    }
}

impl Place<PrivateServer> {
    /// A server that nobody else uses, whose every write is on the disk before its answer.
    pub(crate) async fn alone() -> Self {
        Self::on(start(testbed::redis_private).await)
    }

    /// The same with other settings.
    pub(crate) async fn with(settings: &'static [&'static str]) -> Self {
        Self::on(start(move || testbed::redis_private_with(settings)).await)
    }
}

impl<S: AsServer> Place<S> {
    pub(crate) fn on(server: S) -> Self {
        Self { server, prefix: format!("test-{}:", unique()) }
    }

    pub(crate) fn url(&self) -> &str {
        self.server.server().url()
    }

    pub(crate) fn builder(&self) -> Builder {
        RedisLocks::builder(self.url()).prefix(&self.prefix)
    }

    pub(crate) async fn locks(&self) -> RedisLocks {
        self.builder().build().await.unwrap()
    }

    pub(crate) fn key(&self, lock: &str) -> String {
        format!("{}{{{lock}}}", self.prefix)
    }

    /// A command of the operator's.
    pub(crate) async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        command(self.url(), words).await
    }
}

/// Both kinds of servers of the testbed.
pub(crate) trait AsServer {
    fn server(&self) -> &Server;
}

impl AsServer for Server {
    fn server(&self) -> &Server {
        self
    }
}

impl AsServer for PrivateServer {
    fn server(&self) -> &Server {
        self
    }
}

/// What the testbed starts, off the runtime.
pub(crate) async fn start<T: Send + 'static>(start: impl FnOnce() -> Result<T, Missing> + Send + 'static) -> T {
    let started = tokio::task::spawn_blocking(start).await.unwrap();
    started.unwrap_or_else(|missing| panic!("no Redis for this test: {missing}"))
}

pub(crate) async fn operator(url: &str) -> MultiplexedConnection {
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(seconds(20)));
    Client::open(url).unwrap().get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

pub(crate) async fn command<T: FromRedisValue>(url: &str, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut operator(url).await).await.unwrap()
}

pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}_{}_{}", SystemClock.wall_micros(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn name(name: &str) -> LockName {
    LockName::new(name).unwrap()
}

pub(crate) fn ask(lock: &str, ttl: Duration) -> AcquireRequest {
    AcquireRequest::new(name(lock), OwnerId::random(&OsEntropy), ttl)
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) async fn pass(by: Duration) {
    SystemClock.sleep_until(SystemClock.now() + by).await;
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(seconds(20), future).await.expect("an event within 20 s")
}

pub(crate) fn granted(acquired: Acquired) -> Grant {
    match acquired {
        Acquired::Granted(grant) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

/// A grant of a free lock, and the request it came from.
pub(crate) async fn take(locks: &RedisLocks, lock: &str) -> (AcquireRequest, Grant) {
    let request = ask(lock, seconds(30));
    let grant = granted(locks.acquire(&request).await.unwrap());
    (request, grant)
}

/// The same, asked again until the store is back. Only errors that tell of a store that is away are put up with.
pub(crate) async fn take_when_back(locks: &RedisLocks, lock: &str) -> (AcquireRequest, Grant) {
    let request = ask(lock, seconds(30));
    let asking = async {
        loop {
            match locks.acquire(&request).await {
                Ok(answer) => return granted(answer),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            pass(Duration::from_millis(50)).await;
        }
    };
    let grant = in_time(asking).await;
    (request, grant)
}

pub(crate) fn give_back(request: &AcquireRequest, grant: Grant) -> ReleaseRequest {
    ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token))
}

pub(crate) fn again(request: &AcquireRequest, grant: Grant) -> RenewRequest {
    RenewRequest::new(request.name.clone(), request.owner, grant.token, request.ttl)
}
