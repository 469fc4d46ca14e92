//! Acquiring and waiting: one contender at the store, nothing left behind, honest in doubt.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lock_core::*;
use support::{Mishap, Stage};

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn name() -> LockName {
    LockName::new("x").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_free_lock_costs_one_request_and_no_subscription() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").acquire().await.unwrap();
    guard.release().await.unwrap();
    assert_eq!(stage.asked(Operation::Acquire), 1);
    assert_eq!(stage.asked(Operation::Release), 1);
    assert_eq!(stage.asked(Operation::Watch), 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_waiters_load_the_store_like_one() {
    let stage = Stage::new();
    let locks = stage.locks();
    let held = locks.lock("x").ttl(Duration::from_secs(60)).acquire().await.unwrap();
    let inside = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..1000)
        .map(|_| {
            let (locks, inside) = (locks.clone(), inside.clone());
            tokio::spawn(async move {
                let guard = locks.lock("x").ttl(Duration::from_secs(60)).acquire().await.unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two inside");
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                guard.release().await.unwrap();
            })
        })
        .collect();
    let before = stage.asked(Operation::Acquire);
    stage.pass(Duration::from_secs(50)).await;
    let asked = stage.asked(Operation::Acquire) - before;
    assert!(asked <= 2, "one waiter asks, subscribes, asks again, and waits: not {asked} requests");
    held.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let all = stage.asked(Operation::Acquire) - before;
    assert!(all <= 3 * 1000 + 2, "{all} requests for a thousand hand-offs");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_long_in_coming_keeps_nobody_from_asking() {
    let stage = Stage::new();
    let held = stage.hold("x").await.unwrap();
    stage.next(Operation::Watch, Mishap::Late(Duration::from_secs(60)));
    let begun = stage.clock().now();
    let locks = stage.locks();
    let waiting = tokio::spawn(async move { locks.lock("x").ttl(Duration::from_secs(2)).acquire().await.unwrap() });
    stage.pass(Duration::from_millis(500)).await;
    held.release().await.unwrap();
    let guard = waiting.await.unwrap();
    let waited = stage.clock().now().since(begun);
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    guard.release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiters_of_one_client_are_served_in_their_order() {
    let stage = Stage::new();
    let locks = stage.locks();
    let held = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for place in 0..20 {
        let (locks, order) = (locks.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            let guard = locks.lock("x").ttl(TTL).acquire().await.unwrap();
            order.lock().unwrap().push(place);
            guard.release().await.unwrap();
        }));
        tokio::task::yield_now().await;
    }
    held.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_time_to_wait_is_honoured() {
    let stage = Stage::new();
    let locks = stage.locks();
    let held = locks.lock("x").ttl(TTL).label("the first").acquire().await.unwrap();
    let begun = stage.clock().now();
    let error = locks.lock("x").wait_at_most(3 * SECOND).acquire().await.unwrap_err();
    let took = stage.clock().now().since(begun);
    assert!(took >= 3 * SECOND && took < 3 * SECOND + Duration::from_millis(5), "{took:?}");
    let LockError::Busy(busy) = error else { panic!("{error:?}") };
    assert_eq!(busy.held.holder.unwrap().label, "the first");
    assert!(locks.lock("x").try_acquire().await.unwrap().is_none());
    // A second waiter's time is over while it still queues behind the first in this process.
    let (one, two) = tokio::join!(
        locks.lock("x").wait_at_most(3 * SECOND).acquire(),
        locks.lock("x").wait_at_most(SECOND).acquire()
    );
    assert!(matches!((one, two), (Err(LockError::Busy(_)), Err(LockError::Busy(_)))));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn an_expired_lock_is_had_when_its_remaining_time_is_over() {
    let stage = Stage::new();
    let dead = AcquireRequest::new(name(), OwnerId::from_u128(7), TTL);
    stage.store().acquire(&dead).await.unwrap();
    let begun = stage.clock().now();
    let guard = stage.locks().lock("x").ttl(Duration::from_secs(60)).acquire().await.unwrap();
    let took = stage.clock().now().since(begun);
    assert!(took >= TTL && took < TTL + Duration::from_millis(50), "{took:?}");
    assert!(stage.asked(Operation::Acquire) <= 4, "it was not polled for");
    drop(guard);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_asked_for_again_by_the_same_owner() {
    let stage = Stage::new();
    stage.next(Operation::Acquire, Mishap::ReplyLost);
    let guard = stage.locks().lock("x").ttl(TTL).try_acquire().await.unwrap().expect("the grant was ours");
    assert_eq!(stage.asked(Operation::Acquire), 2);
    guard.release().await.unwrap();
    assert!(stage.is_free("x").await);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_a_release_is_made_good() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    stage.next(Operation::Release, Mishap::Refused);
    stage.next(Operation::Release, Mishap::ReplyLost);
    // The retry of the one that was applied is answered with "not yours", which means that it was done.
    assert_eq!(guard.release().await.unwrap(), ReleaseOutcome::Released);
    assert!(stage.is_free("x").await);
}

#[tokio::test(start_paused = true)]
async fn somebody_who_does_not_wait_gives_up_on_a_store_that_is_down() {
    let stage = Stage::new();
    stage.set_down(true);
    let begun = stage.clock().now();
    let error = stage.locks().lock("x").try_acquire().await.unwrap_err();
    assert!(matches!(&error, LockError::Store(error) if error.kind() == ErrorKind::Unreachable), "{error:?}");
    assert!(stage.clock().now().since(begun) < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_lives_through_an_outage() {
    let stage = Stage::new();
    let locks = stage.locks();
    let held = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let waiter = tokio::spawn(async move { locks.lock("x").ttl(TTL).wait_at_most(60 * SECOND).acquire().await });
    stage.pass(SECOND).await;
    stage.set_down(true);
    stage.pass(15 * SECOND).await;
    assert!(!held.is_valid());
    stage.set_down(false);
    let back = stage.clock().now();
    let guard = waiter.await.unwrap().unwrap();
    assert!(stage.clock().now().since(back) <= 2 * SECOND, "within one pause after the store is back");
    drop((guard, held));
}

#[tokio::test(start_paused = true)]
async fn an_acquire_dropped_at_any_moment_leaves_nothing_held() {
    // The reply comes after 100 ms; the acquire is dropped before, at and after that.
    for dropped_after in [0, 1, 50, 99, 100, 101] {
        let stage = Stage::new();
        stage.next(Operation::Acquire, Mishap::Late(Duration::from_millis(100)));
        let acquire = stage.locks().lock("x").ttl(Duration::from_secs(3600)).acquire();
        let outcome = tokio::time::timeout(Duration::from_millis(dropped_after), acquire).await;
        drop(outcome);
        stage.pass(SECOND).await;
        assert!(stage.is_free("x").await, "dropped after {dropped_after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_acquire_of_unknown_outcome_is_released_behind() {
    let stage = Stage::new();
    for _ in 0..3 {
        stage.next(Operation::Acquire, Mishap::ReplyLost);
    }
    let error = stage.locks().lock("x").ttl(Duration::from_secs(3600)).try_acquire().await.unwrap_err();
    assert!(matches!(&error, LockError::Store(error) if error.applied() == Applied::Maybe));
    stage.pass(SECOND).await;
    assert!(stage.is_free("x").await);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_comes_too_late_is_not_believed() {
    let stage = Stage::new();
    for _ in 0..3 {
        stage.next(Operation::Acquire, Mishap::Late(TTL));
    }
    let error = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap_err();
    assert!(matches!(&error, LockError::Store(error) if error.kind() == ErrorKind::Timeout), "{error:?}");
    // Once is forgiven: the same owner asks again.
    stage.next(Operation::Acquire, Mishap::Late(TTL));
    let guard = stage.locks().lock("y").ttl(TTL).acquire().await.unwrap();
    assert!(guard.is_valid());
}

#[tokio::test(start_paused = true)]
async fn an_at_most_for_shorter_than_the_answer_takes_is_a_loss_and_not_a_loop() {
    let stage = Stage::new();
    let error = stage.locks().lock("x").at_most_for(Duration::from_nanos(1)).acquire().await;
    // The test's clock stands still within a call, so one nanosecond may be enough; a late reply never is.
    if let Ok(guard) = error {
        guard.release().await.unwrap();
    }
    stage.next(Operation::Acquire, Mishap::Late(SECOND));
    let error = stage.locks().lock("x").at_most_for(Duration::from_nanos(1)).acquire().await.unwrap_err();
    assert!(matches!(&error, LockError::Lost(lost) if lost.reason == LossReason::AtMostFor), "{error:?}");
    stage.pass(SECOND).await;
    assert!(stage.is_free("x").await);
}

#[tokio::test(start_paused = true)]
async fn a_store_without_events_is_polled() {
    let stage = Stage::with(|can| can.wake = Wake::Poll(Duration::from_millis(100)));
    let locks = stage.locks();
    let held = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let waiter = tokio::spawn({
        let locks = locks.clone();
        async move { locks.lock("x").ttl(TTL).acquire().await.unwrap() }
    });
    stage.pass(SECOND).await;
    let asked = stage.asked(Operation::Acquire);
    assert!((10..=22).contains(&asked), "every 50 to 100 ms for a second, not {asked} times");
    held.release().await.unwrap();
    let released = stage.clock().now();
    drop(waiter.await.unwrap());
    assert!(stage.clock().now().since(released) <= Duration::from_millis(101));
    assert_eq!(stage.asked(Operation::Watch), 0);
}

#[tokio::test(start_paused = true)]
async fn bad_wishes_are_refused_unsent() {
    let stage = Stage::new();
    let locks = stage.locks();
    let kind = |error: LockError| match error {
        LockError::Store(error) => (error.kind(), error.applied()),
        other => panic!("{other:?}"),
    };
    for bad in ["", "a\0b", &"x".repeat(513)] {
        let error = locks.lock(bad).acquire().await.unwrap_err();
        assert_eq!(kind(error), (ErrorKind::InvalidName, Applied::No));
    }
    for ttl in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(10 * 365 * 86400)] {
        let error = locks.lock("x").ttl(ttl).acquire().await.unwrap_err();
        assert_eq!(kind(error), (ErrorKind::InvalidTtl, Applied::No));
    }
    let error = locks.lock("x").at_most_for(SECOND).at_least_for(2 * SECOND).acquire().await.unwrap_err();
    assert_eq!(kind(error), (ErrorKind::InvalidTtl, Applied::No));
    assert!(stage.is_free("x").await);
}

#[tokio::test]
async fn concurrent_acquires_share_requests() {
    /// Answers a group after everybody had the time to queue, and notes how large it was.
    #[derive(Debug)]
    struct Slow(MemoryLocks, Capabilities, std::sync::Mutex<Vec<usize>>);
    #[async_trait::async_trait]
    impl LockProvider for Slow {
        fn capabilities(&self) -> &Capabilities {
            &self.1
        }
        async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
            self.0.acquire(request).await
        }
        async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
            self.0.renew(request).await
        }
        async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
            self.0.release(request).await
        }
        async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
            self.0.watch(name, owner).await
        }
        async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
            self.0.inspect(name).await
        }
        async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
            self.0.list(request).await
        }
        async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
            self.0.force_release(name).await
        }
        async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
            self.2.lock().unwrap().push(requests.len());
            SystemClock.sleep_until(SystemClock.now() + Duration::from_millis(20)).await;
            let mut outcomes = Vec::new();
            for request in requests {
                outcomes.push(self.0.acquire(request).await);
            }
            outcomes
        }
    }
    let store = MemoryLocks::new();
    let mut can = store.capabilities().clone();
    can.grouping = std::num::NonZeroUsize::new(64);
    let slow = Arc::new(Slow(store, can, std::sync::Mutex::default()));
    let locks = Locks::builder_shared(slow.clone()).build();
    let tasks = (0..200).map(|number| locks.lock(format!("lock-{number}")).try_acquire());
    let guards = futures_util::future::join_all(tasks).await;
    assert!(guards.iter().all(|guard| guard.as_ref().unwrap().is_some()));
    let sizes = slow.2.lock().unwrap().clone();
    assert_eq!(sizes.iter().sum::<usize>(), 200);
    assert!(sizes.len() <= 8 && sizes.iter().all(|size| *size <= 64), "{sizes:?}");
}
