//! The suite over a single MongoDB server.

mod mongodb_server;

use std::time::Duration;

use lock_mongo::{Builder, MongoLocks};
use mongodb_server::{Database, Way};
use testbed::{Missing, PrivateServer, Server};

conformance_tests::suite!(Database<Standalone>);

/// It belongs to no replica set, so it has no change streams.
struct Standalone;

impl Way for Standalone {
    const STORE: &'static str = "mongo-standalone";
    const GIVEN: &'static str = "LEASEHOLD_TEST_MONGO_STANDALONE";

    fn server() -> Result<Server, Missing> {
        testbed::mongo_standalone()
    }

    fn own() -> Result<PrivateServer, Missing> {
        testbed::mongo_standalone_private()
    }

    fn builder(url: &str) -> Builder {
        // Nothing wakes a waiter here, and the suite's hand-offs have a minute.
        MongoLocks::builder(url).poll_interval(Duration::from_millis(20))
    }
}
