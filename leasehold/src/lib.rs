//! Distributed locks over many stores: leases you can trust, fences that bite.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use leasehold::prelude::*;
//! use std::time::Duration;
//!
//! // Or sqlite:/var/lib/app/locks.db, or postgres://app@db/prod
//! let locks = leasehold::connect("memory:").await?;
//!
//! let done = locks
//!     .lock("invoice-42")
//!     .ttl(Duration::from_secs(15))
//!     .wait_at_most(Duration::from_secs(5))
//!     .run(|lease| async move { charge(lease.token()).await })
//!     .await?; // Err: busy (who), lost (why), store (may it have been applied?)
//! # async fn charge(token: FencingToken) {}
//! # Ok(()) }
//! ```
//!
//! # Stores
//!
//! | URL | feature | what it is for |
//! |---|---|---|
//! | `memory:` | always there | one process: tests, and programs that may grow |
//! | `sqlite:PATH` | `sqlite` (default) | the processes of one host, without a server |
//! | `postgres://…` | `postgres` | many hosts, with the database that is there anyway |
//! | `redis://…`, `redis-cluster://…`, `redis-sentinel://…` | `redis` | many hosts, fast; what survives a crash is up to the server's settings |
//! | `redlock://A,B,C` | `redis` | a majority of independent Redis masters |
//! | `mongodb://…` | `mongo` | many hosts, on a replica set by majority |
//! | `etcd://A,B,C` | `etcd` | many hosts, by consensus; waiters in order; building it needs protoc |
//! | `zookeeper://A,B,C` | `zookeeper` | many hosts, by consensus; waiters in order; Curator's layout |
//!
//! Each feature pulls in its own store and driver only. Every store crate is there under its own name as well
//! ([`sqlite`], [`postgres`], [`redis`], [`mongo`], [`etcd`], [`zookeeper`]), for what a URL can't say: the application's own pool, a schema, a retention.

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod connect;
mod fences;
mod installed;
#[cfg(feature = "metrics")]
pub mod metrics;

pub use connect::{connect, schema_ddl};
pub use fences::connect_fences;
pub use installed::{install, installed, with_locks};
pub use lock_core::*;
#[cfg(feature = "etcd")]
pub use lock_etcd as etcd;
#[cfg(any(feature = "files", feature = "tower", feature = "object-store"))]
pub use lock_fence as fence;
#[cfg(feature = "macros")]
pub use lock_macros::locked;
#[cfg(feature = "mongo")]
pub use lock_mongo as mongo;
#[cfg(feature = "postgres")]
pub use lock_postgres as postgres;
#[cfg(feature = "redis")]
pub use lock_redis as redis;
#[cfg(feature = "sqlite")]
pub use lock_sqlite as sqlite;
#[cfg(feature = "zookeeper")]
pub use lock_zookeeper as zookeeper;

/// The lease that the running work is under: for the body of a function that is [`#[locked]`](macro@locked), and what it
/// calls in the same task. [`current`] is the same for code that may run without one.
///
/// # Panics
/// Outside of work under a lock.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// #[leasehold::locked(name = "invoice-{id}")]
/// async fn charge(id: u32) {
///     let token = leasehold::lease!().token(); // for the resource that is written
///     # _ = token;
/// }
/// # }
/// ```
#[macro_export]
macro_rules! lease {
    () => {
        $crate::__private::lease()
    };
}

/// What most programs need.
pub mod prelude {
    pub use lock_core::{FencingToken, Lease, LeaseGuard, LockError, Locks, LossReason, Lost, Outcome, Skipped, Tick};

    pub use crate::lease;
    #[cfg(feature = "macros")]
    pub use crate::locked;
}

/// The programs of the page on fencing, run as tests.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../../docs/fencing.md")]
struct Fencing;

/// The programs of the page on jobs, run as tests.
#[cfg(all(doctest, feature = "macros"))]
#[doc = include_str!("../../docs/jobs.md")]
struct Jobs;
