//! Real servers in containers for the tests: started, awaited, faulted and stopped.
//!
//! The testbed calls the plain `docker` command and needs nothing else of Docker: no
//! registry, no BuildKit, no client library. Images come from the Dockerfiles in `docker/`
//! on Debian bookworm; where no registry is in reach, the base image is made by
//! `debootstrap`.
//!
//! ```no_run
//! let server = testbed::postgres()?;
//! println!("connect to {}", server.url());
//! # Ok::<(), testbed::Missing>(())
//! ```
//!
//! # Shared and private servers
//!
//! [`postgres`] answers with *the* server of the machine, which tests share and which keeps
//! running between test runs. A test that pauses or kills its server takes
//! [`postgres_private`], so that its fault hits nobody else; that server goes when the value
//! is dropped.
//!
//! # Environment
//!
//! | variable | effect |
//! |---|---|
//! | `LEASEHOLD_TEST_POSTGRES` | URL of a server that runs already; faults answer [`Error::Unsupported`] |
//! | `LEASEHOLD_TEST_POSTGRES_IMAGE` | another image than the project's own, such as `postgres:18` |
//! | `LEASEHOLD_TEST_POSTGRES_PORT` | the port of the shared server on 127.0.0.1 (default 25432) |
//! | `LEASEHOLD_TEST_PGBOUNCER…` | the same three for PgBouncer (default port 26432); the first is needed where `LEASEHOLD_TEST_POSTGRES` is set |
//! | `LEASEHOLD_TEST_DEBIAN_MIRROR` | where `debootstrap` loads the base image from |
//!
//! # Adding a kind of server
//!
//! One file like `src/postgres.rs`, one folder like `docker/postgres/`, one line in the
//! table of `src/kind.rs`, and a pair of functions here. What stands before another server
//! (`src/pgbouncer.rs`) names that one's kind in `before`.

#![forbid(unsafe_code)]
// Library code of the project is handed its clock. The testbed waits for real processes,
// on real time.
#![allow(clippy::disallowed_methods)]

mod command;
mod containers;
mod engine;
mod error;
mod image;
mod kind;
mod pgbouncer;
mod postgres;
mod server;
pub mod tests;

pub use containers::{Status, down, status, up};
pub use error::{Error, Missing};
pub use server::{PrivateServer, Server};

/// Makes sure that the shared PostgreSQL server runs, and answers with it.
///
/// Starts the container when it doesn't run, and makes the image when there is none, which
/// takes a minute or two once. Many threads and processes may call this at once. A server
/// that somebody left paused or killed is brought back.
///
/// # Errors
///
/// [`Missing`] says in one line what isn't there and what to do. It is remembered: the next
/// call of the same process fails at once.
pub fn postgres() -> Result<Server, Missing> {
    containers::shared(&postgres::POSTGRES)
}

/// Starts a PostgreSQL server for the caller alone, removed with its data on drop.
///
/// For tests that pause, kill or restart their server. It takes one or two seconds. When a
/// process dies without dropping it, the next call removes what it left behind.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`], and also when `LEASEHOLD_TEST_POSTGRES` points at a
/// server that runs elsewhere: that one can't be had alone.
pub fn postgres_private() -> Result<PrivateServer, Missing> {
    containers::private(&postgres::POSTGRES)
}

/// Makes sure that the shared PgBouncer runs before the shared PostgreSQL, and answers with it. Transaction mode, and
/// otherwise PgBouncer's defaults; any database of that server can be named.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`], and also when `LEASEHOLD_TEST_POSTGRES` points at a server that runs elsewhere and
/// `LEASEHOLD_TEST_PGBOUNCER` at none before it.
pub fn pgbouncer() -> Result<Server, Missing> {
    containers::shared(&pgbouncer::PGBOUNCER)
}

/// Starts a PgBouncer before a PostgreSQL of the testbed, for the caller alone, removed on drop.
///
/// For tests that change its settings, which the user `leasehold` may do on its console (the database `pgbouncer`), or
/// that have a server of their own.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn pgbouncer_before(server: &Server) -> Result<PrivateServer, Missing> {
    containers::private_before(&pgbouncer::PGBOUNCER, server)
}
