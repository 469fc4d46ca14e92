//! Holds that end where the store is slow, keeps less than it was asked, or is suspended with its client.

use std::{
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
        Stage,
        hooked::{Hooked, released, renewed},
    },
};

#[tokio::test(start_paused = true)]
async fn a_release_names_the_grant_and_the_lease_is_renewed_no_more() {
    let mut hooked = Hooked::new();
    let (tokens, renewals) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (seen, count) = (tokens.clone(), renewals.clone());
    hooked.on_release = Box::new(move |_, asked, store| {
        seen.lock().unwrap().extend(asked.iter().map(|request| request.token));
        Box::pin(released(asked, store))
    });
    hooked.on_renew = Box::new(move |_, asked, store| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(renewed(asked, store))
    });
    let (locks, clock) = hooked.locks();
    let guard = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let token = guard.token();
    guard.release().await.unwrap();
    pass(&clock, TTL).await;
    assert_eq!(*tokens.lock().unwrap(), [Some(token)]);
    assert_eq!(renewals.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn at_least_for_is_kept_by_the_process_where_the_store_can_not() {
    let mut hooked = Hooked::new();
    hooked.can.minimum_hold = KeptBy::Process;
    hooked.on_release = Box::new(|_, mut asked, store| {
        asked.iter_mut().for_each(|request| request.keep_for = Duration::ZERO);
        Box::pin(released(asked, store))
    });
    let (locks, clock) = hooked.locks();
    let begun = clock.now();
    let first = locks.lock("x").ttl(TTL).at_least_for(60 * SECOND).acquire().await.unwrap();
    assert_eq!(first.release().await.unwrap(), ReleaseOutcome::Released);
    assert_eq!(clock.now(), begun, "its holder needn't wait for that");
    let next = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let took = clock.now().since(begun);
    assert!(took >= 60 * SECOND && took < 61 * SECOND, "{took:?}");
    drop(next);
    locks.settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_at_least_for_that_no_store_keeps_is_refused_before_the_grant() {
    let stage = Stage::new();
    let error = stage.locks().lock("x").at_least_for(400 * 86400 * SECOND).acquire().await.unwrap_err();
    assert!(matches!(&error, LockError::Store(error) if error.kind() == ErrorKind::InvalidTtl), "{error:?}");
    assert_eq!(stage.asked(Operation::Acquire), 0);
}

#[tokio::test(start_paused = true)]
async fn work_is_not_polled_again_after_a_suspend_beyond_its_lease() {
    let stage = Stage::new();
    let polls = Arc::new(AtomicUsize::new(0));
    let (clock, count) = (stage.clock().clone(), polls.clone());
    let done: Result<(), _> = stage
        .locks()
        .lock("x")
        .ttl(TTL)
        .run(|_| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            clock.suspend(TTL * 2);
            tokio::task::yield_now().await;
            loop {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    assert!(matches!(done, Err(LockError::Lost(_))));
    assert_eq!(polls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn run_does_not_wait_long_for_a_release_that_takes_long() {
    let stage = Stage::new();
    let (store, begun) = (stage.clone(), stage.clock().now());
    let run = stage.locks().lock("x").ttl(60 * SECOND).run(|_| async move { store.set_down(true) });
    run.await.unwrap();
    assert!(stage.clock().now().since(begun) <= 6 * SECOND);
    stage.set_down(false);
    stage.pass(2 * SECOND).await;
    assert!(stage.is_free("x").await, "the release went on behind");
}
