//! Waiting by event: not lost when the stream is cut, silent otherwise; by asking on a standalone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{COLLECTION, Place, again, ask, give_back, granted, name, seconds, take};
use futures_util::FutureExt;
use lock_core::{Acquired, Durability, ErrorKind, LockProvider, Locks, OwnerId, Waiting, Wake};
use lock_mongo::MongoLocks;
use mongodb::bson::{Document, doc};

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(seconds(10), future).await.expect("an event within 10 s")
}

/// The cursors of the change streams that are open on the test's collection.
async fn streams(place: &Place) -> Vec<i64> {
    let namespace = format!("{}.{COLLECTION}", place.database.name());
    let pipeline = [
        doc! { "$currentOp": { "allUsers": true, "idleCursors": true } },
        doc! { "$match": { "ns": namespace, "cursor.tailable": true } },
    ];
    let found = place.client.database("admin").aggregate(pipeline).await.unwrap();
    let found: Vec<Document> = futures_util::TryStreamExt::try_collect(found).await.unwrap();
    found.iter().map(|found| found.get_document("cursor").unwrap().get_i64("cursorId").unwrap()).collect()
}

async fn a_watcher_is_woken_by_another_providers_release_by_force_and_by_deletion() {
    let place = Place::new().await;
    let (holder, waiter) = (place.locks().await, place.locks().await);
    assert_eq!(waiter.capabilities().wake, Wake::Event);
    for how in 0..4 {
        for lock in ["x", "🔒 ' \" \\ \n $now", &"x".repeat(512)] {
            let (request, grant) = take(&holder, lock).await;
            let mut watch = waiter.watch(&name(lock), OwnerId::from_u128(1)).await.unwrap();
            // Grants, renewals and refusals wake nobody.
            holder.renew(&again(&request, grant)).await.unwrap();
            take(&holder, "another").await;
            holder.force_release(&name("another")).await.unwrap();
            assert!(matches!(waiter.acquire(&ask(lock, seconds(30))).await.unwrap(), Acquired::Held(_)));
            // The new stream after a drop wakes everybody once more, whenever it is open.
            assert!(how == 3 || watch.woken().now_or_never().is_none());
            match how {
                0 => drop(holder.release(&give_back(&request, grant)).await.unwrap()),
                1 => assert!(holder.force_release(&name(lock)).await.unwrap()),
                2 => drop(place.records().delete_one(doc! { "_id": lock }).await.unwrap()),
                _ => place.records().drop().await.unwrap(),
            }
            in_time(watch.woken()).await;
            let mut wish = ask(lock, seconds(30));
            wish.waiting = Waiting::Wake(seconds(60));
            let grant = granted(waiter.acquire(&wish).await.unwrap());
            waiter.release(&give_back(&wish, grant)).await.unwrap();
        }
    }
    place.clear().await;
}

async fn a_forced_end_of_a_rest_wakes_too() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let kept = lock_core::ReleaseRequest { keep_for: seconds(600), ..give_back(&request, grant) };
    locks.release(&kept).await.unwrap();
    let mut watch = locks.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    assert!(!locks.force_release(&name("x")).await.unwrap(), "nobody held it");
    in_time(watch.woken()).await;
    place.clear().await;
}

async fn a_stream_that_is_cut_wakes_everybody_when_it_is_made_good() {
    let place = Place::new().await;
    let waiter = place.locks().await;
    let mut watch = waiter.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    let cut = streams(&place).await;
    assert_eq!(cut.len(), 1);
    place.database.run_command(doc! { "killCursors": COLLECTION, "cursors": cut.clone() }).await.unwrap();
    in_time(watch.woken()).await;
    assert_ne!(streams(&place).await, cut);
    // And it listens again.
    let other = place.locks().await;
    let (request, grant) = take(&other, "x").await;
    other.release(&give_back(&request, grant)).await.unwrap();
    in_time(watch.woken()).await;
    place.clear().await;
}

async fn watches_share_one_stream_that_ends_with_the_provider() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let mut watches = Vec::new();
    for n in 0..50 {
        watches.push(locks.watch(&name(&format!("{n}")), OwnerId::from_u128(1)).await.unwrap());
    }
    assert_eq!(streams(&place).await.len(), 1);
    drop((locks, watches));
    // It goes with the next answer of the server: in half a minute, or when something happens.
    let other = place.locks().await;
    let (request, grant) = take(&other, "x").await;
    other.release(&give_back(&request, grant)).await.unwrap();
    in_time(async {
        while !streams(&place).await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    place.clear().await;
}

async fn a_standalone_says_that_waiters_ask() {
    let place = Place::standalone().await;
    let locks = place.builder().poll_interval(Duration::from_millis(100)).build().await.unwrap();
    let can = locks.capabilities();
    assert_eq!((can.wake, can.durability), (Wake::Poll(Duration::from_millis(100)), Durability::Durable));
    let error = locks.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let (holder, waiter) = (Locks::new(locks), Locks::new(MongoLocks::connect(&place.url).await.unwrap()));
    let held = holder.lock("x").ttl(seconds(30)).acquire().await.unwrap();
    let waiting = tokio::spawn(waiter.lock("x").ttl(seconds(30)).acquire());
    held.release().await.unwrap();
    in_time(waiting).await.unwrap().unwrap().release().await.unwrap();
    place.clear().await;
}

testbed::server_tests!(testbed::mongo =>
    a_watcher_is_woken_by_another_providers_release_by_force_and_by_deletion,
    a_forced_end_of_a_rest_wakes_too,
    a_stream_that_is_cut_wakes_everybody_when_it_is_made_good,
    watches_share_one_stream_that_ends_with_the_provider,
    a_standalone_says_that_waiters_ask,
);
