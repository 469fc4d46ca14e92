//! What can't work is refused soon, in one sentence that tells what to do, and without a password.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{PASSWORD, Place, seconds};
use lock_core::{Applied, Clock, ErrorKind, StoreError, SystemClock};
use lock_postgres::PostgresLocks;

async fn refused(url: &str) -> (StoreError, Duration) {
    let start = SystemClock.now();
    let builder = PostgresLocks::builder(url);
    assert!(!format!("{builder:?}").contains(PASSWORD), "{builder:?}");
    let error = builder.build().await.unwrap_err();
    let took = SystemClock.now().since(start);
    let mut shown = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        shown += &format!(" {next} {next:?}");
        cause = next.source();
    }
    assert!(!shown.contains(PASSWORD), "{shown}");
    assert!(!error.to_string().contains('\n'), "{error}");
    assert_eq!(error.applied(), Applied::No);
    assert!(error.to_string().starts_with("postgres: "), "{error}");
    (error, took)
}

async fn each_reason_has_its_sentence() {
    let mut place = Place::new().await;
    let (role, url) = place.role().await;
    let at = url.split_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Connections are accepted, and nothing is ever said.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    for (url, kind, says) in [
        (
            format!("postgres://{role}:wrong{PASSWORD}@{at}/leasehold"),
            ErrorKind::Denied,
            "password authentication failed",
        ),
        (format!("postgres://{role}:{PASSWORD}@{at}/no_such_database"), ErrorKind::NotReady, "create the database"),
        (format!("postgres://u:{PASSWORD}@{free}/x"), ErrorKind::Unreachable, "nothing listens at 127.0.0.1"),
        (format!("postgres://u:{PASSWORD}@{silent_at}/x"), ErrorKind::Unreachable, "didn't answer within 3s"),
        (format!("postgres://u:{PASSWORD}@no-such-host.invalid/x"), ErrorKind::Unreachable, "can't be found"),
        (format!("postgres://u:{PASSWORD}@localhost/x?host=/nowhere"), ErrorKind::Unreachable, "no server socket"),
        (format!("postgres://u:{PASSWORD}@{at}/x?sslmode=verify-full"), ErrorKind::InvalidConfig, "sslmode=disable"),
        (format!("postgres://u:{PASSWORD}@{at}/x?sslmode=perhaps"), ErrorKind::InvalidConfig, "URL"),
        (format!("mysql://u:{PASSWORD}@{at}/x"), ErrorKind::InvalidConfig, "postgres://"),
    ] {
        let (error, took) = refused(&url).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(took < seconds(5), "{took:?}: {error}");
        println!("{error}");
    }
    drop(silent);
    place.clear().await;
}

async fn a_provider_shows_no_password() {
    let mut place = Place::new().await;
    let (role, url) = place.role().await;
    place.sql(&format!("CREATE SCHEMA {{s}} AUTHORIZATION {role}")).await;
    let pool = sqlx::PgPool::connect_lazy(&url).unwrap();
    let locks = PostgresLocks::builder(&pool).schema(&place.schema).build().await.unwrap();
    assert!(!format!("{locks:?} {locks:#?}").contains(PASSWORD));
    common::take(&locks, "x").await;
    drop(locks);
    place.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    each_reason_has_its_sentence,
    a_provider_shows_no_password,
);
