//! Work under a lock: however it ends, the lock is given back, and the end is told as it was.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

mod support;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use futures_util::FutureExt;
use lock_core::*;
use support::{Mishap, Stage};

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn at_most_for_drops_the_work_and_the_lock_is_free_when_the_call_returns() {
    for mishap in [Mishap::None, Mishap::Refused, Mishap::ReplyLost] {
        let stage = Stage::new();
        stage.next(Operation::Release, mishap);
        let (begun, worked) = (stage.clock().now(), Arc::new(()));
        let work = worked.clone();
        let outcome = stage
            .locks()
            .lock("x")
            .ttl(TTL)
            .at_most_for(2 * SECOND)
            .run(|_| async move {
                tokio::time::sleep(10 * SECOND).await;
                drop(work);
            })
            .await;
        assert!(stage.is_free("x").await, "{mishap:?}");
        let took = stage.clock().now().since(begun);
        assert!((2.0..2.1).contains(&took.as_secs_f64()), "{took:?}");
        assert!(matches!(&outcome, Err(LockError::Lost(lost)) if lost.reason == LossReason::AtMostFor), "{outcome:?}");
        assert_eq!(Arc::strong_count(&worked), 1, "the work is gone");
    }
}

#[tokio::test(start_paused = true)]
async fn work_can_ask_for_more_time() {
    let stage = Stage::new();
    let lock = stage.locks().lock("x").ttl(TTL).at_most_for(15 * SECOND);
    let done = lock.run(|lease| async move {
        tokio::time::sleep(14 * SECOND).await;
        lease.extend_at_most(30 * SECOND).unwrap();
        tokio::time::sleep(30 * SECOND).await;
        lease.is_valid()
    });
    assert!(done.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_panic_goes_on_after_the_lock_was_given_back() {
    let stage = Stage::new();
    for early in [true, false] {
        let work = stage.locks().lock("x").ttl(TTL).run(move |_| {
            assert!(!early, "on purpose");
            async { panic!("on purpose") }
        });
        let panic = AssertUnwindSafe(work).catch_unwind().await.map(|_: Result<(), _>| ()).unwrap_err();
        assert!(stage.is_free("x").await);
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_skipped_says_who_holds_it() {
    let stage = Stage::new();
    let _other = stage.hold("x").await.unwrap();
    let outcome = stage.locks().lock("x").no_wait().run_or_skip(|_| async {}).await.unwrap();
    let Some(Skipped::Held(busy)) = outcome.skipped() else { panic!("{outcome:?}") };
    assert_eq!(busy.held.holder.as_ref().unwrap().label, "another node");
    stage.set_down(true);
    assert!(matches!(stage.locks().lock("x").no_wait().run_or_skip(|_| async {}).await, Err(LockError::Store(_))));
}

#[tokio::test]
async fn blocking_work_notices_the_loss_at_its_next_check_and_the_call_says_so() {
    let locks = Locks::new(MemoryLocks::new());
    let provider = locks.provider().clone();
    let (entered, wait) = (Arc::new(tokio::sync::Notify::new()), mpsc::channel::<()>());
    let inside = entered.clone();
    let work = locks.lock("x").ttl(Duration::from_millis(300)).run_blocking(move |lease| {
        inside.notify_one();
        wait.1.recv().unwrap();
        lease.check().unwrap_err().reason
    });
    let (outcome, ()) = tokio::join!(work, async {
        entered.notified().await;
        let name = LockName::new("x").unwrap();
        let LockState::Held(holding) = provider.inspect(&name).await.unwrap().unwrap().state else {
            panic!("not held")
        };
        provider.release(&ReleaseRequest::new(name, holding.owner, Some(holding.token))).await.unwrap();
        // The next renewal tells. A later holder's grant comes after that, or after the deadline.
        tokio::time::sleep(Duration::from_millis(400)).await;
        wait.0.send(()).unwrap();
    });
    assert!(matches!(outcome, Err(LockError::Lost(lost)) if lost.reason == LossReason::NotOurs));
}

#[tokio::test]
async fn blocking_work_keeps_its_lock_when_the_call_is_dropped() {
    let locks = Locks::new(MemoryLocks::new());
    let (entered, wait) = (Arc::new(tokio::sync::Notify::new()), mpsc::channel::<()>());
    let inside = entered.clone();
    let work = locks.lock("x").run_blocking(move |_| {
        inside.notify_one();
        wait.1.recv().unwrap();
    });
    tokio::select! {
        _ = work => panic!("it waits"),
        () = entered.notified() => {}
    }
    assert!(locks.lock("x").try_acquire().await.unwrap().is_none(), "the thread still works");
    wait.0.send(()).unwrap();
    locks.settled().await;
    assert!(locks.lock("x").try_acquire().await.unwrap().is_some());
}

#[test]
fn a_thread_that_comes_late_does_not_begin_under_a_dead_lease() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (release, wait) = mpsc::channel::<()>();
    let began = Arc::new(AtomicBool::new(false));
    let outcome = runtime.block_on(async {
        // The only thread there is.
        let occupied = tokio::task::spawn_blocking(move || wait.recv());
        let locks = Locks::new(MemoryLocks::new());
        let begins = began.clone();
        let work = locks
            .lock("x")
            .at_most_for(Duration::from_millis(100))
            .run_blocking(move |_| begins.store(true, Ordering::SeqCst));
        let (outcome, ()) = tokio::join!(work, async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            release.send(()).unwrap();
        });
        occupied.await.unwrap().unwrap();
        outcome
    });
    assert!(matches!(&outcome, Err(LockError::Lost(lost)) if lost.reason == LossReason::AtMostFor), "{outcome:?}");
    assert!(!began.load(Ordering::SeqCst));
}

#[test]
fn work_that_has_not_begun_when_its_caller_goes_does_not_begin() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (release, wait) = mpsc::channel::<()>();
    let began = Arc::new(AtomicBool::new(false));
    runtime.block_on(async {
        let occupied = tokio::task::spawn_blocking(move || wait.recv());
        let (locks, begins) = (Locks::new(MemoryLocks::new()), began.clone());
        let mut work = Box::pin(locks.lock("x").run_blocking(move |_| begins.store(true, Ordering::SeqCst)));
        while locks.lock("x").no_wait().try_acquire().await.unwrap().is_some() {
            assert!(work.as_mut().now_or_never().is_none());
        }
        assert!(work.as_mut().now_or_never().is_none());
        drop(work);
        release.send(()).unwrap();
        occupied.await.unwrap().unwrap();
        locks.settled().await;
        assert!(locks.lock("x").try_acquire().await.unwrap().is_some());
    });
    assert!(!began.load(Ordering::SeqCst));
}

#[tokio::test]
async fn blocking_work_that_panics_after_the_loss_panics_all_the_same() {
    let locks = Locks::new(MemoryLocks::new());
    let work = locks.lock("x").at_most_for(Duration::from_millis(20)).run_blocking(|lease| {
        while lease.check().is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("on purpose")
    });
    let panic = AssertUnwindSafe(work).catch_unwind().await.map(|_: Result<(), _>| ()).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
}

#[tokio::test]
async fn blocking_work_that_panics_releases_and_the_panic_goes_on() {
    let locks = Locks::new(MemoryLocks::new());
    let work = locks.lock("x").run_blocking(|_| panic!("on purpose"));
    let panic = AssertUnwindSafe(work).catch_unwind().await.map(|_: Result<(), _>| ()).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    assert!(locks.lock("x").try_acquire().await.unwrap().is_some());
}

#[tokio::test]
async fn blocking_work_can_see_its_lease() {
    let locks = Locks::new(MemoryLocks::new());
    let (told, seen) = locks.lock("x").run_blocking(|lease| (lease.token(), current().unwrap().token())).await.unwrap();
    assert_eq!(told, seen);
}
