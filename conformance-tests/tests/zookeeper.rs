//! The suite over ZooKeeper: one server, whose every write is on its disk before its answer.

mod zookeeper_server;

use conformance_tests::Failure;
use testbed::PrivateServer;
use zookeeper_server::{Place, Way, Whose};

struct Single;

impl Way for Single {
    const STORE: &'static str = "zookeeper";

    fn server() -> Result<Whose, testbed::Missing> {
        // A server that was given may be anybody's.
        match std::env::var_os("LEASEHOLD_TEST_ZOOKEEPER") {
            Some(url) if !url.is_empty() => testbed::zookeeper().map(Whose::Shared),
            _ => testbed::zookeeper_private().map(Whose::Ours),
        }
    }

    fn own() -> Result<PrivateServer, Failure> {
        Ok(testbed::zookeeper_private()?)
    }
}

conformance_tests::suite!(Place<Single>);
