//! A place for one test: the testbed's servers, with a node of the test's own.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

pub(crate) mod fences;
pub(crate) mod ticks;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lock_core::{
    AcquireRequest, Acquired, Clock, Grant, Held, LockName, LockProvider, OsEntropy, OwnerId, ReleaseRequest, Released,
    RenewRequest, SystemClock, Waiting,
};
use lock_zookeeper::{
    ZooKeeperLocks,
    zookeeper_client::{Acls, Client, CreateMode, CreateOptions},
};
use testbed::{Missing, Server};

/// Nothing here may take longer.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) const OPEN: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());

/// Starts a server, or finds the one that all share.
pub(crate) async fn start<S: Send + 'static>(server: impl FnOnce() -> Result<S, Missing> + Send + 'static) -> S {
    tokio::task::spawn_blocking(server).await.unwrap().unwrap()
}

/// A path that no other test and no other run uses.
pub(crate) fn fresh_path() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/test-{}-{}", OwnerId::random(&OsEntropy), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The servers' URL with this path for the locks.
pub(crate) fn url(server: &Server, path: &str) -> String {
    format!("zookeeper://{}?leasehold_path={path}", server.host_ports().join(","))
}

pub(crate) async fn locks(server: &Server, path: &str) -> ZooKeeperLocks {
    ZooKeeperLocks::connect(&url(server, path)).await.unwrap()
}

/// Somebody at the servers themselves.
pub(crate) async fn operator(server: &Server) -> Client {
    let session = Client::connector().with_session_timeout(Duration::from_secs(10));
    session.connect(&server.host_ports().join(",")).await.unwrap()
}

pub(crate) fn ask(name: &str, ttl: Duration) -> AcquireRequest {
    AcquireRequest::new(LockName::new(name).unwrap(), OwnerId::random(&OsEntropy), ttl)
}

/// The same, waiting in line.
pub(crate) fn in_line(name: &str, ttl: Duration) -> AcquireRequest {
    AcquireRequest { waiting: Waiting::InLine(Duration::from_secs(60)), ..ask(name, ttl) }
}

pub(crate) async fn take(locks: &ZooKeeperLocks, request: &AcquireRequest) -> Grant {
    match locks.acquire(request).await.unwrap() {
        Acquired::Granted(grant) => grant,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn refused(locks: &ZooKeeperLocks, request: &AcquireRequest) -> Held {
    match locks.acquire(request).await.unwrap() {
        Acquired::Held(held) => held,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn renewal(request: &AcquireRequest, grant: Grant) -> RenewRequest {
    RenewRequest::new(request.name.clone(), request.owner, grant.token, request.ttl)
}

pub(crate) async fn give_back(locks: &ZooKeeperLocks, request: &AcquireRequest, grant: Grant) {
    let release = ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token));
    assert_eq!(locks.release(&release).await.unwrap(), Released::Released);
}

pub(crate) async fn sleep(by: Duration) {
    SystemClock.sleep_until(SystemClock.now() + by).await;
}

/// Waits until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let begun = SystemClock.now();
    while !is_so().await {
        assert!(SystemClock.now().since(begun) < LONG, "{what} took too long");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What a server answers to a word of four letters.
pub(crate) async fn four_letters(host_port: &str, word: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut server = tokio::net::TcpStream::connect(host_port).await.unwrap();
    server.write_all(word.as_bytes()).await.unwrap();
    let mut answer = String::new();
    server.read_to_string(&mut answer).await.unwrap();
    answer
}

/// How many packets a server has received, this question among them.
pub(crate) async fn packets(host_port: &str) -> u64 {
    let said = four_letters(host_port, "mntr").await;
    said.lines().find_map(|line| line.strip_prefix("zk_packets_received")?.trim().parse().ok()).unwrap()
}
