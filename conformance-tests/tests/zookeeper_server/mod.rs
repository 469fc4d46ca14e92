//! What the suite has to know of ZooKeeper, one server or three: a node of the run's own, under which all its locks are.

use std::{
    collections::VecDeque,
    marker::PhantomData,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::{Failure, Faults, Faulty, Harness, Hook, Lacking, Missing, Proxy, Restartable, SkewedClock};
use futures_util::future::BoxFuture;
use lock_core::{Clock, Entropy, LockName, LockProvider, OsEntropy, SystemClock};
use lock_zookeeper::{
    Builder, ZooKeeperLocks,
    zookeeper_client::{Client, Error},
};
use testbed::{PrivateServer, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Which servers.
pub(crate) trait Way: Send + Sync + 'static {
    const STORE: &'static str;

    fn server() -> Result<Whose, testbed::Missing>;

    /// A server that can be restarted, if there is one.
    fn own() -> Result<PrivateServer, Failure>;
}

pub(crate) enum Whose {
    /// Nobody else is counted there.
    #[allow(dead_code, reason = "three servers are always shared")]
    Ours(PrivateServer),
    /// Others may use it too.
    Shared(Server),
}

/// Where the run's locks are.
pub(crate) struct Place<W> {
    server: Whose,
    path: String,
    /// By which the clients of a property reach the servers, so that their connections can be cut.
    ways: Mutex<Vec<Arc<Ways>>>,
    /// How often the servers were asked how much they were asked.
    counted: AtomicU64,
    way: PhantomData<W>,
}

/// A way to each server.
struct Ways(Vec<Proxy>);

impl Ways {
    async fn to(server: &Server) -> Result<Self, Failure> {
        let mut proxies = Vec::new();
        for host_port in server.host_ports() {
            proxies.push(Proxy::start(host_port.clone()).await?);
        }
        Ok(Self(proxies))
    }

    fn hosts(&self) -> String {
        self.0.iter().map(|proxy| proxy.address().to_string()).collect::<Vec<_>>().join(",")
    }
}

impl Faults for Ways {
    fn lose_next_reply(&self, name: &LockName) -> BoxFuture<'static, Result<(), Failure>> {
        let lost: Vec<_> = self.0.iter().map(|proxy| proxy.lose_next_reply(name)).collect();
        // One of them sees the request; the others go on waiting for theirs, which never comes.
        Box::pin(async move { futures_util::future::select_all(lost).await.0 })
    }

    fn stall(&self) {
        self.0.iter().for_each(Proxy::stall);
    }

    fn resume(&self) {
        self.0.iter().for_each(Proxy::resume);
    }
}

fn url(hosts: &str, path: &str) -> String {
    format!("zookeeper://{hosts}?leasehold_path={path}")
}

impl<W: Way> Place<W> {
    fn server(&self) -> &Server {
        match &self.server {
            Whose::Ours(server) => server,
            Whose::Shared(server) => server,
        }
    }

    fn url(&self) -> String {
        url(&self.server().host_ports().join(","), &self.path)
    }

    /// By a way of its own, which stays until the property ends.
    async fn builder(&self) -> Result<Builder, Failure> {
        let ways = Arc::new(Ways::to(self.server()).await?);
        let url = url(&ways.hosts(), &self.path);
        self.ways().push(ways);
        Ok(ZooKeeperLocks::builder(url))
    }

    fn ways(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Ways>>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn operator(&self) -> Result<Client, Failure> {
        let session = Client::connector().with_session_timeout(Duration::from_secs(10));
        Ok(session.connect(&self.server().host_ports().join(",")).await?)
    }
}

/// Deletes a node and all below it; how many there were.
async fn delete_all(client: &Client, path: &str) -> Result<usize, Failure> {
    let (mut open, mut found) = (VecDeque::from([path.to_owned()]), Vec::new());
    while let Some(node) = open.pop_front() {
        match client.list_children(&node).await {
            Ok(children) => open.extend(children.into_iter().map(|child| format!("{node}/{child}"))),
            Err(Error::NoNode) => continue,
            Err(error) => return Err(error.into()),
        }
        found.push(node);
    }
    for node in found.iter().rev() {
        match client.delete(node, None).await {
            Ok(()) | Err(Error::NoNode) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found.len())
}

/// What a server answers to a word of four letters.
async fn four_letters(host_port: &str, word: &str) -> Result<String, Failure> {
    let mut server = TcpStream::connect(host_port).await?;
    server.write_all(word.as_bytes()).await?;
    let mut answer = String::new();
    server.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[async_trait]
impl<W: Way> Harness for Place<W> {
    async fn open() -> Result<Self, Missing> {
        let found = tokio::task::spawn_blocking(W::server).await;
        let server = found.map_err(|error| Missing(error.to_string()))?;
        let server = server.map_err(|missing| Missing(format!("no {} to test: {missing}", W::STORE)))?;
        let path = format!("/conformance-{}-{:016x}", SystemClock.wall_micros() / 1_000_000, OsEntropy.next_u64());
        Ok(Self { server, path, ways: Mutex::default(), counted: AtomicU64::new(0), way: PhantomData })
    }

    fn store(&self) -> &'static str {
        W::STORE
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(self.builder().await?.build().await?))
    }

    async fn close(&self) {
        let deleted = async { delete_all(&self.operator().await?, &self.path).await };
        if let Err(failure) = deleted.await {
            eprintln!("the node {} stays behind: {failure}", self.path);
        }
    }

    fn skewed_provider(&self, micros: i64) -> Hook<'_, Arc<dyn LockProvider>> {
        Ok(Box::pin(async move {
            let builder = self.builder().await?.clock(Arc::new(SkewedClock::new(micros)));
            let provider: Arc<dyn LockProvider> = Arc::new(builder.build().await?);
            Ok(provider)
        }))
    }

    fn delete_record<'a>(&'a self, name: &'a LockName) -> Hook<'a> {
        Ok(Box::pin(async move {
            match delete_all(&self.operator().await?, &format!("{}/locks/{name}", self.path)).await? {
                0 | 1 => Err(Failure::new(format!("no entry of {name:?} was there to be deleted"))),
                _ => Ok(()),
            }
        }))
    }

    fn wipe(&self) -> Hook<'_> {
        Ok(Box::pin(async move { delete_all(&self.operator().await?, &self.path).await.map(drop) }))
    }

    fn restartable(&self) -> Hook<'_, Arc<dyn Restartable>> {
        if let Whose::Shared(_) = self.server {
            return Err(Lacking::new("the servers are shared, so they can't be restarted"));
        }
        Ok(Box::pin(async move {
            let server = tokio::task::spawn_blocking(W::own).await??;
            let own: Arc<dyn Restartable> = Arc::new(OwnServer(Arc::new(server)));
            Ok(own)
        }))
    }

    fn faulty(&self) -> Hook<'_, Faulty> {
        Ok(Box::pin(async move {
            let ways = Ways::to(self.server()).await?;
            let provider = Arc::new(ZooKeeperLocks::connect(&url(&ways.hosts(), &self.path)).await?);
            Ok(Faulty { provider, faults: Arc::new(ways) })
        }))
    }

    /// All packets, the drivers' pings among them.
    fn commands(&self) -> Hook<'_, u64> {
        Ok(Box::pin(async move {
            let mut received = 0;
            for host_port in self.server().host_ports() {
                let said = four_letters(host_port, "mntr").await?;
                let count = said.lines().find_map(|line| line.strip_prefix("zk_packets_received")?.trim().parse().ok());
                received += count.unwrap_or(0_u64);
                // The question itself is a packet.
                self.counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(received - self.counted.load(Ordering::SeqCst))
        }))
    }

    fn cut_subscriptions(&self) -> Hook<'_> {
        Ok(Box::pin(async move {
            self.ways().iter().flat_map(|ways| &ways.0).for_each(Proxy::cut);
            Ok(())
        }))
    }

    fn child_spec(&self) -> Result<String, Lacking> {
        Ok(self.url())
    }

    async fn open_in_child(spec: &str) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(ZooKeeperLocks::connect(spec).await?))
    }
}

/// A server that nobody else uses.
struct OwnServer(Arc<PrivateServer>);

#[async_trait]
impl Restartable for OwnServer {
    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(ZooKeeperLocks::connect(self.0.url()).await?))
    }

    async fn restart(&self) -> Result<(), Failure> {
        let server = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            server.kill()?;
            server.start()?;
            server.await_ready(Duration::from_secs(45))
        })
        .await??;
        Ok(())
    }
}
