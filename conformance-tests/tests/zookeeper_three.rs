//! The suite over three servers of ZooKeeper: clients and their locks are at different ones.

mod zookeeper_server;

use conformance_tests::{Failure, Lacking};
use testbed::PrivateServer;
use zookeeper_server::{Place, Way, Whose};

struct Three;

impl Way for Three {
    const STORE: &'static str = "zookeeper-three";

    fn server() -> Result<Whose, testbed::Missing> {
        testbed::zookeeper_three().map(Whose::Shared)
    }

    fn own() -> Result<PrivateServer, Failure> {
        Err(Lacking::new("the servers are shared, so they can't be restarted").into())
    }
}

conformance_tests::suite!(Place<Three>);
