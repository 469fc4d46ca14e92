//! The suite over PostgreSQL itself.

mod postgresql;

use std::{io, net::SocketAddr, sync::Arc};

use conformance_tests::{Faults, Proxy};
use lock_postgres::{Builder, PostgresLocks};
use postgresql::{Database, Servers, Way};
use testbed::{Missing, PrivateServer};

conformance_tests::suite!(Database<Direct>);

/// Clients connect to the server.
struct Direct;

impl Way for Direct {
    type Own = PrivateServer;
    const STORE: &'static str = "postgres";
    const GIVEN: &'static [&'static str] = &["LEASEHOLD_TEST_POSTGRES"];

    fn servers() -> Result<Servers, Missing> {
        let server = testbed::postgres()?;
        Ok(Servers { entrance: server.host_port().to_owned(), server })
    }

    fn own() -> Result<Self::Own, Missing> {
        testbed::postgres_private()
    }

    fn own_server(own: &Self::Own) -> &PrivateServer {
        own
    }

    fn own_url(own: &Self::Own) -> &str {
        own.url()
    }

    fn builder(url: &str) -> Builder {
        PostgresLocks::builder(url)
    }

    fn faults(proxy: Proxy) -> io::Result<(SocketAddr, Arc<dyn Faults>)> {
        Ok((proxy.address(), Arc::new(proxy)))
    }
}
