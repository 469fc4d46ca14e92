//! Work within work: what joins a lease, what doesn't, and what a share keeps.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

mod support;

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use lock_core::*;
use support::Stage;

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn lock(locks: &Locks) -> Lock {
    locks.lock("x").ttl(TTL).no_wait().reentrant()
}

#[tokio::test(start_paused = true)]
async fn work_of_the_same_name_joins_without_a_request() {
    let stage = Stage::new();
    let locks = stage.locks();
    let (outer, inner) = lock(&locks)
        .run(|outer| async move {
            // Through another lock, and a clone of the client.
            let locks = locks.clone();
            let between = locks.lock("y").ttl(TTL);
            let inner = between.run(|_| async move { lock(&locks).run(|inner| async move { inner.token() }).await });
            (outer.token(), inner.await.unwrap().unwrap())
        })
        .await
        .unwrap();
    assert_eq!(outer, inner);
    assert_eq!((stage.asked(Operation::Acquire), stage.asked(Operation::Release)), (2, 2), "of two locks");
}

#[tokio::test(start_paused = true)]
async fn another_task_another_client_and_who_did_not_ask_are_second_owners() {
    let stage = Stage::new();
    let locks = stage.locks();
    let other_client = stage.locks();
    lock(&locks.clone())
        .run(|_| async {
            let busy =
                |outcome: Outcome<()>| assert!(matches!(outcome.skipped(), Some(Skipped::Held(_))), "{outcome:?}");
            let task = tokio::spawn(lock(&locks).run_or_skip(|_| async {}));
            busy(task.await.unwrap().unwrap());
            busy(lock(&other_client).run_or_skip(|_| async {}).await.unwrap());
            busy(locks.lock("x").no_wait().run_or_skip(|_| async {}).await.unwrap());
        })
        .await
        .unwrap();
    let _guard = lock(&locks).acquire().await.unwrap();
    let outcome = lock(&locks).run_or_skip(|_| async {}).await.unwrap();
    assert!(outcome.skipped().is_some(), "a guard that is merely held is nothing that work runs under");
}

#[tokio::test(start_paused = true)]
async fn joined_work_has_an_at_most_for_of_its_own() {
    let stage = Stage::new();
    let locks = stage.locks();
    let begun = stage.clock().now();
    let (inner, still_held) = lock(&locks)
        .run(|outer| async move {
            let inner = lock(&locks).at_most_for(SECOND).run(|_| tokio::time::sleep(60 * SECOND)).await;
            (inner, outer.is_valid())
        })
        .await
        .unwrap();
    assert!(matches!(inner, Err(LockError::Lost(lost)) if lost.reason == LossReason::AtMostFor));
    assert!(still_held);
    assert!(stage.clock().now().since(begun) < 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn joined_work_that_asks_for_more_moves_its_own_end_and_not_the_outer_ones() {
    let stage = Stage::new();
    let locks = stage.locks();
    let begun = stage.clock().now();
    let outcome = lock(&locks.clone())
        .at_most_for(20 * SECOND)
        .run(|_| async move {
            let inner = lock(&locks).at_most_for(2 * SECOND).run(|lease| async move {
                lease.extend_at_most(3 * SECOND).unwrap();
                tokio::time::sleep(4 * SECOND).await;
                current().unwrap().extend_at_most(60 * SECOND).unwrap();
                tokio::time::sleep(60 * SECOND).await;
            });
            inner.await.unwrap_err()
        })
        .await;
    assert!(matches!(outcome, Err(LockError::Lost(lost)) if lost.reason == LossReason::AtMostFor));
    assert_eq!(stage.clock().now().since(begun).as_secs(), 20, "the outer end stayed where it was");
}

#[tokio::test]
async fn blocking_work_that_joins_has_its_own_at_most_for() {
    let locks = Locks::new(MemoryLocks::new());
    let (inner, outer) = lock(&locks.clone())
        .run(|outer| async move {
            let work = |lease: Lease| {
                while lease.check().is_ok() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            (lock(&locks).at_most_for(Duration::from_millis(20)).run_blocking(work).await, outer.is_valid())
        })
        .await
        .unwrap();
    assert!(matches!(inner, Err(LockError::Lost(lost)) if lost.reason == LossReason::AtMostFor));
    assert!(outer);
}

#[tokio::test(start_paused = true)]
async fn joined_work_sees_the_lease_it_joined_and_not_the_innermost() {
    let stage = Stage::new();
    let locks = stage.locks();
    lock(&locks.clone())
        .run(|outer| async move {
            let between = locks.lock("y").ttl(TTL);
            let joined = between.run(|_| lock(&locks).run(|_| async { current().unwrap().owner() }));
            assert_eq!(joined.await.unwrap().unwrap(), outer.owner());
        })
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn joined_work_that_could_not_be_had_alone_is_refused_as_well() {
    let locks = Stage::new().locks();
    let outcome = lock(&locks.clone())
        .run(|_| async move { lock(&locks).at_most_for(Duration::ZERO).run(|_| async {}).await })
        .await
        .unwrap();
    assert!(matches!(outcome, Err(LockError::Store(error)) if error.kind() == ErrorKind::InvalidTtl));
}

#[tokio::test(start_paused = true)]
async fn joined_work_is_dropped_with_the_lease_it_joined() {
    let stage = Stage::new();
    let locks = stage.locks();
    let outcome = lock(&locks.clone())
        .at_most_for(SECOND)
        .run(|_| async move { lock(&locks).run(|_| tokio::time::sleep(60 * SECOND)).await })
        .await;
    assert!(matches!(outcome, Err(LockError::Lost(lost)) if lost.reason == LossReason::AtMostFor));
}

#[tokio::test(start_paused = true)]
async fn the_same_tick_joins_and_another_is_refused_instead_of_waiting_for_itself() {
    let stage = Stage::new();
    let locks = stage.locks();
    let of = |locks: &Locks, tick| locks.lock("x").ttl(TTL).reentrant().tick(Tick(tick));
    of(&locks, 5)
        .run(|_| async {
            of(&locks, 5).run(|_| async {}).await.unwrap();
            let other = of(&locks, 6).run(|_| async {}).await;
            assert!(
                matches!(&other, Err(LockError::Store(error)) if error.kind() == ErrorKind::InvalidConfig),
                "{other:?}"
            );
        })
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_share_gives_the_lock_back() {
    let stage = Stage::new();
    let guard = stage.locks().lock("x").ttl(TTL).acquire().await.unwrap();
    let (first, second) = (guard.share(), guard.share());
    assert_eq!(first.token(), guard.token());
    assert_eq!(guard.release().await.unwrap(), ReleaseOutcome::StillShared);
    drop(first);
    stage.pass(TTL * 3).await;
    assert!(second.is_valid() && !stage.is_free("x").await);
    assert_eq!(second.release().await.unwrap(), ReleaseOutcome::Released);
    assert!(stage.is_free("x").await);
}

#[tokio::test]
async fn blocking_work_that_joined_keeps_the_lock_when_its_caller_has_gone() {
    let locks = Locks::new(MemoryLocks::new());
    let (entered, wait) = (Arc::new(tokio::sync::Notify::new()), mpsc::channel::<()>());
    let (inside, inner) = (entered.clone(), locks.clone());
    let outer = lock(&locks).run(|_| async move {
        let work = move |lease: Lease| {
            inside.notify_one();
            wait.1.recv().unwrap();
            lease.check()
        };
        lock(&inner).run_blocking(work).await
    });
    tokio::select! {
        _ = outer => panic!("it waits"),
        () = entered.notified() => {}
    }
    assert!(locks.lock("x").try_acquire().await.unwrap().is_none(), "the thread still works");
    wait.0.send(()).unwrap();
    locks.settled().await;
    assert!(locks.lock("x").try_acquire().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn work_knows_what_it_is_under() {
    let locks = Stage::new().locks();
    assert!(current().is_none());
    locks
        .lock("x")
        .run(|outer| {
            let locks = &locks;
            async move {
                assert_eq!(current().unwrap().token(), outer.token());
                locks
                    .lock("y")
                    .run(|inner| async move {
                        assert_eq!(current().unwrap().owner(), inner.owner());
                        assert_eq!(assert_locked("x").owner(), outer.owner());
                    })
                    .await
                    .unwrap();
                assert_eq!(current().unwrap().name().as_str(), "x");
                assert!(tokio::spawn(async { current().is_none() }).await.unwrap());
            }
        })
        .await
        .unwrap();
    assert!(current().is_none());
}

#[tokio::test(start_paused = true)]
#[should_panic = "this code must run under the lock \"y\", and doesn't"]
async fn code_that_needs_a_lock_says_so() {
    let locks = Stage::new().locks();
    locks.lock("x").run(|_| async { _ = assert_locked("y") }).await.unwrap();
}

#[tokio::test(start_paused = true)]
#[should_panic = "must run under the lock \"x\": the lease of \"x\""]
async fn code_that_needs_a_lock_is_not_content_with_a_lease_that_ended() {
    let stage = Stage::new();
    let work = stage.locks().lock("x").ttl(TTL).run(|_| async {
        stage.clock().suspend(TTL);
        _ = assert_locked("x");
    });
    work.await.unwrap();
}
