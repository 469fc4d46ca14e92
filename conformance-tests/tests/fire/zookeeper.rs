//! ZooKeeper under fire: one server, or three.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{
    Failure, Outcome,
    fire::{Effect, Fault, Ground, Lane, Scale, Scene, Site, Stroke, Wired, blocking},
};
use lock_core::LockProvider;
use lock_zookeeper::ZooKeeperLocks;
use testbed::{PrivateServer, Server, ZooKeeper, ZooKeeperCluster};

use crate::{clusters, elsewhere, opened, servers, zookeeper_lists};

const SCALE: Scale = Scale { ttl: Duration::from_secs(4), grace: Duration::ZERO };

pub(crate) struct One(Arc<PrivateServer>);

pub(crate) fn start() -> Result<Arc<dyn Ground>, Failure> {
    Ok(Arc::new(One(Arc::new(testbed::zookeeper_private()?))))
}

pub(crate) struct Three(Arc<ZooKeeperCluster>);

pub(crate) fn start_three() -> Result<Arc<dyn Ground>, Failure> {
    Ok(Arc::new(Three(Arc::new(testbed::zookeeper_cluster()?))))
}

fn url(hosts: Vec<String>, by: &[SocketAddr]) -> String {
    let hosts = if by.is_empty() { hosts } else { by.iter().map(SocketAddr::to_string).collect() };
    format!("zookeeper://{}", hosts.join(","))
}

#[async_trait]
impl Ground for One {
    fn scale(&self) -> Scale {
        SCALE
    }

    fn wired(&self) -> Wired {
        Wired::Given(vec![self.0.host_port().to_owned()])
    }

    fn place(&self, by: &[SocketAddr]) -> String {
        url(vec![self.0.host_port().to_owned()], by)
    }

    fn faults(&self) -> Vec<Fault> {
        let mut faults = servers::faults_of_one(&self.0);
        faults.push(expired(&self.0, |server| vec![server]));
        faults
    }

    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(ZooKeeperLocks::connect(&self.place(&[])).await?))
    }

    async fn healed(&self) -> Outcome {
        servers::serves(&self.0).await
    }
}

#[async_trait]
impl Ground for Three {
    fn scale(&self) -> Scale {
        SCALE
    }

    fn wired(&self) -> Wired {
        Wired::Given(clusters::members(&self.0))
    }

    fn place(&self, by: &[SocketAddr]) -> String {
        url(clusters::members(&self.0), by)
    }

    fn faults(&self) -> Vec<Fault> {
        let mut faults = clusters::faults(&self.0, &[]);
        faults.push(expired(&self.0, |cluster| (0..cluster.size()).map(|member| cluster.member(member)).collect()));
        faults
    }

    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(ZooKeeperLocks::connect(&self.place(&[])).await?))
    }

    async fn healed(&self) -> Outcome {
        clusters::serves(&self.0).await
    }
}

/// Somebody's session is ended, as a server would that thinks its client is gone.
fn expired<T: Send + Sync + 'static>(servers: &Arc<T>, all: fn(&T) -> Vec<&Server>) -> Fault {
    let servers = Arc::clone(servers);
    let about = "a client's session is ended at the server before its time: all that it holds is free at once";
    let fault = Fault::new(Lane::People, "session-expired", about, move |chance, _| {
        let servers = Arc::clone(&servers);
        let (which, whose) = (chance.below(1 << 20), chance.below(1 << 20));
        Some(Stroke::at_once(
            "a session",
            blocking(move || -> Result<(), Failure> {
                let all = all(&servers);
                let server = ZooKeeper::of(all[which % all.len()]);
                // The server may be down just now, or nobody connected to it.
                if let Ok(told) = server.four_letters("cons") {
                    let sessions: Vec<_> = told.lines().filter_map(session).collect();
                    if let Some(session) = sessions.get(whose % sessions.len().max(1)) {
                        _ = server.expire(*session);
                    }
                }
                Ok(())
            }),
        ))
    });
    fault.effect(Effect::TakesLeases)
}

/// ` /127.0.0.1:4711[1](queued=0,…,sid=0x1000012345,…)`
fn session(line: &str) -> Option<i64> {
    let (_, rest) = line.split_once("sid=0x")?;
    u64::from_str_radix(rest.split(',').next()?, 16).ok().map(u64::cast_signed)
}

/// A client's, or the operator's.
pub(crate) async fn open(site: Site) -> Result<Scene, Failure> {
    let locks = ZooKeeperLocks::builder(site.place.as_str()).clock(Arc::clone(&site.clock)).build().await?;
    let (one, other) = (site.place.clone(), site.place.clone());
    Ok(Scene {
        locks: Arc::new(locks),
        sets: vec![
            ("elsewhere", elsewhere::set(&site.folder).await?),
            ("guarded", opened(async move { zookeeper_lists::guard_list(&one, "guarded").await }).await?),
            ("registered", opened(async move { zookeeper_lists::register_list(&other, "registered").await }).await?),
        ],
        transacted: None,
        counter: elsewhere::counter(&site.folder).await?,
    })
}
