//! Tokens rise and leases end, whatever happens to the file and the host.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Home, TTL, ask, extend, give_back, is_held, name, take};
use lock_core::{LockProvider, LockState, Renewed, TestClock};
use lock_sqlite::{SqliteLocks, sqlx};

#[tokio::test]
async fn tokens_rise_over_deletion_of_the_record() {
    let home = Home::new();
    let locks = home.locks().await;
    let (first, second) = (ask("x", TTL), ask("x", TTL));
    let before = take(&locks, &first).await;
    let deleted = sqlx::query("DELETE FROM leasehold_locks").execute(&mut home.sql().await).await.unwrap();
    assert_eq!(deleted.rows_affected(), 1);
    assert_eq!(locks.renew(&extend(&first, before)).await.unwrap(), Renewed::Lost);
    assert!(take(&locks, &second).await.token > before.token);
}

#[tokio::test]
async fn tokens_rise_over_deletion_of_the_file_and_its_users_find_the_new_one() {
    let home = Home::new();
    let (one, two) = (home.locks().await, home.locks().await);
    let before = take(&one, &ask("x", TTL)).await;
    home.delete();
    let request = ask("x", TTL);
    let after = take(&one, &request).await;
    assert!(after.token > before.token);
    assert!(is_held(&two, "x").await, "the other user must not go on with the deleted file");
    let fresh = home.locks().await;
    assert!(is_held(&fresh, "x").await);
    one.release(&give_back(&request, after)).await.unwrap();
    drop(one);
    // The closing of the deleted file's connections must not touch the new file's log.
    assert!(take(&two, &ask("x", TTL)).await.token > after.token);
    assert!(is_held(&fresh, "x").await);
}

#[tokio::test]
async fn tokens_rise_when_the_wall_clock_falls() {
    let home = Home::new();
    let clock = Arc::new(TestClock::new());
    let locks = SqliteLocks::builder(home.path()).clock(clock.clone()).build().await.unwrap();
    let request = ask("x", TTL);
    let before = take(&locks, &request).await;
    locks.release(&give_back(&request, before)).await.unwrap();
    clock.step_wall(-3_600_000_000);
    assert_eq!(take(&locks, &ask("x", TTL)).await.token.get(), before.token.get() + 1);
}

#[tokio::test]
async fn another_boot_of_the_host_frees_every_lease() {
    let home = Home::new();
    let locks = home.locks().await;
    let request = ask("x", TTL);
    let before = take(&locks, &request).await;
    let boot = "UPDATE leasehold_locks SET boot_id = '11111111-2222-3333-4444-555555555555'";
    sqlx::query(boot).execute(&mut home.sql().await).await.unwrap();
    assert_eq!(locks.inspect(&name("x")).await.unwrap().unwrap().state, LockState::Free);
    assert_eq!(locks.renew(&extend(&request, before)).await.unwrap(), Renewed::Lost);
    assert!(take(&locks, &ask("x", TTL)).await.token > before.token);
}

#[tokio::test]
async fn a_lease_is_counted_through_suspend_and_is_not_renewable_after() {
    let home = Home::new();
    let clock = Arc::new(TestClock::new());
    let locks = SqliteLocks::builder(home.path()).clock(clock.clone()).build().await.unwrap();
    let request = ask("x", TTL);
    let grant = take(&locks, &request).await;
    clock.suspend(TTL - Duration::from_secs(10));
    assert!(is_held(&locks, "x").await);
    clock.suspend(Duration::from_secs(10));
    assert_eq!(locks.renew(&extend(&request, grant)).await.unwrap(), Renewed::Lost);
    assert!(take(&locks, &ask("x", TTL)).await.token > grant.token);
}

async fn records(home: &Home) -> Vec<String> {
    let names = sqlx::query_scalar("SELECT name FROM leasehold_locks ORDER BY name");
    names.fetch_all(&mut home.sql().await).await.unwrap()
}

#[tokio::test]
async fn idle_records_are_swept_after_the_retention_and_live_ones_are_not() {
    let home = Home::new();
    let clock = Arc::new(TestClock::new());
    let day = Duration::from_secs(24 * 3600);
    let locks = SqliteLocks::builder(home.path()).clock(clock.clone()).retention(day).build().await.unwrap();
    let (idle, live) = (ask("idle", TTL), ask("live", day));
    let grant = take(&locks, &idle).await;
    locks.release(&give_back(&idle, grant)).await.unwrap();
    clock.suspend(day - Duration::from_secs(60));
    take(&locks, &live).await;
    assert_eq!(records(&home).await, ["idle", "live"], "not before the retention");
    clock.suspend(Duration::from_secs(120));
    take(&locks, &ask("new", TTL)).await;
    assert_eq!(records(&home).await, ["live", "new"]);
    // A wall clock that jumps ahead must not sweep a lease that lives.
    clock.step_wall(30 * 86_400_000_000);
    clock.suspend(Duration::from_secs(120));
    take(&locks, &ask("newer", TTL)).await;
    assert_eq!(records(&home).await, ["live", "newer"]);
    assert!(is_held(&locks, "live").await);
    // One that fell back keeps the records whose tokens lie ahead of it; and sweeps are bounded by the minute.
    let ahead = ask("ahead", TTL);
    let token = take(&locks, &ahead).await.token;
    sqlx::query("UPDATE leasehold_locks SET ends_micros = 0").execute(&mut home.sql().await).await.unwrap();
    clock.step_wall(-60 * 86_400_000_000);
    clock.suspend(Duration::from_secs(120));
    take(&locks, &ask("newest", TTL)).await;
    assert_eq!(records(&home).await, ["ahead", "live", "newer", "newest"]);
    assert!(take(&locks, &ask("ahead", TTL)).await.token > token);
}
