//! The guard and `run`: the end of a lease is seen, told and acted on.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lock_core::*;
use support::{Mishap, Stage};

const TTL: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn dropping_the_guard_releases() {
    let stage = Stage::new();
    drop(stage.locks().lock("x").ttl(TTL).acquire().await.unwrap());
    stage.pass(Duration::from_millis(1)).await;
    assert!(stage.is_free("x").await);
}

#[test]
fn dropping_the_guard_outside_any_runtime_releases_in_its_own() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = MemoryLocks::new();
    let locks = Locks::new(store.clone());
    let guard = runtime.block_on(async { locks.lock("x").ttl(TTL).acquire().await.unwrap() });
    drop(guard);
    let waited = runtime.block_on(async { locks.lock("x").wait_at_most(Duration::from_secs(5)).acquire().await });
    assert!(waited.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_program_can_wait_for_what_goes_on_behind() {
    let stage = Stage::new();
    let locks = stage.locks();
    locks.settled().await;
    stage.next(Operation::Release, Mishap::Late(Duration::from_secs(1)));
    drop(locks.lock("x").ttl(TTL).acquire().await.unwrap());
    stage.next(Operation::Acquire, Mishap::Late(Duration::from_secs(2)));
    let _ = tokio::time::timeout(Duration::from_millis(1), locks.lock("y").ttl(TTL).acquire()).await;
    locks.settled().await;
    assert!(stage.is_free("x").await && stage.is_free("y").await);
    assert_eq!(stage.asked(Operation::Release), 2);
}

#[tokio::test(start_paused = true)]
async fn a_release_says_whether_it_was_still_ours() {
    let stage = Stage::new();
    let locks = stage.locks();
    let lock = || locks.lock("x").ttl(TTL);
    assert_eq!(lock().acquire().await.unwrap().release().await.unwrap(), ReleaseOutcome::Released);

    let guard = lock().acquire().await.unwrap();
    stage.store().force_release(guard.name()).await.unwrap();
    assert_eq!(guard.release().await.unwrap(), ReleaseOutcome::AlreadyLost(LossReason::NotOurs));

    let guard = lock().acquire().await.unwrap();
    stage.clock().suspend(TTL);
    assert_eq!(guard.release().await.unwrap(), ReleaseOutcome::AlreadyLost(LossReason::Expired));
}

#[tokio::test(start_paused = true)]
async fn belief_ends_with_the_call_of_release() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    let lease = guard.lease().clone();
    stage.next(Operation::Release, Mishap::Late(Duration::from_secs(1)));
    let release = tokio::spawn(guard.release());
    stage.pass(Duration::from_millis(10)).await;
    assert!(!lease.is_valid());
    assert_eq!(lease.check().unwrap_err().reason, LossReason::Released);
    assert_eq!(release.await.unwrap().unwrap(), ReleaseOutcome::Released);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_release_goes_on_behind() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    stage.next(Operation::Release, Mishap::Refused);
    let _ = tokio::time::timeout(Duration::from_millis(1), guard.release()).await;
    stage.pass(Duration::from_secs(1)).await;
    assert!(stage.is_free("x").await);
}

#[tokio::test(start_paused = true)]
async fn at_least_for_keeps_it_taken_after_an_early_release() {
    let stage = Stage::new();
    let locks = stage.locks();
    let least = Duration::from_secs(60);
    let guard = locks.lock("x").ttl(TTL).at_least_for(least).acquire().await.unwrap();
    let granted = stage.clock().now();
    stage.pass(Duration::from_secs(5)).await;
    guard.release().await.unwrap();
    let next = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let took = stage.clock().now().since(granted);
    assert!(took >= least && took < least + Duration::from_millis(50), "{took:?}");
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn run_gives_the_value_and_the_lock_back() {
    let stage = Stage::new();
    let value = stage.locks().lock("x").ttl(TTL).run(|lease| async move { lease.is_valid() }).await.unwrap();
    assert!(value);
    assert!(stage.is_free("x").await);
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn work_is_dropped_on_loss_before_the_store_gives_the_lock_away() {
    let stage = Stage::new();
    let dropped = Arc::new(AtomicBool::new(false));
    let running = tokio::spawn({
        let (lock, work) = (stage.locks().lock("x").ttl(TTL), SetOnDrop(dropped.clone()));
        async move {
            lock.run(|_| async move {
                let _work = work;
                std::future::pending::<()>().await;
            })
            .await
        }
    });
    stage.pass(Duration::from_secs(1)).await;
    stage.set_down(true);
    let next = AcquireRequest::new(LockName::new("x").unwrap(), OwnerId::from_u128(9), TTL);
    loop {
        // Straight at the store: the first moment at which anybody else can have it.
        if let Acquired::Granted(_) = stage.store().acquire(&next).await.unwrap() {
            break;
        }
        stage.pass(Duration::from_millis(1)).await;
    }
    assert!(dropped.load(Ordering::SeqCst), "the work was still there when the next holder came");
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, LockError::Lost(Lost { reason: LossReason::Expired, .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn dropping_run_drops_the_work_and_releases() {
    let stage = Stage::new();
    let dropped = Arc::new(AtomicBool::new(false));
    let work = SetOnDrop(dropped.clone());
    let run = stage.locks().lock("x").ttl(TTL).run(|_| async move {
        let _work = work;
        std::future::pending::<()>().await;
    });
    assert!(tokio::time::timeout(Duration::from_secs(1), run).await.is_err());
    assert!(dropped.load(Ordering::SeqCst));
    stage.pass(Duration::from_millis(1)).await;
    assert!(stage.is_free("x").await);
}

#[tokio::test(start_paused = true)]
async fn work_that_blocked_beyond_the_deadline_is_told_as_lost() {
    let stage = Stage::new();
    let clock = stage.clock().clone();
    let done = stage.locks().lock("x").ttl(TTL).run(|lease| async move {
        clock.suspend(TTL);
        lease.token()
    });
    assert!(matches!(done.await, Err(LockError::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_work_releases() {
    let stage = Stage::new();
    let lock = stage.locks().lock("x").ttl(TTL);
    let panicked = tokio::spawn(lock.run(|_| async { panic!("on purpose") })).await;
    assert!(panicked.is_err());
    stage.pass(Duration::from_millis(1)).await;
    assert!(stage.is_free("x").await);
}
