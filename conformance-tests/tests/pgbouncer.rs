//! The suite over PostgreSQL behind PgBouncer in transaction mode.

mod postgresql;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use conformance_tests::{Failure, Faults, Proxy};
use futures_util::future::BoxFuture;
use lock_core::LockName;
use lock_postgres::{Builder, PostgresLocks};
use postgresql::{Database, Servers, Way};
use testbed::{Missing, PrivateServer};

conformance_tests::suite!(Database<Pooled>);

/// Clients connect to the pooler; the operator, to the server behind it.
struct Pooled;

impl Way for Pooled {
    type Own = (PrivateServer, PrivateServer);
    const STORE: &'static str = "pgbouncer";
    const GIVEN: &'static [&'static str] = &["LEASEHOLD_TEST_POSTGRES", "LEASEHOLD_TEST_PGBOUNCER"];

    fn servers() -> Result<Servers, Missing> {
        let (server, pooler) = (testbed::postgres()?, testbed::pgbouncer()?);
        Ok(Servers { server, entrance: pooler.host_port().to_owned() })
    }

    fn own() -> Result<Self::Own, Missing> {
        let server = testbed::postgres_private()?;
        let pooler = testbed::pgbouncer_before(&server)?;
        Ok((server, pooler))
    }

    fn own_server((server, _): &Self::Own) -> &PrivateServer {
        server
    }

    fn own_url((_, pooler): &Self::Own) -> &str {
        pooler.url()
    }

    fn builder(url: &str) -> Builder {
        // Nothing wakes a waiter here, and the suite's thousand hand-offs have a minute.
        PostgresLocks::builder(url).poll_interval(Duration::from_millis(20))
    }

    fn faults(proxy: Proxy) -> io::Result<(SocketAddr, Arc<dyn Faults>)> {
        Ok((proxy.address(), Arc::new(LosesCommits(proxy))))
    }
}

/// Behind a pooler an operation is a transaction: the reply that leaves its client in doubt is the one to the `COMMIT`.
struct LosesCommits(Proxy);

impl Faults for LosesCommits {
    /// The next one that commits: nobody but the client under test uses this proxy.
    fn lose_next_reply(&self, _: &LockName) -> BoxFuture<'static, Result<(), Failure>> {
        self.0.lose_reply_to(&b"COMMIT\0"[..])
    }

    fn stall(&self) {
        self.0.stall();
    }

    fn resume(&self) {
        self.0.resume();
    }
}
