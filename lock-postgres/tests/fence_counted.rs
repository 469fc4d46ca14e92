//! What the fence refuses is counted, once each.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::sync::Arc;

use common::{fence_of, guarded::Stage, take};
use lock_core::{
    Event, Fence, FenceError, FenceRegister, InvalidFence, LockProvider, Operation, Pass, RefusalReason, Resource,
    TestObserver, ToFence, Told, Transactions,
};
use lock_postgres::PostgresFences;

/// What was refused since this was last asked; told as of this store, and without a class.
fn refused(told: &TestObserver) -> Vec<RefusalReason> {
    let reason = |told: Told| {
        let Told { store: "postgres", class: None, event: Event::FenceRefused { reason }, .. } = told else {
            panic!("{told:?}")
        };
        reason
    };
    told.take().into_iter().map(reason).collect()
}

/// As a shared lease.
struct Nothing;

impl ToFence for Nothing {
    fn to_fence(&self) -> Result<Fence, InvalidFence> {
        "".parse()
    }
}

async fn a_register_counts_each_refusal_once() {
    let stage = Stage::new().await;
    let told = Arc::new(TestObserver::default());
    let fences = PostgresFences::builder(stage.ledger.pool.clone()).schema(&stage.place.schema).build().await.unwrap();
    let fences = fences.observer(told.clone());
    let accounts = Resource::new("accounts").unwrap();
    let fence = |text: &str| text.parse::<Fence>().unwrap();
    fences.raise(&accounts, &fence("5@x"), Pass::Again).await.unwrap();
    for (fence, pass, reason) in [
        ("4@x", Pass::Again, RefusalReason::Stale),
        ("5@x", Pass::Once, RefusalReason::Used),
        ("9@y", Pass::Again, RefusalReason::OtherLock),
    ] {
        let fence = fence.parse::<Fence>().unwrap();
        let mut tx = stage.ledger.begin("READ COMMITTED").await;
        fences.admit(&mut tx, &accounts, &fence, pass).await.unwrap_err();
        tx.rollback().await.unwrap();
        assert_eq!(refused(&told), [reason]);
        fences.raise(&accounts, &fence, pass).await.unwrap_err();
        assert_eq!(refused(&told), [reason]);
    }
    let mut tx = stage.ledger.begin("READ COMMITTED").await;
    assert!(matches!(fences.admit(&mut tx, &accounts, &Nothing, Pass::Again).await, Err(FenceError::Invalid(_))));
    assert_eq!(refused(&told), [RefusalReason::Invalid]);
    // What passes, and what fails for another reason, is none.
    fences.admit(&mut tx, &accounts, &fence("6@x"), Pass::Again).await.unwrap();
    tx.commit().await.unwrap();
    stage.ledger.pool.close().await;
    for outcome in [
        fences.raise(&accounts, &fence("7@x"), Pass::Again).await,
        fences.highest(&accounts).await.map(drop),
        fences.forget(&accounts).await.map(drop),
    ] {
        let Err(FenceError::Store(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((error.store(), error.operation()), (Some("postgres"), Some(Operation::Fence)));
    }
    assert!(refused(&told).is_empty());
    stage.clear().await;
}

async fn a_guard_counts_each_refusal_once() {
    let stage = Stage::new().await;
    let told = Arc::new(TestObserver::default());
    let transactions = stage.transactions.clone().observer(told.clone());
    let (request, grant) = take(&stage.locks, "x").await;
    let fence = fence_of(&request, grant);
    let tx = transactions.begin(&fence).await.unwrap();
    assert!(stage.locks.force_release(&request.name).await.unwrap());
    // Counted by `run_in_transaction`, with the lock's class.
    let trait_object: &dyn Transactions<Transaction = _> = &transactions;
    assert!(matches!(trait_object.commit(tx, &fence).await, Err(FenceError::NotHeld(_))));
    assert!(matches!(trait_object.begin(&fence).await, Err(FenceError::NotHeld(_))));
    assert!(refused(&told).is_empty());

    assert!(matches!(transactions.begin(&fence).await, Err(FenceError::NotHeld(_))));
    assert_eq!(refused(&told), [RefusalReason::NotHeld]);
    for isolation in common::guarded::LEVELS {
        let mut tx = stage.ledger.begin(isolation).await;
        assert!(matches!(transactions.hold(&mut tx, &fence).await, Err(FenceError::NotHeld(_))));
        tx.rollback().await.unwrap();
        assert_eq!(refused(&told), [RefusalReason::NotHeld]);
    }
    let mut tx = stage.ledger.begin("READ COMMITTED").await;
    assert!(matches!(transactions.hold(&mut tx, &Nothing).await, Err(FenceError::Invalid(_))));
    assert!(matches!(transactions.begin(&Nothing).await, Err(FenceError::Invalid(_))));
    assert_eq!(refused(&told), [RefusalReason::Invalid, RefusalReason::Invalid]);
    tx.rollback().await.unwrap();
    stage.ledger.pool.close().await;
    for outcome in [transactions.begin(&fence).await.map(drop), trait_object.begin(&fence).await.map(drop)] {
        let Err(FenceError::Store(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((error.store(), error.operation()), (Some("postgres"), Some(Operation::Fence)));
        assert_eq!(error.lock(), Some(fence.lock()));
    }
    assert!(refused(&told).is_empty());
    stage.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    a_register_counts_each_refusal_once,
    a_guard_counts_each_refusal_once,
);
