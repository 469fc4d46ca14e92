//! The suite over a cluster of etcd: three members, of which two are a majority.

mod etcd_server;

use etcd_server::{Place, Way};
use testbed::{EtcdCluster, Missing};

conformance_tests::suite!(Place<Three>);

struct Three(EtcdCluster);

impl Way for Three {
    const STORE: &'static str = "etcd of three";

    fn start() -> Result<Self, Missing> {
        testbed::etcd_cluster().map(Self)
    }

    fn members(&self) -> Vec<String> {
        (0..self.0.size()).map(|member| self.0.member(member).host_port().to_owned()).collect()
    }
}
