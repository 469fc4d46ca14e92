//! A place for one test: the testbed's server with a prefix of the test's own, or servers of the test's own.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lock_core::{
    AcquireRequest, Acquired, Clock, Fence, FencingToken, Grant, LockName, LockProvider, OsEntropy, OwnerId,
    ReleaseRequest, RenewRequest, Resource, SystemClock, Waiting,
};
use lock_etcd::{
    Builder, EtcdFences, EtcdLocks,
    etcd_client::{Client, DeleteOptions, GetOptions, KeyValue, SortOrder, SortTarget, TxnOp},
};
use testbed::{Missing, PrivateServer, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What one test works on.
pub(crate) struct Place<S> {
    pub(crate) server: S,
    pub(crate) prefix: String,
}

impl Place<Server> {
    /// On the server that all tests share.
    pub(crate) async fn shared() -> Self {
        Self::on(start(testbed::etcd).await)
    }
}

impl Place<PrivateServer> {
    /// A server that nobody else uses.
    pub(crate) async fn alone() -> Self {
        Self::on(start(testbed::etcd_private).await)
    }
}

impl<S: AsServer> Place<S> {
    pub(crate) fn on(server: S) -> Self {
        Self { server, prefix: format!("test-{}/", unique()) }
    }

    pub(crate) fn url(&self) -> &str {
        self.server.server().url()
    }

    pub(crate) fn host_port(&self) -> &str {
        self.server.server().host_port()
    }

    pub(crate) fn builder(&self) -> Builder {
        EtcdLocks::builder(self.url()).prefix(&self.prefix)
    }

    pub(crate) async fn locks(&self) -> EtcdLocks {
        self.builder().build().await.unwrap()
    }

    pub(crate) async fn fences(&self) -> EtcdFences {
        EtcdFences::builder(self.url()).prefix(&self.prefix).build().await.unwrap()
    }

    /// Where the data of a test is, apart from all that is ours.
    pub(crate) fn data(&self, key: &str) -> String {
        format!("{}data/{key}", self.prefix)
    }

    pub(crate) fn put(&self, key: &str, value: &str) -> TxnOp {
        TxnOp::put(self.data(key), value, None)
    }

    pub(crate) async fn operator(&self) -> Client {
        Client::connect([self.host_port()], None).await.unwrap()
    }

    /// All keys of this place that begin so, after the prefix.
    pub(crate) async fn keys(&self, beginning: &str) -> Vec<String> {
        let all = GetOptions::new().with_prefix().with_keys_only();
        let found = self.operator().await.get(format!("{}{beginning}", self.prefix), Some(all)).await.unwrap();
        found.kvs().iter().map(|kv| kv.key_str().unwrap().trim_start_matches(&self.prefix).to_owned()).collect()
    }

    /// All that is there, in the order in which the store wrote it.
    pub(crate) async fn all(&self) -> Vec<Row> {
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Mod, SortOrder::Ascend);
        let found = self.operator().await.get(self.prefix.as_str(), Some(options)).await.unwrap();
        let row = |kv: &KeyValue| Row {
            key: kv.key_str().unwrap().trim_start_matches(&self.prefix).to_owned(),
            value: kv.value().to_vec(),
            modified: kv.mod_revision(),
            version: kv.version(),
        };
        found.kvs().iter().map(row).collect()
    }

    pub(crate) async fn delete(&self, beginning: &str) -> i64 {
        let all = DeleteOptions::new().with_prefix();
        self.operator().await.delete(format!("{}{beginning}", self.prefix), Some(all)).await.unwrap().deleted()
    }
}

/// What is under a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// After the prefix.
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) modified: i64,
    pub(crate) version: i64,
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
    started.unwrap_or_else(|missing| panic!("no etcd for this test: {missing}"))
}

/// What a server counts of itself.
pub(crate) struct Counts(String);

impl Counts {
    pub(crate) async fn of(host_port: &str) -> Self {
        let mut connection = TcpStream::connect(host_port).await.unwrap();
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {host_port}\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        Self(answer)
    }

    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let lines =
            self.0.lines().filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Messages of clients, those in streams among them.
    pub(crate) fn messages(&self) -> f64 {
        self.sum("grpc_server_msg_received_total{", &[])
    }

    pub(crate) fn keep_alives(&self) -> f64 {
        self.sum("grpc_server_msg_received_total{", &["\"LeaseKeepAlive\""])
    }

    pub(crate) fn transactions(&self) -> f64 {
        self.sum("grpc_server_msg_received_total{", &["\"Txn\""])
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.sum("process_cpu_seconds_total ", &[])
    }
}

pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}_{}_{}", SystemClock.wall_micros(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn name(name: &str) -> LockName {
    LockName::new(name).unwrap()
}

pub(crate) fn fence(lock: &str, token: u64) -> Fence {
    Fence::new(name(lock), FencingToken::new(token)).unwrap()
}

pub(crate) fn accounts() -> Resource {
    Resource::new("accounts").unwrap()
}

pub(crate) fn ask(lock: &str, ttl: Duration) -> AcquireRequest {
    AcquireRequest::new(name(lock), OwnerId::random(&OsEntropy), ttl)
}

/// The same, by one who waits in line.
pub(crate) fn queue(lock: &str, ttl: Duration) -> AcquireRequest {
    AcquireRequest { waiting: Waiting::InLine(ttl * 2), ..ask(lock, ttl) }
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

pub(crate) fn is_held(acquired: &Acquired) -> bool {
    matches!(acquired, Acquired::Held(_))
}

/// A grant of a free lock, and the request it came from.
pub(crate) async fn take(locks: &EtcdLocks, lock: &str, ttl: Duration) -> (AcquireRequest, Grant) {
    let request = ask(lock, ttl);
    let grant = granted(locks.acquire(&request).await.unwrap());
    (request, grant)
}

pub(crate) fn give_back(request: &AcquireRequest, grant: Grant) -> ReleaseRequest {
    ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token))
}

pub(crate) fn again(request: &AcquireRequest, grant: Grant) -> RenewRequest {
    RenewRequest::new(request.name.clone(), request.owner, grant.token, request.ttl)
}
