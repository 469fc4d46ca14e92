//! What can't work is refused soon, in one sentence that tells what to do, and without a password.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{COLLECTION, PASSWORD, Place, seconds, take};
use lock_core::{Applied, Clock, ErrorKind, LockProvider, OwnerId, StoreError, SystemClock};
use lock_mongo::{Builder, MongoLocks};
use mongodb::bson::doc;

async fn refused_builder(builder: Builder) -> (StoreError, Duration) {
    let start = SystemClock.now();
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
    assert!(error.to_string().starts_with("mongo: "), "{error}");
    println!("{took:?}: {error}");
    (error, took)
}

async fn refused(url: &str) -> (StoreError, Duration) {
    refused_builder(MongoLocks::builder(url)).await
}

async fn each_reason_has_its_sentence() {
    let mut place = Place::new().await;
    let good = place.user(&["find"]).await;
    let at = good.split_once('@').unwrap().1.to_owned();
    let hosts = at.split('/').next().unwrap().to_owned();
    let one = hosts.split(',').next().unwrap().to_owned();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Connections are accepted, and nothing is ever said.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    for (url, kind, says) in [
        (format!("mongodb://nobody:wrong{PASSWORD}@{at}"), ErrorKind::Denied, "refused the login"),
        (format!("mongodb://u:{PASSWORD}@{free}/x"), ErrorKind::Unreachable, "nothing listens at 127.0.0.1"),
        (format!("mongodb://u:{PASSWORD}@{silent_at}/x"), ErrorKind::Unreachable, "didn't answer in time"),
        (format!("mongodb://u:{PASSWORD}@no-such-host.invalid/x"), ErrorKind::Unreachable, "can't be found"),
        (format!("mongodb+srv://u:{PASSWORD}@no-such-host.invalid/x"), ErrorKind::Unreachable, "can't be looked up"),
        (format!("mongodb://u:{PASSWORD}@{hosts}/x?tls=true"), ErrorKind::Unreachable, "whether both sides use TLS"),
        (format!("mongodb://u:{PASSWORD}@{hosts}/x?replicaSet=another"), ErrorKind::Unreachable, "replica set"),
        (format!("mongodb://u:{PASSWORD}@{one}/x?tls=perhaps"), ErrorKind::InvalidConfig, "URL"),
        (format!("mysql://u:{PASSWORD}@{at}"), ErrorKind::InvalidConfig, "mongodb://"),
    ] {
        let (error, took) = refused(&url).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(took < seconds(5), "{took:?}: {error}");
    }
    drop(silent);
    place.clear().await;
}

async fn what_a_user_lacks_is_named() {
    let mut place = Place::new().await;
    let reader = place.user(&["find"]).await;
    let (error, _) = refused(&reader).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("find, insert, update"), "{error}");

    let lacks_index = place.user(&["find", "insert", "update", "listIndexes"]).await;
    let (error, _) = refused(&lacks_index).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("createIndex"), "{error}");
    let (error, _) = refused_builder(MongoLocks::builder(lacks_index.as_str()).create_index(false)).await;
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
    assert!(error.to_string().contains("createIndex"), "{error}");

    // Where the index is, no right to make it is needed.
    drop(place.locks().await);
    for create in [true, false] {
        let locks = MongoLocks::builder(lacks_index.as_str()).create_index(create).build().await.unwrap();
        let shown = format!("{locks:?} {locks:#?}");
        assert!(!shown.contains(PASSWORD) && shown.contains(COLLECTION), "{shown}");
        let (request, grant) = take(&locks, "x").await;
        locks.release(&common::give_back(&request, grant)).await.unwrap();
        // Waiting needs one more; without it a waiter asks.
        let error = locks.watch(&common::name("x"), OwnerId::from_u128(1)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("changeStream"), "{error}");
    }
    let all = place.user(&["find", "insert", "update", "listIndexes", "changeStream"]).await;
    let locks = MongoLocks::connect(&all).await.unwrap();
    drop(locks.watch(&common::name("x"), OwnerId::from_u128(1)).await.unwrap());
    place.clear().await;
}

async fn a_collection_that_would_mix_up_names_is_refused() {
    let place = Place::new().await;
    let create = |command| place.database.run_command(command);
    create(doc! { "create": "folded", "collation": { "locale": "en", "strength": 1 } }).await.unwrap();
    create(doc! { "create": "capped", "capped": true, "size": 4096 }).await.unwrap();
    create(doc! { "create": "view", "viewOn": "folded", "pipeline": [] }).await.unwrap();
    for collection in ["folded", "capped", "view"] {
        let (error, _) = refused_builder(place.builder().collection(collection)).await;
        assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
        assert!(error.to_string().contains("name another one"), "{error}");
    }
    let hosts = place.url.split_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    let mut secondaries = 0;
    for host in hosts.split(',') {
        let url = place.url.replace(&hosts, host).replace("replicaSet=leasehold", "directConnection=true");
        if let Err(error) = MongoLocks::connect(&url).await {
            assert!(error.kind() == ErrorKind::NotReady && error.to_string().contains("no primary"), "{error}");
            secondaries += 1;
        }
    }
    assert_eq!(secondaries, 2);
    place.clear().await;
}

testbed::server_tests!(testbed::mongo =>
    each_reason_has_its_sentence,
    what_a_user_lacks_is_named,
    a_collection_that_would_mix_up_names_is_refused,
);
