//! Tests that need a server: ignored with the reason where there is none, and failed for it under CI.
//!
//! The harness of the standard library decides at compile time what is ignored; whether a server is there shows when the
//! tests run. So a file of such tests has `harness = false` in its manifest, and ends with
//! [`server_tests!`](crate::server_tests!).

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use crate::{Missing, PrivateServer, Server};

/// Whether a server of PostgreSQL can be had for a test alone, as [`crate::postgres_private`] gives.
///
/// # Errors
/// What is [`Missing`].
pub fn private_postgres_can_be_had() -> Result<(), Missing> {
    can_be_had("LEASEHOLD_TEST_POSTGRES", crate::postgres, crate::postgres_private)
}

/// Whether a Redis can be had for a test alone, as [`crate::redis_private`] gives; with it replicas, clusters and
/// sentinels can.
///
/// # Errors
/// What is [`Missing`].
pub fn private_redis_can_be_had() -> Result<(), Missing> {
    can_be_had("LEASEHOLD_TEST_REDIS", crate::redis, crate::redis_private)
}

/// Whether a replica set of MongoDB can be had for a test alone, as [`crate::mongo_private`] gives.
///
/// # Errors
/// What is [`Missing`].
pub fn private_mongo_can_be_had() -> Result<(), Missing> {
    can_be_had("LEASEHOLD_TEST_MONGO", crate::mongo, crate::mongo_private)
}

/// Whether a single MongoDB can be had for a test alone, as [`crate::mongo_standalone_private`] gives.
///
/// # Errors
/// What is [`Missing`].
pub fn private_mongo_standalone_can_be_had() -> Result<(), Missing> {
    can_be_had("LEASEHOLD_TEST_MONGO_STANDALONE", crate::mongo_standalone, crate::mongo_standalone_private)
}

/// Whether an etcd can be had for a test alone, as [`crate::etcd_private`] gives; with it a cluster can.
///
/// # Errors
/// What is [`Missing`].
pub fn private_etcd_can_be_had() -> Result<(), Missing> {
    can_be_had("LEASEHOLD_TEST_ETCD", crate::etcd, crate::etcd_private)
}

/// Whether a ZooKeeper can be had for a test alone, as [`crate::zookeeper_private`] gives; with it an ensemble can.
///
/// # Errors
/// What is [`Missing`].
pub fn private_zookeeper_can_be_had() -> Result<(), Missing> {
    can_be_had("LEASEHOLD_TEST_ZOOKEEPER", crate::zookeeper, crate::zookeeper_private)
}

/// Whether an S3 can be had for a test alone, as [`crate::s3_private`] gives.
///
/// # Errors
/// What is [`Missing`].
pub fn private_s3_can_be_had() -> Result<(), Missing> {
    can_be_had("LEASEHOLD_TEST_S3", crate::s3, crate::s3_private)
}

fn can_be_had(
    variable: &str,
    shared: fn() -> Result<Server, Missing>,
    private: fn() -> Result<PrivateServer, Missing>,
) -> Result<(), Missing> {
    // Somebody's own server can't be had alone, which is told at once; otherwise the shared one says whether there are any.
    match std::env::var_os(variable) {
        Some(url) if !url.is_empty() => private().map(drop),
        _ => shared().map(drop),
    }
}

/// Whether a PgBouncer can be had for a test alone, before the shared PostgreSQL, as [`crate::pgbouncer_before`] gives.
///
/// # Errors
/// What is [`Missing`].
pub fn private_pgbouncer_can_be_had() -> Result<(), Missing> {
    crate::pgbouncer_before(&crate::postgres()?).map(drop)
}

/// Runs the tests, if what they need is there. Called by [`server_tests!`](crate::server_tests!).
#[must_use]
pub fn run<S>(server: fn() -> Result<S, Missing>, tests: Vec<(&'static str, fn())>) -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = if arguments.list { None } else { server().err().map(|missing| missing.to_string()) };
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let trial = |(name, test): (&'static str, fn())| match missing.clone() {
        None => Trial::test(name, move || {
            test();
            Ok(())
        }),
        Some(missing) if in_ci => Trial::test(name, move || Err(missing.into())),
        Some(missing) => Trial::test(format!("{name} ({missing})"), || Ok(())).with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

/// The `main` of a file of async tests that need a server: `server_tests!(testbed::postgres => this_test, that_test);`
///
/// Each runs on a tokio runtime of its own, so the file's crate depends on tokio. A test that is left out of the list is
/// told by the compiler as dead code.
#[macro_export]
macro_rules! server_tests {
    ($server:expr => $($test:ident),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::tests::run($server, ::std::vec![$((::std::stringify!($test), || {
                let runtime = ::tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.expect("a runtime for the test").block_on($test());
            })),+])
        }
    };
}
