//! Renewal: in time, together, and honest about what came of it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

mod support;

use std::time::Duration;

use lock_core::*;
use support::{Mishap, Stage};

const TTL: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_lease_lives_as_long_as_it_is_held() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    let token = guard.token();
    stage.pass(TTL * 20).await;
    assert!(guard.is_valid());
    assert_eq!(guard.token(), token, "renewal keeps the token (L3)");
    let renewals = stage.asked(Operation::Renew);
    assert!((60..=70).contains(&renewals), "every third of the ttl or a little sooner, not {renewals} in 20 ttls");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_leases_are_renewed_by_a_handful_of_requests() {
    let stage = Stage::with(|can| can.grouping = std::num::NonZeroUsize::new(1000));
    let locks = stage.locks();
    let mut guards = Vec::new();
    for number in 0..10_000 {
        guards.push(locks.lock(format!("lock-{number}")).ttl(TTL).acquire().await.unwrap());
        if number % 100 == 0 {
            stage.pass(Duration::from_millis(10)).await;
        }
    }
    let before = stage.asked(Operation::Renew);
    stage.pass(TTL * 10).await;
    let requests = stage.asked(Operation::Renew) - before;
    assert!(guards.iter().all(|guard| guard.is_valid()));
    assert!(requests <= 400, "10 groups, three to four times a ttl, for 10 ttls: not {requests}");
}

#[tokio::test(start_paused = true)]
async fn a_store_out_of_reach_loses_the_lease_at_its_deadline_and_not_before() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    let deadline = guard.deadline();
    stage.set_down(true);
    assert_eq!(guard.lost().await, LossReason::Expired);
    let late = stage.clock().now().since(deadline);
    assert!(late < Duration::from_millis(5), "{late:?}");
    assert!(stage.asked(Operation::Renew) >= 4, "it was tried again meanwhile");
    assert!(!stage.is_free("x").await, "the store has not given it away yet (L1)");
}

#[tokio::test(start_paused = true)]
async fn a_store_back_before_the_deadline_loses_nothing() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    stage.set_down(true);
    stage.pass(TTL * 9 / 10).await;
    stage.set_down(false);
    stage.pass(TTL * 3).await;
    assert!(guard.is_valid());
}

#[tokio::test(start_paused = true)]
async fn an_applied_renewal_whose_reply_was_lost_evicts_nobody() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    let token = guard.token();
    stage.next(Operation::Renew, Mishap::ReplyLost);
    stage.pass(TTL * 3).await;
    assert!(guard.is_valid());
    assert_eq!(guard.token(), token);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_counts_from_when_it_was_sent() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    stage.next(Operation::Renew, Mishap::Late(Duration::from_secs(3)));
    // The renewal leaves after some 3.3 s; the ones after it are lost, so its late reply alone sets the deadline.
    stage.pass(Duration::from_millis(3_400)).await;
    stage.set_down(true);
    stage.pass(Duration::from_secs(4)).await;
    let from_now = guard.remaining();
    assert!(
        from_now < Duration::from_millis(5_900),
        "10 s counted from the sending 4 s ago, not from the reply: {from_now:?}"
    );
    assert!(from_now > Duration::from_millis(5_000), "the reply was taken in: {from_now:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_comes_back_too_late_is_given_back_and_revives_nothing() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    stage.next(Operation::Renew, Mishap::Late(TTL));
    stage.pass(Duration::from_millis(3_400)).await;
    // The renewal was applied and its reply is on the way; the process stands still until after its deadline.
    stage.no_more_mishaps();
    stage.clock().suspend(Duration::from_secs(9));
    assert!(!guard.is_valid());
    stage.pass(Duration::from_secs(1)).await;
    stage.pass(TTL * 2).await;
    assert!(!guard.is_valid(), "never valid again (L10)");
    assert_eq!(guard.lost().await, LossReason::Expired);
    assert!(stage.is_free("x").await, "nobody waits for a lease that nobody believes in");
    assert!(stage.asked(Operation::Release) >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_record_is_a_loss_at_the_next_renewal() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    stage.store().delete_record(&LockName::new("x").unwrap());
    let before = stage.clock().now();
    assert_eq!(guard.lost().await, LossReason::NotOurs);
    assert!(stage.clock().now().since(before) <= TTL / 3 + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn at_most_for_ends_the_lease_however_well_it_is_renewed() {
    let stage = Stage::new();
    let begun = stage.clock().now();
    let most = Duration::from_secs(25);
    let guard = stage.locks().lock("x").ttl(TTL).at_most_for(most).acquire().await.unwrap();
    assert_eq!(guard.lost().await, LossReason::AtMostFor);
    let took = stage.clock().now().since(begun);
    assert!(took >= most && took < most + Duration::from_millis(5), "{took:?}");
    drop(guard);
    stage.pass(Duration::from_millis(1)).await;
    assert!(stage.is_free("x").await, "it is given back when its guard goes");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_loses_its_leases_within_the_slice_of_its_resume() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    stage.clock().suspend(TTL);
    let resumed = tokio::time::Instant::now();
    guard.lost().await;
    assert!(resumed.elapsed() <= Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn the_keeper_ends_with_its_last_lease_and_starts_again_with_the_next() {
    let stage = Stage::new();
    let locks = stage.locks();
    for _ in 0..3 {
        let guard = locks.lock("x").ttl(TTL).acquire().await.unwrap();
        stage.pass(TTL * 2).await;
        assert!(guard.is_valid());
        guard.release().await.unwrap();
        let renewals = stage.asked(Operation::Renew);
        stage.pass(TTL * 2).await;
        assert_eq!(stage.asked(Operation::Renew), renewals, "nothing is renewed after its release");
    }
}

#[test]
fn a_keeper_whose_runtime_was_shut_down_starts_anew() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let locks = first.block_on(async { Locks::new(MemoryLocks::new()) });
    let ttl = Duration::from_millis(300);
    let kept = first.block_on(async { locks.lock("x").ttl(ttl).acquire().await.unwrap() });
    drop(first);
    runtime().block_on(async {
        let guard = locks.lock("y").ttl(ttl).acquire().await.unwrap();
        SystemClock.sleep_until(SystemClock.now() + ttl * 3).await;
        assert!(guard.is_valid(), "it is renewed in the new runtime");
    });
    drop(kept);
}
