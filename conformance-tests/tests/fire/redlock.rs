//! Redlock under fire: three independent masters, each with its data on disk.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{
    Failure, Outcome,
    fire::{Fault, Ground, Scale, Scene, Site, Wired},
};
use lock_core::LockProvider;
use lock_redis::Redlock;
use testbed::PrivateServer;

use crate::{
    clocks::{self, Leaps},
    elsewhere, redis, servers,
};

pub(crate) struct Ours(Vec<Arc<PrivateServer>>);

pub(crate) fn start() -> Result<Arc<dyn Ground>, Failure> {
    let masters = (0..3).map(|_| testbed::redis_private_clocked().map(Arc::new)).collect::<Result<_, _>>()?;
    Ok(Arc::new(Ours(masters)))
}

impl Ours {
    fn masters(&self) -> Vec<String> {
        self.0.iter().map(|master| master.host_port().to_owned()).collect()
    }
}

#[async_trait]
impl Ground for Ours {
    fn scale(&self) -> Scale {
        Scale { ttl: Duration::from_secs(2), grace: Duration::from_millis(500) }
    }

    fn wired(&self) -> Wired {
        Wired::Given(self.masters())
    }

    fn place(&self, by: &[SocketAddr]) -> String {
        let places: Vec<_> =
            if by.is_empty() { self.masters() } else { by.iter().map(SocketAddr::to_string).collect() };
        format!("redlock://:leasehold@{}", places.join(","))
    }

    fn faults(&self) -> Vec<Fault> {
        let urls: Vec<_> = self.0.iter().map(|master| master.url().to_owned()).collect();
        let mut faults = servers::faults_of_several(&self.0);
        faults.extend([redis::scripts_forgotten(&urls), redis::listeners_cut(&urls)]);
        let masters = self.0.clone();
        let set = move |master: usize, ahead| masters[master].set_clock(0, ahead);
        faults.extend(clocks::faults(self.0.len(), Leaps::Alone, set));
        faults
    }

    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(Redlock::connect(&self.place(&[])).await?))
    }

    fn asked_at_once(&self) -> u64 {
        self.0.len() as u64
    }

    async fn healed(&self) -> Outcome {
        for master in &self.0 {
            servers::serves(master).await?;
        }
        Ok(())
    }
}

/// A client's, or the operator's. No single master can tell who holds a lock, so the resource is elsewhere.
pub(crate) async fn open(site: Site) -> Result<Scene, Failure> {
    let rest = site.place.strip_prefix("redlock://").unwrap_or(&site.place);
    let (login, hosts) = rest.rsplit_once('@').unwrap_or(("", rest));
    let masters = hosts.split(',').map(|host| format!("redis://{login}@{host}/0"));
    let locks = Redlock::builder(masters).clock(Arc::clone(&site.clock)).build().await?;
    Ok(Scene {
        locks: Arc::new(locks),
        sets: vec![("elsewhere", elsewhere::set(&site.folder).await?)],
        transacted: None,
        counter: elsewhere::counter(&site.folder).await?,
    })
}
