//! A replica set that loses its primary or its majority. On servers of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Place, again, ask, give_back, name, pass, seconds, take};
use lock_core::{Acquired, Applied, Clock, ErrorKind, LockProvider, Locks, Released, Renewed, SystemClock};
use testbed::{MongoMembers, PrivateServer};

async fn own() -> Arc<PrivateServer> {
    let server = tokio::task::spawn_blocking(testbed::mongo_private).await.unwrap();
    Arc::new(server.unwrap_or_else(|missing| panic!("no MongoDB for this test: {missing}")))
}

async fn members<T: Send + 'static>(
    server: &Arc<PrivateServer>,
    act: impl FnOnce(MongoMembers<'_>) -> T + Send + 'static,
) -> T {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || act(MongoMembers::of(&server))).await.unwrap()
}

async fn leases_and_tokens_outlive_a_primary_that_steps_down() {
    let server = own().await;
    let place = Place::at(&server).await;
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let (kept, kept_grant) = take(&locks, "kept").await;
    let guard = Locks::new(locks.clone()).lock("guarded").ttl(seconds(6)).acquire().await.unwrap();
    let mut last = grant.token;
    for _ in 0..2 {
        members(&server, |members| members.step_down()).await.unwrap();
        // The new primary is found by the very operation.
        assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(seconds(30)));
        assert!(matches!(locks.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Held(_)));
        assert_eq!(locks.renew(&again(&kept, kept_grant)).await.unwrap(), Renewed::Held(seconds(30)));
        let (short, short_grant) = take(&locks, "often").await;
        assert!(short_grant.token > last);
        last = short_grant.token;
        assert_eq!(locks.release(&give_back(&short, short_grant)).await.unwrap(), Released::Released);
        let all = members(&server, |members| members.await_all());
        all.await.unwrap();
    }
    assert!(guard.is_valid());
    guard.release().await.unwrap();
}

async fn a_waiter_outlives_the_primary_it_listens_at() {
    let server = own().await;
    let place = Place::at(&server).await;
    let (holder, waiter) = (place.locks().await, Locks::new(place.locks().await));
    let (request, grant) = take(&holder, "x").await;
    let waiting = tokio::spawn(waiter.lock("x").ttl(seconds(30)).acquire());
    pass(Duration::from_millis(500)).await;
    members(&server, |members| {
        let primary = members.primary().unwrap();
        members.kill(primary).unwrap();
    })
    .await;
    let released = loop {
        match holder.release(&give_back(&request, grant)).await {
            Ok(released) => break released,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    assert_eq!(released, Released::Released);
    let start = SystemClock.now();
    let guard = tokio::time::timeout(seconds(15), waiting).await.unwrap().unwrap().unwrap();
    println!("handed over {:?} after the release on the new primary", SystemClock.now().since(start));
    assert!(guard.token() > grant.token);
    guard.release().await.unwrap();
}

async fn without_a_majority_nothing_is_granted_and_it_is_said_why() {
    let server = own().await;
    let place = Place::at(&server).await;
    let locks = place.builder().operation_timeout(seconds(2)).build().await.unwrap();
    let (request, grant) = take(&locks, "x").await;
    let primary = members(&server, |members| {
        let primary = members.primary().unwrap();
        for member in (0..3).filter(|member| *member != primary) {
            members.freeze(member).unwrap();
        }
        primary
    })
    .await;
    // The primary doesn't know it yet, or does: either way nobody is told that a lease was granted or is still held.
    let fresh = ask("fresh", seconds(1));
    for _ in 0..2 {
        let error = locks.renew(&again(&request, grant)).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        println!("{error}");
        let error = locks.acquire(&fresh).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        println!("{error}");
    }
    for _ in 0..2 {
        let start = SystemClock.now();
        let error = place.builder().build().await.unwrap_err();
        let took = SystemClock.now().since(start);
        println!("{took:?}: {error}");
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Unreachable, Applied::No), "{error}");
        assert!(error.to_string().contains("majority"), "{error}");
        assert!(took < seconds(5), "{took:?}");
        pass(seconds(8)).await;
    }
    members(&server, move |members| {
        for member in (0..3).filter(|member| *member != primary) {
            members.thaw(member).unwrap();
        }
    })
    .await;
    let again_there = Arc::clone(&server);
    tokio::task::spawn_blocking(move || again_there.await_ready(seconds(45))).await.unwrap().unwrap();
    let locks = place.locks().await;
    let got =
        Locks::new(locks.clone()).lock("fresh").ttl(seconds(5)).wait_at_most(seconds(10)).acquire().await.unwrap();
    got.release().await.unwrap();
    assert!(locks.inspect(&name("x")).await.unwrap().is_some());
}

testbed::server_tests!(testbed::tests::private_mongo_can_be_had =>
    leases_and_tokens_outlive_a_primary_that_steps_down,
    a_waiter_outlives_the_primary_it_listens_at,
    without_a_majority_nothing_is_granted_and_it_is_said_why,
);
