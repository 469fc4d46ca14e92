//! At-most-for, panics, losses.

use std::{panic::AssertUnwindSafe, time::Duration};

use leasehold::{Clock, LossReason, prelude::*, testing::Stage, with_locks};

#[locked(name = "job", at_most_for = "2s")]
async fn too_long() {
    tokio::time::sleep(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_over_its_at_most_for_is_dropped_and_the_lock_is_free() {
    let stage = Stage::new();
    let begun = stage.clock().now();
    let outcome = with_locks(stage.locks(), too_long()).await;
    assert!(stage.is_free("job").await);
    let took = stage.clock().now().since(begun).as_secs_f64();
    assert!((2.0..2.01).contains(&took), "{took}");
    let Err(LockError::Lost(lost)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(lost.reason, LossReason::AtMostFor);
}

#[locked(name = "job", at_most_for = "2s")]
async fn asks_for_more() -> u32 {
    tokio::time::sleep(Duration::from_millis(1900)).await;
    lease!().extend_at_most(Duration::from_secs(60)).unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    7
}

#[tokio::test(start_paused = true)]
async fn a_body_may_ask_for_more() {
    assert_eq!(with_locks(Stage::new().locks(), asks_for_more()).await.unwrap(), Outcome::Ran(7));
}

#[locked(name = "job")]
async fn panics() {
    tokio::time::sleep(Duration::from_secs(1)).await;
    panic!("on purpose");
}

#[tokio::test(start_paused = true)]
async fn a_panic_goes_on_once_the_lock_is_free() {
    let stage = Stage::new();
    let work = AssertUnwindSafe(with_locks(stage.locks(), panics()));
    let task = tokio::spawn(async move {
        use futures_util::FutureExt;
        work.catch_unwind().await.map(drop).unwrap_err()
    });
    let panic = task.await.unwrap();
    assert!(stage.is_free("job").await);
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
}

#[locked(name = "job", ttl = "10s")]
async fn long() {
    tokio::time::sleep(Duration::from_secs(3600)).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_lock_is_taken_away_is_dropped() {
    let stage = Stage::new();
    let begun = stage.clock().now();
    let (outcome, taken) = tokio::join!(with_locks(stage.locks(), long()), async {
        stage.pass(Duration::from_secs(100)).await;
        stage.take_away("job").await.unwrap()
    });
    assert!(taken);
    assert!(matches!(outcome, Err(LockError::Lost(lost)) if lost.reason == LossReason::NotOurs));
    assert!(stage.clock().now().since(begun) < Duration::from_secs(104), "at the next renewal");
}
