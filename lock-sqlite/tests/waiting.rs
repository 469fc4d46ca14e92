//! Waiters are woken by events, and waiting costs nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

mod common;

use std::time::Duration;

use common::{Home, PATIENCE, TTL, ask, extend, give_back, is_held, name, take};
use lock_core::{LockProvider, OwnerId, ReleaseRequest, Released, Wake, Watch};

async fn woken(watch: &mut Watch) {
    tokio::time::timeout(PATIENCE, watch.woken()).await.expect("a wake-up");
}

#[tokio::test]
async fn this_host_has_events() {
    assert_eq!(Home::new().locks().await.capabilities().wake, Wake::Event);
}

#[tokio::test]
async fn a_release_by_another_user_of_the_file_wakes() {
    let home = Home::new();
    let (holder, waiter) = (home.locks().await, home.locks().await);
    for lock in ["x", "hostile/../%'; --\n🔒"] {
        let request = ask(lock, TTL);
        let grant = take(&holder, &request).await;
        let mut watch = waiter.watch(&name(lock), OwnerId::from_u128(1)).await.unwrap();
        assert!(is_held(&waiter, lock).await);
        holder.release(&give_back(&request, grant)).await.unwrap();
        woken(&mut watch).await;
        assert!(!is_held(&waiter, lock).await, "who is woken by a release sees it");
    }
}

#[tokio::test]
async fn a_thousand_hand_offs_lose_no_wake_up() {
    let home = Home::new();
    let (one, two) = (home.locks().await, home.locks().await);
    let mut last = None;
    for round in 0..1000 {
        let (holder, waiter) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let request = ask("x", TTL);
        let grant = take(holder, &request).await;
        assert!(last < Some(grant.token));
        last = Some(grant.token);
        let mut watch = waiter.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
        assert!(is_held(waiter, "x").await);
        holder.release(&give_back(&request, grant)).await.unwrap();
        woken(&mut watch).await;
    }
}

#[tokio::test]
async fn a_forced_release_and_one_that_keeps_it_taken_wake() {
    let home = Home::new();
    let (holder, waiter) = (home.locks().await, home.locks().await);
    let request = ask("x", TTL);
    let grant = take(&holder, &request).await;
    let mut watch = waiter.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    let keep = ReleaseRequest { keep_for: Duration::from_secs(5), ..give_back(&request, grant) };
    assert_eq!(holder.release(&keep).await.unwrap(), Released::Released);
    woken(&mut watch).await;
    assert!(is_held(&waiter, "x").await);
    assert!(!holder.force_release(&name("x")).await.unwrap(), "nobody held it");
    woken(&mut watch).await;
    assert!(!is_held(&waiter, "x").await);
}

#[tokio::test]
async fn a_replaced_file_wakes() {
    let home = Home::new();
    let (holder, waiter) = (home.locks().await, home.locks().await);
    take(&holder, &ask("x", TTL)).await;
    let mut watch = waiter.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    home.delete();
    woken(&mut watch).await;
    assert!(!is_held(&waiter, "x").await);
}

#[tokio::test]
async fn renewals_and_other_locks_wake_nobody() {
    let home = Home::new();
    let (holder, waiter) = (home.locks().await, home.locks().await);
    let request = ask("x", TTL);
    let grant = take(&holder, &request).await;
    let mut watch = waiter.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    let other = ask("other", TTL);
    let hand = async || {
        let grant = take(&holder, &other).await;
        holder.release(&give_back(&other, grant)).await.unwrap();
    };
    // The listener has nothing to compare with at first: one wake-up too many.
    hand().await;
    woken(&mut watch).await;
    let mut last = waiter.watch(&name("last"), OwnerId::from_u128(1)).await.unwrap();
    hand().await;
    woken(&mut last).await;
    for _ in 0..20 {
        holder.renew(&extend(&request, grant)).await.unwrap();
        hand().await;
        // A free lock that is watched is told of each event: so each of them was looked at.
        woken(&mut last).await;
    }
    let quiet = tokio::time::timeout(Duration::from_millis(1), watch.woken()).await;
    assert!(quiet.is_err(), "nothing happened to x");
    holder.release(&give_back(&request, grant)).await.unwrap();
    woken(&mut watch).await;
}

#[tokio::test]
async fn a_refused_acquire_writes_nothing() {
    let home = Home::new();
    let (holder, waiter) = (home.locks().await, home.locks().await);
    take(&holder, &ask("x", TTL)).await;
    let log = home.directory.path().join("locks.db-wal");
    let before = std::fs::metadata(&log).unwrap();
    // Nor does it need the write lock.
    let mut writer = home.sql().await;
    let writing = lock_sqlite::sqlx::Connection::begin_with(&mut writer, "BEGIN IMMEDIATE").await.unwrap();
    for _ in 0..50 {
        assert!(is_held(&waiter, "x").await);
    }
    drop(writing);
    let after = std::fs::metadata(&log).unwrap();
    assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
}
