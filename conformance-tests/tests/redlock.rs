//! The suite over Redlock: three independent Redis masters, of which none keeps anything on disk.

#[allow(dead_code, reason = "the suite of one server uses the rest")]
mod redis_server;

use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::{Failure, Faults, Faulty, Harness, Hook, Lacking, Missing, Proxy, Restartable, SkewedClock};
use futures_util::future::{BoxFuture, try_join_all};
use lock_core::{LockName, LockProvider};
use lock_redis::redlock::{Builder, Redlock};
use testbed::PrivateServer;

conformance_tests::suite!(Masters);

/// Masters of the run's own.
struct Masters(Vec<PrivateServer>);

impl Masters {
    fn start(settings: &[&str]) -> Result<Self, testbed::Missing> {
        (0..3).map(|_| testbed::redis_private_with(settings)).collect::<Result<_, _>>().map(Self)
    }

    fn builder(&self) -> Builder {
        Redlock::builder(self.0.iter().map(|master| master.url()))
    }
}

#[async_trait]
impl Harness for Masters {
    async fn open() -> Result<Self, Missing> {
        let started = tokio::task::spawn_blocking(|| Self::start(&["--appendonly", "no"])).await;
        let masters = started.map_err(|error| Missing(error.to_string()))?;
        masters.map_err(|missing| Missing(format!("no three Redis masters to test: {missing}")))
    }

    fn store(&self) -> &'static str {
        "redlock"
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(self.builder().build().await?))
    }

    fn skewed_provider(&self, micros: i64) -> Hook<'_, Arc<dyn LockProvider>> {
        Ok(Box::pin(async move {
            let clock = Arc::new(SkewedClock::new(micros));
            let provider: Arc<dyn LockProvider> = Arc::new(self.builder().clock(clock).build().await?);
            Ok(provider)
        }))
    }

    fn delete_record<'a>(&'a self, name: &'a LockName) -> Hook<'a> {
        let key = format!("leasehold:redlock:{{{}}}", name.as_str());
        Ok(Box::pin(async move {
            let deleted: u64 =
                try_join_all(self.0.iter().map(|master| redis_server::delete(master, &key))).await?.iter().sum();
            // One of them may have been too late to be claimed.
            if deleted < 2 {
                return Err(Failure::new(format!("{deleted} records of {name:?} were there to be deleted")));
            }
            Ok(())
        }))
    }

    fn wipe(&self) -> Hook<'_> {
        Ok(Box::pin(async move {
            try_join_all(self.0.iter().map(|master| redis_server::wipe(master))).await?;
            Ok(())
        }))
    }

    fn restartable(&self) -> Hook<'_, Arc<dyn Restartable>> {
        Ok(Box::pin(async move {
            let masters = tokio::task::spawn_blocking(|| Self::start(&[])).await??;
            let own: Arc<dyn Restartable> = Arc::new(OwnMasters(Arc::new(masters)));
            Ok(own)
        }))
    }

    fn faulty(&self) -> Hook<'_, Faulty> {
        Ok(Box::pin(async move {
            let proxies = try_join_all(self.0.iter().map(|master| Proxy::start(master.host_port()))).await?;
            let urls = self
                .0
                .iter()
                .zip(&proxies)
                .map(|(master, proxy)| master.url().replacen(master.host_port(), &proxy.address().to_string(), 1));
            let provider = Arc::new(Redlock::builder(urls).build().await?);
            Ok(Faulty { provider, faults: Arc::new(AllOf(proxies)) })
        }))
    }

    fn commands(&self) -> Hook<'_, u64> {
        Ok(Box::pin(async move {
            // What one master sees: each sees the same.
            let seen = try_join_all(self.0.iter().map(|master| redis_server::commands(master))).await?;
            Ok(seen.into_iter().max().unwrap_or(0))
        }))
    }

    fn cut_subscriptions(&self) -> Hook<'_> {
        Ok(Box::pin(async move {
            let cut = try_join_all(self.0.iter().map(|master| redis_server::cut_listeners(master))).await?;
            if cut.iter().all(|cut| *cut == 0) {
                return Err(Failure::new("nobody listened, so nothing was cut"));
            }
            Ok(())
        }))
    }

    fn child_spec(&self) -> Result<String, Lacking> {
        let places: Vec<&str> = self.0.iter().map(|master| master.host_port()).collect();
        Ok(format!("redlock://:leasehold@{}", places.join(",")))
    }

    async fn open_in_child(spec: &str) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(Redlock::connect(spec).await?))
    }
}

/// The same fault on the way to each master.
struct AllOf(Vec<Proxy>);

impl Faults for AllOf {
    fn lose_next_reply(&self, name: &LockName) -> BoxFuture<'static, Result<(), Failure>> {
        let all: Vec<_> = self.0.iter().map(|proxy| proxy.lose_next_reply(name)).collect();
        Box::pin(async move { try_join_all(all).await.map(drop) })
    }

    fn stall(&self) {
        self.0.iter().for_each(Proxy::stall);
    }

    fn resume(&self) {
        self.0.iter().for_each(Proxy::resume);
    }
}

/// Masters that nobody else uses, with their data on disk.
struct OwnMasters(Arc<Masters>);

#[async_trait]
impl Restartable for OwnMasters {
    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(self.0.builder().build().await?))
    }

    async fn restart(&self) -> Result<(), Failure> {
        let own = self.0.clone();
        tokio::task::spawn_blocking(move || own.0.iter().try_for_each(|master| redis_server::revive(master))).await??;
        Ok(())
    }
}
