//! The suite over etcd: one server, whose every write is on its disk before its answer.

mod etcd_server;

use etcd_server::{Place, Way};
use testbed::{Missing, PrivateServer};

conformance_tests::suite!(Place<Alone>);

struct Alone(PrivateServer);

impl Way for Alone {
    const STORE: &'static str = "etcd";

    fn start() -> Result<Self, Missing> {
        testbed::etcd_private().map(Self)
    }

    fn members(&self) -> Vec<String> {
        vec![self.0.host_port().to_owned()]
    }
}
