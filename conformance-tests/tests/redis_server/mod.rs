//! What the suite has to know of Redis: a server of the run's own, or a prefix of its own on a server that was given.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{Failure, Faulty, Harness, Hook, Lacking, Missing, Proxy, Restartable, SkewedClock};
use lock_core::{Clock, Entropy, LockName, LockProvider, OsEntropy, SystemClock};
use lock_redis::{
    Builder, RedisLocks,
    redis::{self, Client, aio::MultiplexedConnection},
};
use testbed::{PrivateServer, Server};

/// What scripts call, and what the count itself needs: no client of ours sends these by themselves.
const UNCOUNTED: [&str; 8] = ["time", "hmget", "hset", "hdel", "pexpireat", "publish", "auth", "info"];

/// Where the run's locks are.
pub(crate) struct Place {
    server: Whose,
    /// Unlike any other run's.
    prefix: String,
}

enum Whose {
    /// Nobody else is counted, cut or wiped there.
    Ours(PrivateServer),
    /// Named by `LEASEHOLD_TEST_REDIS`.
    Given(Server),
}

impl Place {
    fn server(&self) -> &Server {
        match &self.server {
            Whose::Ours(server) => server,
            Whose::Given(server) => server,
        }
    }

    /// For hooks that others on the server would feel.
    fn alone(&self) -> Result<(), Lacking> {
        match self.server {
            Whose::Ours(_) => Ok(()),
            Whose::Given(_) => Err(Lacking::new("LEASEHOLD_TEST_REDIS points at a server that others may use")),
        }
    }

    fn url(&self) -> String {
        with_prefix(self.server().url(), &self.prefix)
    }

    /// The URL by way of another `host:port`.
    fn url_by(&self, address: &str) -> String {
        self.url().replacen(self.server().host_port(), address, 1)
    }
}

/// Somebody at a server's own console.
pub(crate) async fn operator(server: &Server) -> Result<MultiplexedConnection, Failure> {
    Ok(Client::open(server.url())?.get_multiplexed_async_connection().await?)
}

/// Deletes a record; how many there were.
pub(crate) async fn delete(server: &Server, key: &str) -> Result<u64, Failure> {
    Ok(redis::cmd("DEL").arg(key).query_async(&mut operator(server).await?).await?)
}

/// Deletes everything.
pub(crate) async fn wipe(server: &Server) -> Result<(), Failure> {
    let mut operator = operator(server).await?;
    let () = redis::cmd("FLUSHALL").query_async(&mut operator).await?;
    // The scripts are gone after a crash as well.
    Ok(redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut operator).await?)
}

/// How many commands clients have sent.
pub(crate) async fn commands(server: &Server) -> Result<u64, Failure> {
    let mut info = redis::cmd("INFO");
    let stats: String = info.arg("commandstats").query_async(&mut operator(server).await?).await?;
    count(&stats)
}

/// Closes the connections that listen; how many there were.
pub(crate) async fn cut_listeners(server: &Server) -> Result<u64, Failure> {
    let mut kill = redis::cmd("CLIENT");
    Ok(kill.arg("KILL").arg("TYPE").arg("PUBSUB").query_async(&mut operator(server).await?).await?)
}

/// Ends a server the hard way, and starts it again with the data it had.
pub(crate) fn revive(server: &Server) -> Result<(), testbed::Error> {
    server.kill()?;
    server.start()?;
    server.await_ready(Duration::from_secs(45))
}

fn with_prefix(url: &str, prefix: &str) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}leasehold_prefix={prefix}")
}

fn builder(url: &str) -> Builder {
    RedisLocks::builder(url)
}

#[async_trait]
impl Harness for Place {
    async fn open() -> Result<Self, Missing> {
        let found = tokio::task::spawn_blocking(|| match std::env::var_os("LEASEHOLD_TEST_REDIS") {
            Some(url) if !url.is_empty() => testbed::redis().map(Whose::Given),
            _ => testbed::redis_private().map(Whose::Ours),
        });
        let server = found.await.map_err(|error| Missing(error.to_string()))?;
        let server = server.map_err(|missing| Missing(format!("no Redis to test: {missing}")))?;
        let prefix = format!("conformance-{}-{:016x}:", SystemClock.wall_micros() / 1_000_000, OsEntropy.next_u64());
        Ok(Self { server, prefix })
    }

    fn store(&self) -> &'static str {
        "redis"
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(builder(&self.url()).build().await?))
    }

    async fn close(&self) {
        // A server of our own goes with its data; a given one forgets the records after their retention.
    }

    fn skewed_provider(&self, micros: i64) -> Hook<'_, Arc<dyn LockProvider>> {
        Ok(Box::pin(async move {
            let clock = Arc::new(SkewedClock::new(micros));
            let provider: Arc<dyn LockProvider> = Arc::new(builder(&self.url()).clock(clock).build().await?);
            Ok(provider)
        }))
    }

    fn delete_record<'a>(&'a self, name: &'a LockName) -> Hook<'a> {
        Ok(Box::pin(async move {
            let key = format!("{}{{{}}}", self.prefix, name.as_str());
            match delete(self.server(), &key).await? {
                1 => Ok(()),
                keys => Err(Failure::new(format!("{keys} records of {name:?} were there to be deleted"))),
            }
        }))
    }

    fn wipe(&self) -> Hook<'_> {
        self.alone()?;
        Ok(Box::pin(wipe(self.server())))
    }

    fn restartable(&self) -> Hook<'_, Arc<dyn Restartable>> {
        self.alone()?;
        Ok(Box::pin(async move {
            let server = tokio::task::spawn_blocking(testbed::redis_private).await??;
            let own: Arc<dyn Restartable> = Arc::new(OwnServer(Arc::new(server)));
            Ok(own)
        }))
    }

    fn faulty(&self) -> Hook<'_, Faulty> {
        if self.server().url().starts_with("rediss://") {
            return Err(Lacking::new("the proxy looks for names in what is sent, which TLS hides"));
        }
        Ok(Box::pin(async move {
            let proxy = Proxy::start(self.server().host_port()).await?;
            let provider = Arc::new(builder(&self.url_by(&proxy.address().to_string())).build().await?);
            Ok(Faulty { provider, faults: Arc::new(proxy) })
        }))
    }

    fn commands(&self) -> Hook<'_, u64> {
        self.alone()?;
        Ok(Box::pin(commands(self.server())))
    }

    fn cut_subscriptions(&self) -> Hook<'_> {
        self.alone()?;
        Ok(Box::pin(async move {
            let cut = cut_listeners(self.server()).await?;
            if cut == 0 {
                return Err(Failure::new("nobody listened, so nothing was cut"));
            }
            Ok(())
        }))
    }

    fn child_spec(&self) -> Result<String, Lacking> {
        Ok(self.url())
    }

    async fn open_in_child(spec: &str) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(builder(spec).build().await?))
    }
}

/// What clients sent, by `cmdstat_evalsha:calls=12,usec=…`; what their scripts called is told in the same way.
fn count(stats: &str) -> Result<u64, Failure> {
    let mut commands = 0;
    for line in stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
        let told = line.split_once(":calls=").and_then(|(name, rest)| Some((name, rest.split_once(',')?.0)));
        let (name, calls) = told.ok_or_else(|| Failure::new(format!("the server counted {line:?}")))?;
        if !UNCOUNTED.contains(&name) && !name.starts_with("client") {
            commands += calls.parse::<u64>()?;
        }
    }
    Ok(commands)
}

/// A server that nobody else uses.
struct OwnServer(Arc<PrivateServer>);

#[async_trait]
impl Restartable for OwnServer {
    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(builder(self.0.url()).build().await?))
    }

    async fn restart(&self) -> Result<(), Failure> {
        let own = self.0.clone();
        tokio::task::spawn_blocking(move || revive(&own)).await??;
        Ok(())
    }
}
