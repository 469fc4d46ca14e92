//! What the suite has to know of etcd, a single server or a cluster: servers of the run's own.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{Failure, Faulty, Harness, Hook, Lacking, Missing, Proxy, Restartable, SkewedClock};
use lock_core::{Clock, Entropy, LockName, LockProvider, OsEntropy, SystemClock};
use lock_etcd::{
    EtcdLocks,
    etcd_client::{Client, DeleteOptions},
};
use testbed::PrivateServer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
};

/// Which servers.
pub(crate) trait Way: Sized + Send + Sync + 'static {
    const STORE: &'static str;

    fn start() -> Result<Self, testbed::Missing>;

    /// Each member's `host:port`.
    fn members(&self) -> Vec<String>;
}

/// A prefix of the run's own at servers of the run's own.
pub(crate) struct Place<W> {
    _servers: W,
    members: Vec<String>,
    /// Before each member, so that connections can be cut; on a runtime that outlives each property's.
    proxies: Vec<Proxy>,
    prefix: String,
    way: PhantomData<W>,
}

fn url(hosts: &[String], prefix: &str) -> String {
    format!("etcd://{}/?leasehold_prefix={prefix}", hosts.join(","))
}

async fn client(url: &str) -> Result<Arc<dyn LockProvider>, Failure> {
    Ok(Arc::new(EtcdLocks::connect(url).await?))
}

/// A runtime for what lasts as long as the program.
fn lasting() -> Result<&'static Runtime, Missing> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    Ok(Box::leak(Box::new(runtime.map_err(|error| Missing(error.to_string()))?)))
}

impl<W: Way> Place<W> {
    fn url(&self) -> String {
        url(&self.members, &self.prefix)
    }

    async fn operator(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.members, None).await?)
    }
}

#[async_trait]
impl<W: Way> Harness for Place<W> {
    async fn open() -> Result<Self, Missing> {
        let started = tokio::task::spawn_blocking(W::start).await;
        let servers = started
            .map_err(|error| Missing(error.to_string()))?
            .map_err(|missing| Missing(format!("no {} to test: {missing}", W::STORE)))?;
        let (members, runtime) = (servers.members(), lasting()?);
        let mut proxies = Vec::new();
        for member in members.clone() {
            let proxy = runtime.spawn(async move { Proxy::start(member).await }).await;
            let proxy = proxy.map_err(|error| Missing(error.to_string()))?;
            proxies.push(proxy.map_err(|error| Missing(error.to_string()))?);
        }
        let prefix = format!("conformance-{}-{:016x}/", SystemClock.wall_micros() / 1_000_000, OsEntropy.next_u64());
        Ok(Self { _servers: servers, members, proxies, prefix, way: PhantomData })
    }

    fn store(&self) -> &'static str {
        W::STORE
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        let hosts: Vec<_> = self.proxies.iter().map(|proxy| proxy.address().to_string()).collect();
        client(&url(&hosts, &self.prefix)).await
    }

    fn skewed_provider(&self, micros: i64) -> Hook<'_, Arc<dyn LockProvider>> {
        Ok(Box::pin(async move {
            let clock = Arc::new(SkewedClock::new(micros));
            let provider: Arc<dyn LockProvider> = Arc::new(EtcdLocks::builder(self.url()).clock(clock).build().await?);
            Ok(provider)
        }))
    }

    fn delete_record<'a>(&'a self, name: &'a LockName) -> Hook<'a> {
        Ok(Box::pin(async move {
            let mut operator = self.operator().await?;
            let mut deleted = 0;
            let name = name.as_str();
            for key in [format!("l/{name}\0"), format!("w/{name}"), format!("h/{name}"), format!("t/{name}")] {
                let options = key.ends_with('\0').then(|| DeleteOptions::new().with_prefix());
                deleted += operator.delete(format!("{}{key}", self.prefix), options).await?.deleted();
            }
            if deleted == 0 {
                return Err(Failure::new(format!("no record of {name:?} was there to be deleted")));
            }
            Ok(())
        }))
    }

    fn wipe(&self) -> Hook<'_> {
        Ok(Box::pin(async move {
            let all = DeleteOptions::new().with_prefix();
            self.operator().await?.delete(self.prefix.as_str(), Some(all)).await?;
            Ok(())
        }))
    }

    fn restartable(&self) -> Hook<'_, Arc<dyn Restartable>> {
        Ok(Box::pin(async move {
            let server = tokio::task::spawn_blocking(testbed::etcd_private).await??;
            let own: Arc<dyn Restartable> = Arc::new(OwnServer(Arc::new(server)));
            Ok(own)
        }))
    }

    fn faulty(&self) -> Hook<'_, Faulty> {
        Ok(Box::pin(async move {
            let proxy = Proxy::start(self.members[0].clone()).await?;
            let provider = client(&url(&[proxy.address().to_string()], &self.prefix)).await?;
            Ok(Faulty { provider, faults: Arc::new(proxy) })
        }))
    }

    fn commands(&self) -> Hook<'_, u64> {
        Ok(Box::pin(async move {
            let mut messages = 0;
            for member in &self.members {
                messages += received(&metrics(member).await?)?;
            }
            Ok(messages)
        }))
    }

    fn cut_subscriptions(&self) -> Hook<'_> {
        Ok(Box::pin(async move {
            // Over the one connection that a client has for all it does.
            self.proxies.iter().for_each(Proxy::cut);
            Ok(())
        }))
    }

    fn child_spec(&self) -> Result<String, Lacking> {
        Ok(self.url())
    }

    async fn open_in_child(spec: &str) -> Result<Arc<dyn LockProvider>, Failure> {
        client(spec).await
    }
}

/// What a member counts of itself.
async fn metrics(member: &str) -> Result<String, Failure> {
    let mut connection = TcpStream::connect(member).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {member}\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// All messages of clients, by `grpc_server_msg_received_total{…} 12`: requests, and what is sent in streams.
fn received(metrics: &str) -> Result<u64, Failure> {
    let mut messages = 0;
    for line in metrics.lines().filter(|line| line.starts_with("grpc_server_msg_received_total{")) {
        let count: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number, and a small one")]
        let count = count as u64;
        messages += count;
    }
    Ok(messages)
}

/// A server that nobody else uses.
struct OwnServer(Arc<PrivateServer>);

#[async_trait]
impl Restartable for OwnServer {
    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        client(self.0.url()).await
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
