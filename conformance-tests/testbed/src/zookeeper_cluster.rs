//! An ensemble of ZooKeeper whose servers can be faulted one by one.

use std::ops::Deref;

use crate::cluster::Cluster;
use crate::{Missing, zookeeper};

/// An ensemble of ZooKeeper of the caller's own: three servers that each have a container. What can be done to one is in
/// [`Cluster`].
#[derive(Debug)]
pub struct ZooKeeperCluster(Cluster);

impl ZooKeeperCluster {
    pub(crate) fn start() -> Result<Self, Missing> {
        Cluster::start(&zookeeper::ALONE, &zookeeper::MEMBER, zookeeper::leads).map(Self)
    }
}

impl Deref for ZooKeeperCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}
