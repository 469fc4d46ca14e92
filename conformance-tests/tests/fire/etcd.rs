//! etcd under fire: one server, or three members.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{
    Failure, Outcome,
    fire::{Fault, Ground, Scale, Scene, Site, Wired},
};
use lock_core::LockProvider;
use lock_etcd::EtcdLocks;
use testbed::{Etcd, EtcdCluster, PrivateServer};

use crate::{clusters, elsewhere, etcd_lists, opened, servers};

/// Leases of whole seconds, of which the testbed's servers grant no fewer than two.
const SCALE: Scale = Scale { ttl: Duration::from_secs(3), grace: Duration::ZERO };

const COMPACTED: (&str, &str) = ("compacted", "the cluster forgets all revisions before the present one");

pub(crate) struct One(Arc<PrivateServer>);

pub(crate) fn start() -> Result<Arc<dyn Ground>, Failure> {
    Ok(Arc::new(One(Arc::new(testbed::etcd_private()?))))
}

pub(crate) struct Three(Arc<EtcdCluster>);

pub(crate) fn start_three() -> Result<Arc<dyn Ground>, Failure> {
    Ok(Arc::new(Three(Arc::new(testbed::etcd_cluster()?))))
}

fn url(hosts: Vec<String>, by: &[SocketAddr]) -> String {
    let hosts = if by.is_empty() { hosts } else { by.iter().map(SocketAddr::to_string).collect() };
    format!("etcd://{}/", hosts.join(","))
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
        let compact = |server: &PrivateServer| Etcd::of(server).compact();
        faults.push(clusters::at_once(&self.0, COMPACTED.0, COMPACTED.1, compact));
        faults
    }

    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(EtcdLocks::connect(&self.place(&[])).await?))
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

    /// A leader that stood still for longer than a ttl has the cluster end leases that the next one keeps alive (etcd
    /// #12528, #15247; mended in 3.4.31 and 3.5.13, and the testbed has 3.4.23).
    fn faults(&self) -> Vec<Fault> {
        let mut faults = clusters::faults(&self.0, &[clusters::LEADER_FROZEN]);
        faults.push(clusters::at_once(&self.0, COMPACTED.0, COMPACTED.1, EtcdCluster::compact));
        faults
    }

    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(EtcdLocks::connect(&self.place(&[])).await?))
    }

    async fn healed(&self) -> Outcome {
        clusters::serves(&self.0).await
    }
}

/// A client's, or the operator's.
pub(crate) async fn open(site: Site) -> Result<Scene, Failure> {
    let locks = EtcdLocks::builder(site.place.as_str()).clock(Arc::clone(&site.clock)).build().await?;
    let (one, other) = (site.place.clone(), site.place.clone());
    Ok(Scene {
        locks: Arc::new(locks),
        sets: vec![
            ("elsewhere", elsewhere::set(&site.folder).await?),
            ("guarded", opened(async move { etcd_lists::guard_list(&one, "guarded").await }).await?),
            ("registered", opened(async move { etcd_lists::register_list(&other, "registered").await }).await?),
        ],
        transacted: None,
        counter: elsewhere::counter(&site.folder).await?,
    })
}
