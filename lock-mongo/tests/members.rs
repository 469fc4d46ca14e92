//! A replica set that loses its primary or its majority. On servers of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Place, again, ask, give_back, name, pass, seconds, take};
use lock_core::{
    AcquireRequest, Acquired, Applied, Clock, ErrorKind, LockProvider, Locks, Released, Renewed, SystemClock, Tick,
    Waiting,
};
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

/// A fail-over may undo it, and if its holder has given up, nobody would run it.
async fn a_tick_that_only_the_primary_knows_to_be_used_up_is_not_told_finished() {
    let server = own().await;
    let place = Place::at(&server).await;
    let locks = place.builder().operation_timeout(seconds(2)).build().await.unwrap();
    take(&locks, "before").await;
    let for_tick = || AcquireRequest { tick: Some(Tick(5)), ..ask("x", seconds(60)) };
    let frozen = members(&server, |members| {
        let primary = members.primary().unwrap();
        let others: Vec<_> = (0..3).filter(|member| *member != primary).collect();
        others.iter().for_each(|member| members.freeze(*member).unwrap());
        others
    })
    .await;
    let first = for_tick();
    let holder = tokio::spawn({
        let (locks, request) = (locks.clone(), first.clone());
        async move { locks.acquire(&request).await }
    });
    let seen = async {
        while place.record("x").await.is_none_or(|record| record.get_i64("last_tick").ok() != Some(5)) {
            pass(Duration::from_millis(10)).await;
        }
    };
    // A primary steps down ten seconds after it last heard of a majority.
    tokio::time::timeout(seconds(5), seen).await.expect("the primary has the grant");
    let waits = AcquireRequest { waiting: Waiting::Wake(seconds(60)), ..for_tick() };
    let (alone, group) = (for_tick(), [for_tick(), ask("y", seconds(1))]);
    let (alone, waiting, group) =
        tokio::join!(locks.acquire(&alone), locks.acquire(&waits), locks.acquire_many(&group));
    for answer in [holder.await.unwrap(), alone, waiting, group.into_iter().next().unwrap()] {
        let error = answer.unwrap_err();
        println!("{error}");
        assert!(error.is_transient() && error.applied() == Applied::Maybe, "{error}");
    }
    members(&server, move |members| frozen.iter().for_each(|member| members.thaw(*member).unwrap())).await;
    let thawed = Arc::clone(&server);
    tokio::task::spawn_blocking(move || thawed.await_ready(seconds(45))).await.unwrap().unwrap();
    // Kept or undone, the tick is still that call's.
    let locks = place.locks().await;
    assert!(matches!(locks.acquire(&first).await.unwrap(), Acquired::Granted(_)));
    assert!(matches!(locks.acquire(&for_tick()).await.unwrap(), Acquired::Finished(Tick(5))));
}

testbed::server_tests!(testbed::tests::private_mongo_can_be_had =>
    leases_and_tokens_outlive_a_primary_that_steps_down,
    a_waiter_outlives_the_primary_it_listens_at,
    without_a_majority_nothing_is_granted_and_it_is_said_why,
    a_tick_that_only_the_primary_knows_to_be_used_up_is_not_told_finished,
);
