//! Stores that fail, answer late or tell too little while somebody waits for a lock.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lock_core::*;

use crate::{
    SECOND, TTL, pass,
    support::{
        Mishap, Stage,
        hooked::{Hooked, acquired},
    },
};

#[tokio::test(start_paused = true)]
async fn the_time_to_wait_is_honoured_by_attempts_after_a_failure_too() {
    let stage = Stage::new();
    stage.next(Operation::Acquire, Mishap::Refused);
    stage.next(Operation::Acquire, Mishap::Late(60 * SECOND));
    let begun = stage.clock().now();
    let waited = stage.locks().lock("x").ttl(TTL).wait_at_most(Duration::from_millis(5)).acquire().await;
    assert!(waited.is_err());
    assert!(stage.clock().now().since(begun) < SECOND, "{:?}", stage.clock().now().since(begun));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_forgives_a_late_answer_after_an_outage() {
    let stage = Stage::new();
    let locks = stage.locks();
    stage.set_down(true);
    let waiter = tokio::spawn(async move { locks.lock("x").ttl(TTL).acquire().await });
    stage.pass(5 * SECOND).await;
    stage.next(Operation::Acquire, Mishap::Late(TTL));
    stage.set_down(false);
    assert!(waiter.await.unwrap().unwrap().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_only_ever_says_at_once_is_not_asked_all_the_time() {
    let mut hooked = Hooked::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    hooked.on_acquire = Box::new(move |_, _, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { vec![Ok(Acquired::Held(Held { remaining: Some(Duration::ZERO), ..Held::default() }))] })
    });
    let (locks, _) = hooked.locks();
    locks.lock("x").ttl(TTL).wait_at_most(TTL).acquire().await.unwrap_err();
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 20, "{asked} requests in 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_release_between_the_first_look_and_the_subscription_is_not_missed() {
    let mut hooked = Hooked::new();
    let seen: Arc<Mutex<Vec<Waiting>>> = Arc::default();
    let (waiting, store) = (seen.clone(), hooked.store.clone());
    let held = AcquireRequest::new(LockName::new("x").unwrap(), OwnerId::from_u128(1), 3600 * SECOND);
    hooked.on_acquire = Box::new(move |call, asked, store| {
        waiting.lock().unwrap().push(asked[0].waiting);
        let held = ReleaseRequest::new(held.name.clone(), held.owner, None);
        Box::pin(async move {
            let answers = acquired(asked, store.clone()).await;
            if call == 0 {
                // The holder goes while the answer is on its way, before anybody has subscribed.
                store.release(&held).await.unwrap();
            }
            answers
        })
    });
    let held = AcquireRequest::new(LockName::new("x").unwrap(), OwnerId::from_u128(1), 3600 * SECOND);
    store.acquire(&held).await.unwrap();
    let (locks, clock) = hooked.locks();
    let begun = clock.now();
    let guard = locks.lock("x").ttl(3600 * SECOND).acquire().await.unwrap();
    assert!(guard.is_valid() && clock.now().since(begun) < SECOND, "{:?}", clock.now().since(begun));
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], Waiting::No, "who may get it at once leaves no mark");
    assert!(matches!(seen[1], Waiting::Wake(span) if span > 3600 * SECOND), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_up_while_the_store_is_asked_once_more_is_told_as_what_it_said_last() {
    let mut hooked = Hooked::new();
    hooked.can.wake = Wake::Poll(Duration::from_millis(100));
    let clock = hooked.clock.clone();
    hooked.on_acquire = Box::new(move |call, asked, store| {
        let clock = clock.clone();
        Box::pin(async move {
            if call > 1 {
                pass(&clock, 60 * SECOND).await;
            }
            acquired(asked, store).await
        })
    });
    let (locks, clock) = hooked.locks();
    let held = locks.lock("x").ttl(TTL).label("the first").acquire().await.unwrap();
    let begun = clock.now();
    let error = locks.lock("x").wait_at_most(SECOND).acquire().await.unwrap_err();
    assert!(
        matches!(&error, LockError::Busy(busy) if busy.held.holder.as_ref().unwrap().label == "the first"),
        "{error:?}"
    );
    assert!(clock.now().since(begun) < SECOND + Duration::from_millis(5));
    drop(held);
}

#[tokio::test]
async fn a_panic_in_a_provider_strands_nobody() {
    let mut hooked = Hooked::new();
    hooked.can.grouping = NonZeroUsize::new(8);
    hooked.on_acquire = Box::new(|call, asked, store| {
        Box::pin(async move {
            SystemClock.sleep_until(SystemClock.now() + Duration::from_millis(20)).await;
            assert!(call >= 2, "a driver's bug");
            acquired(asked, store).await
        })
    });
    let (locks, _) = hooked.locks();
    let wishes = (0..40).map(|number| locks.lock(format!("lock-{number}")).try_acquire());
    let answers = tokio::time::timeout(5 * SECOND, futures_util::future::join_all(wishes)).await.unwrap();
    let granted = answers.iter().filter(|answer| matches!(answer, Ok(Some(_)))).count();
    assert!(granted >= 24, "those behind the two groups that panicked: {granted}");
}
