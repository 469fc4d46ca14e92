//! Waiting by event: announced only when somebody waits, not lost when the connection is cut, silent otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, ask, give_back, granted, name, seconds, take};
use lock_core::{Acquired, Clock, LockProvider, OwnerId, SystemClock, Waiting, Wake};
use lock_postgres::PostgresLocks;

/// A provider whose connections can be told from others'.
async fn named(place: &Place) -> (PostgresLocks, String) {
    let app = common::unique();
    let url = format!("{}?application_name={app}", place.url);
    (PostgresLocks::builder(url).schema(&place.schema).build().await.unwrap(), app)
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(seconds(10), future).await.expect("an event within 10 s")
}

async fn a_release_is_announced_only_if_somebody_waits() {
    // A role of its own, so that other tests' announcements aren't counted.
    let mut place = Place::new().await;
    let (role, url) = place.role().await;
    place.sql(&format!("CREATE SCHEMA {{s}} AUTHORIZATION {role}")).await;
    let locks = PostgresLocks::builder(url.as_str()).schema(&place.schema).build().await.unwrap();
    let count = format!(
        "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
         WHERE r.rolname = '{role}' AND query LIKE '%pg_notify%'"
    );
    let others = ask("x", seconds(30));
    for (waiting, expected) in [
        (None, 0),
        (Some(Waiting::No), 0),
        (Some(Waiting::Wake(seconds(60))), 1),
        // The mark went with the announcement.
        (None, 1),
    ] {
        // Who waits and gets it at once waits no more.
        let mut request = ask("x", seconds(30));
        request.waiting = Waiting::Wake(seconds(60));
        let grant = granted(locks.acquire(&request).await.unwrap());
        if let Some(waiting) = waiting {
            let mut others = others.clone();
            others.waiting = waiting;
            assert!(matches!(locks.acquire(&others).await.unwrap(), Acquired::Held(_)));
        }
        locks.release(&give_back(&request, grant)).await.unwrap();
        assert_eq!(place.number(&count).await, expected, "{waiting:?}");
    }
    // A mark that has run out is none.
    let (request, grant) = take(&locks, "y").await;
    let mut brief = ask("y", seconds(30));
    brief.waiting = Waiting::Wake(Duration::from_millis(1));
    locks.acquire(&brief).await.unwrap();
    SystemClock.sleep_until(SystemClock.now() + Duration::from_millis(5)).await;
    locks.release(&give_back(&request, grant)).await.unwrap();
    assert_eq!(place.number(&count).await, 1);
    drop(locks);
    place.clear().await;
}

async fn a_watcher_is_woken_by_another_providers_release_and_by_force() {
    let place = Place::new().await;
    let (holder, waiter) = (place.locks().await, place.locks().await);
    assert_eq!(waiter.capabilities().wake, Wake::Event);
    for forced in [false, true] {
        for lock in ["x", "🔒 ' \" \\ \n", &"x".repeat(512)] {
            let (request, grant) = take(&holder, lock).await;
            let mut watch = waiter.watch(&name(lock), OwnerId::from_u128(1)).await.unwrap();
            let mut wish = ask(lock, seconds(30));
            wish.waiting = Waiting::Wake(seconds(60));
            assert!(matches!(waiter.acquire(&wish).await.unwrap(), Acquired::Held(_)));
            if forced {
                assert!(holder.force_release(&name(lock)).await.unwrap());
            } else {
                holder.release(&give_back(&request, grant)).await.unwrap();
            }
            in_time(watch.woken()).await;
            let grant = granted(waiter.acquire(&wish).await.unwrap());
            waiter.release(&give_back(&wish, grant)).await.unwrap();
        }
    }
    place.clear().await;
}

async fn hand_offs_lose_no_wake_up() {
    let place = Place::new().await;
    let (one, two) = (place.locks().await, place.locks().await);
    let hand_offs = |locks: PostgresLocks| async move {
        let mut watch = locks.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
        for _ in 0..100 {
            let mut wish = ask("x", seconds(60));
            wish.waiting = Waiting::Wake(seconds(60));
            let grant = loop {
                match locks.acquire(&wish).await.unwrap() {
                    Acquired::Granted(grant) => break grant,
                    _ => in_time(watch.woken()).await,
                }
            };
            locks.release(&give_back(&wish, grant)).await.unwrap();
        }
    };
    tokio::join!(hand_offs(one), hand_offs(two));
    place.clear().await;
}

async fn a_cut_subscription_wakes_everybody_when_it_is_made_good() {
    let place = Place::new().await;
    let (waiter, app) = named(&place).await;
    let mut watch = waiter.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    let cut = format!(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
         WHERE application_name = '{app}' AND query LIKE 'LISTEN%'"
    );
    assert_eq!(place.number(&cut).await, 1);
    in_time(watch.woken()).await;
    // And it listens again.
    let (request, grant) = take(&place.locks().await, "x").await;
    let mut wish = ask("x", seconds(30));
    wish.waiting = Waiting::Wake(seconds(60));
    waiter.acquire(&wish).await.unwrap();
    waiter.release(&give_back(&request, grant)).await.unwrap();
    in_time(watch.woken()).await;
    place.clear().await;
}

async fn watches_share_one_connection_and_a_dropped_provider_leaves_none() {
    let place = Place::new().await;
    let (locks, app) = named(&place).await;
    let mut watches = Vec::new();
    for n in 0..50 {
        watches.push(locks.watch(&name(&format!("{n}")), OwnerId::from_u128(1)).await.unwrap());
    }
    let listening =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{app}' AND query LIKE 'LISTEN%'");
    assert_eq!(place.number(&listening).await, 1);
    drop((locks, watches));
    let any = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{app}'");
    in_time(async {
        while place.number(&any).await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    place.clear().await;
}

async fn who_is_refused_and_does_not_wait_writes_nothing() {
    let place = Place::new().await;
    let locks = place.locks().await;
    take(&locks, "x").await;
    // The row's own transaction ids tell of any write and any lock on it, at once and of nobody else's.
    let row = "SELECT (xmin::text || xmax::text || replace(ctid::text, ',', ''))::text FROM {s}.locks";
    let state = || async {
        let sql = row.replace("{s}", &format!("\"{}\"", place.schema));
        sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql)).fetch_one(&place.admin).await.unwrap()
    };
    let before = state().await;
    for _ in 0..10 {
        assert!(matches!(locks.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Held(_)));
    }
    assert_eq!(state().await, before);
    // Who waits marks the row, once.
    let mut wish = ask("x", seconds(30));
    wish.waiting = Waiting::Wake(seconds(60));
    locks.acquire(&wish).await.unwrap();
    let marked = state().await;
    assert_ne!(marked, before);
    wish.waiting = Waiting::Wake(seconds(30));
    for _ in 0..10 {
        locks.acquire(&wish).await.unwrap();
    }
    assert_eq!(state().await, marked);
    place.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    a_release_is_announced_only_if_somebody_waits,
    a_watcher_is_woken_by_another_providers_release_and_by_force,
    hand_offs_lose_no_wake_up,
    a_cut_subscription_wakes_everybody_when_it_is_made_good,
    watches_share_one_connection_and_a_dropped_provider_leaves_none,
    who_is_refused_and_does_not_wait_writes_nothing,
);
