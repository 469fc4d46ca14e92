//! A cluster of etcd whose members can be faulted one by one.

use std::ops::Deref;

use crate::cluster::Cluster;
use crate::{Error, Etcd, Missing, etcd};

/// A cluster of etcd of the caller's own: three members that each have a container, without authentication. What can be
/// done to one is in [`Cluster`].
#[derive(Debug)]
pub struct EtcdCluster(Cluster);

impl EtcdCluster {
    pub(crate) fn start() -> Result<Self, Missing> {
        Cluster::start(&etcd::ALONE, &etcd::MEMBER, etcd::leads).map(Self)
    }

    /// As [`Etcd::compact`], at the first member that can.
    ///
    /// # Errors
    ///
    /// As there, of the last one that was asked.
    pub fn compact(&self) -> Result<u64, Error> {
        let mut answer = Etcd::of(self.member(0)).compact();
        for member in 1..self.size() {
            answer = answer.or_else(|_| Etcd::of(self.member(member)).compact());
        }
        answer
    }

    /// As [`Etcd::defragment`], at this member.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn defragment(&self, member: usize) -> Result<(), Error> {
        Etcd::of(self.member(member)).defragment()
    }
}

impl Deref for EtcdCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}
