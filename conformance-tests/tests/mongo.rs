//! The suite over a MongoDB replica set.

mod mongodb_server;

use lock_mongo::{Builder, MongoLocks};
use mongodb_server::{Database, Way};
use testbed::{Missing, PrivateServer, Server};

conformance_tests::suite!(Database<ReplicaSet>);

/// Three members, of which two are a majority.
struct ReplicaSet;

impl Way for ReplicaSet {
    const STORE: &'static str = "mongo";
    const GIVEN: &'static str = "LEASEHOLD_TEST_MONGO";

    fn server() -> Result<Server, Missing> {
        testbed::mongo()
    }

    fn own() -> Result<PrivateServer, Missing> {
        testbed::mongo_private()
    }

    fn builder(url: &str) -> Builder {
        MongoLocks::builder(url)
    }
}
