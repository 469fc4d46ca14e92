//! Transactions in which a grant holds its lock: nobody else is granted it before their end, and who doesn't hold it is
//! refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{
    COLLECTION, Place, give_back,
    guarded::{begun, count, data, fence, kind, take_for, transactions},
    name, pass, seconds, take,
};
use lock_core::{
    Applied, Clock, ErrorKind, Fence, FenceError, Grant, InvalidFence, LockProvider, Locks, Pass, RefusalReason,
    ReleaseRequest, Released, Resource, SystemClock, TestObserver, ToFence, Transactions,
};
use lock_mongo::{MongoFences, MongoLocks, MongoTransactions};
use mongodb::bson::{Bson, DateTime, doc};

async fn a_transaction_open_beyond_its_lease_delays_a_take_over_until_it_ends() {
    let place = Place::new().await;
    let (transactions, data) = (transactions(&place), data(&place).await);
    for commits in [true, false] {
        let lock = if commits { "commits" } else { "undone" };
        let locks = place.builder().grace(Duration::ZERO).build().await.unwrap();
        let start = SystemClock.now();
        let (request, grant) = take_for(&locks, lock, seconds(1)).await;
        let mut session = begun(&place, &transactions).await;
        transactions.hold(&mut session, &fence(&request, grant)).await.unwrap();
        data.insert_one(doc! { "_id": lock }).session(&mut session).await.unwrap();
        let waits = Locks::new(place.builder().grace(Duration::ZERO).build().await.unwrap());
        let waiting = tokio::spawn({
            let lock = waits.lock(lock).ttl(seconds(10));
            async move { (lock.acquire().await, SystemClock.now()) }
        });
        // Nor by force, nor by its owner.
        let by_force = tokio::spawn({
            let (locks, lock) = (locks.clone(), name(lock));
            async move { (locks.force_release(&lock).await, SystemClock.now()) }
        });
        SystemClock.sleep_until(start + seconds(3)).await;
        assert!(!waiting.is_finished() && !by_force.is_finished());
        let ending = SystemClock.now();
        if commits {
            session.commit_transaction().await.unwrap();
        } else {
            session.abort_transaction().await.unwrap();
        }
        let (next, at) = waiting.await.unwrap();
        let next = next.unwrap();
        println!(
            "{lock}: lease over at +1 s, transaction ended from +{:?} on, the other was granted the lock at +{:?}",
            ending.since(start),
            at.since(start)
        );
        assert!(at >= ending && next.token() > grant.token);
        let (forced, at) = by_force.await.unwrap();
        forced.unwrap();
        assert!(at >= ending);
        // The one before is refused from now on.
        let mut late = begun(&place, &transactions).await;
        let error = transactions.hold(&mut late, &fence(&request, grant)).await.unwrap_err();
        assert!(matches!(error, FenceError::NotHeld(_)), "{error}");
        drop(next);
    }
    assert_eq!(count(&data).await, 1);
    assert!(data.find_one(doc! { "_id": "commits" }).await.unwrap().is_some());
    place.clear().await;
}

async fn who_does_not_hold_the_lock_is_refused_and_nothing_is_kept() {
    let place = Place::new().await;
    let (transactions, data) = (transactions(&place), data(&place).await);
    let locks = place.builder().grace(Duration::ZERO).build().await.unwrap();
    let grant_of = |token| Grant::new(lock_core::FencingToken::new(token), seconds(1));

    let (free, _) = take(&locks, "other").await;
    let (released, given_back) = take(&locks, "released").await;
    locks.release(&give_back(&released, given_back)).await.unwrap();
    let (kept, kept_grant) = take(&locks, "kept").await;
    let keeps = ReleaseRequest { keep_for: seconds(60), ..give_back(&kept, kept_grant) };
    assert_eq!(locks.release(&keeps).await.unwrap(), Released::Released);
    let (taken, old) = take_for(&locks, "taken", Duration::from_millis(100)).await;
    let (expired, over) = take_for(&locks, "expired", Duration::from_millis(100)).await;
    pass(Duration::from_millis(250)).await;
    let (_, new) = take(&locks, "taken").await;
    let records = place.records();
    for (lock, token, expires_at) in [
        ("no-time", Bson::Int64(7), Bson::MaxKey),
        ("no-number", "7".into(), DateTime::MAX.into()),
        ("a-fraction", 7.0.into(), DateTime::MAX.into()),
        ("many", vec![Bson::Int64(7)].into(), DateTime::MAX.into()),
    ] {
        let record = doc! { "_id": lock, "owner": "0".repeat(32), "token": token, "expires_at": expires_at };
        records.insert_one(record).await.unwrap();
    }
    for (lock, grant) in [
        ("never-seen", old),
        ("other", new),
        ("released", given_back),
        ("kept", kept_grant),
        ("expired", over),
        ("taken", old),
        ("taken", grant_of(new.token.get() + 1)),
        ("no-time", grant_of(7)),
        ("no-number", grant_of(7)),
        ("a-fraction", grant_of(7)),
        ("many", grant_of(7)),
    ] {
        let before = place.record(lock).await;
        let fence = Fence::new(name(lock), grant.token).unwrap();
        let mut session = begun(&place, &transactions).await;
        data.insert_one(doc! { "_id": "before" }).session(&mut session).await.unwrap();
        let error = transactions.hold(&mut session, &fence).await.unwrap_err();
        assert!(matches!(error, FenceError::NotHeld(_)), "{lock}: {error}");
        // Whoever doesn't heed it keeps nothing all the same.
        data.insert_one(doc! { "_id": "after" }).session(&mut session).await.unwrap_err();
        session.commit_transaction().await.unwrap_err();
        assert!(matches!(transactions.begin(&fence).await, Err(FenceError::NotHeld(_))), "{lock}");
        assert_eq!(place.record(lock).await, before, "{lock}");
    }
    assert_eq!(count(&data).await, 0);
    assert_eq!(place.record("never-seen").await, None);
    drop((free, taken, expired));
    place.clear().await;
}

async fn a_transaction_that_read_before_a_take_over_is_not_let_through_after_it() {
    let place = Place::new().await;
    let (transactions, data) = (transactions(&place), data(&place).await);
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let mut session = begun(&place, &transactions).await;
    data.find_one(doc! {}).session(&mut session).await.unwrap();
    assert!(locks.force_release(&name("x")).await.unwrap());
    let (next, next_grant) = take(&locks, "x").await;
    // As its snapshot has it, the lock is held.
    let error = transactions.hold(&mut session, &fence(&request, grant)).await.unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::Contention), "{error}");
    session.commit_transaction().await.unwrap_err();
    // And from before the grant it doesn't see that one.
    let mut session = begun(&place, &transactions).await;
    data.find_one(doc! {}).session(&mut session).await.unwrap();
    assert_eq!(locks.release(&give_back(&next, next_grant)).await.unwrap(), Released::Released);
    let (next, next_grant) = take(&locks, "x").await;
    let error = transactions.hold(&mut session, &fence(&next, next_grant)).await.unwrap_err();
    assert!(matches!(error, FenceError::NotHeld(_)), "{error}");
    place.clear().await;
}

async fn without_a_transaction_nothing_is_held() {
    let place = Place::new().await;
    let (transactions, locks) = (transactions(&place).collection(COLLECTION), place.locks().await);
    let (request, grant) = take(&locks, "x").await;
    let before = place.record("x").await;
    let mut session = place.client.start_session().await.unwrap();
    let error = transactions.hold(&mut session, &fence(&request, grant)).await.unwrap_err();
    assert_eq!((kind(&error), error.applied()), (Some(ErrorKind::Other), Applied::No), "{error}");
    assert!(error.to_string().contains("start_transaction"), "{error}");
    assert_eq!(place.record("x").await, before);
    place.clear().await;

    let place = Place::standalone().await;
    let (transactions, locks) = (transactions_of(&place.locks().await), place.locks().await);
    let (request, grant) = take(&locks, "x").await;
    let error = transactions.begin(&fence(&request, grant)).await.unwrap_err();
    assert_eq!((kind(&error), error.applied()), (Some(ErrorKind::Unsupported), Applied::No), "{error}");
    println!("{error}");
    place.clear().await;
}

/// What it committed is there, though nobody is told so by the transaction's end.
async fn work_that_ends_its_transaction_itself_is_told_as_unknown() {
    let place = Place::new().await;
    let (transactions, data, locks) = (transactions(&place), data(&place).await, place.locks().await);
    let (request, grant) = take(&locks, "x").await;
    let fence = fence(&request, grant);
    let mut written = 0;
    for commits in [true, false] {
        for goes_on in [true, false] {
            for rolled_back in [true, false] {
                let mut session = transactions.begin(&fence).await.unwrap();
                data.insert_one(doc! {}).session(&mut session).await.unwrap();
                if commits {
                    session.commit_transaction().await.unwrap();
                    written += 1;
                } else {
                    session.abort_transaction().await.unwrap();
                }
                if goes_on {
                    data.insert_one(doc! {}).session(&mut session).await.unwrap();
                    written += 1;
                }
                let error = if rolled_back {
                    transactions.roll_back(session).await.unwrap_err()
                } else {
                    match transactions.commit(session, &fence).await {
                        Err(FenceError::Store(error)) => error,
                        other => panic!("{other:?}"),
                    }
                };
                assert_eq!((error.kind(), error.applied()), (ErrorKind::Other, Applied::Maybe), "{error}");
                assert_eq!(count(&data).await, written);
            }
        }
    }
    place.clear().await;
}

/// What is no fence, as a shared lease would be.
struct Nothing;

impl ToFence for Nothing {
    fn to_fence(&self) -> Result<Fence, InvalidFence> {
        "5@".parse()
    }
}

async fn what_is_no_fence_undoes_the_transaction_as_well() {
    let place = Place::new().await;
    let (transactions, data) = (transactions(&place), data(&place).await);
    for first in [true, false] {
        let mut session = begun(&place, &transactions).await;
        if !first {
            data.insert_one(doc! { "_id": "before" }).session(&mut session).await.unwrap();
        }
        let error = transactions.hold(&mut session, &Nothing).await.unwrap_err();
        assert!(matches!(error, FenceError::Invalid(_)), "{error}");
        data.insert_one(doc! { "_id": "after" }).session(&mut session).await.unwrap_err();
        session.commit_transaction().await.unwrap_err();
        assert_eq!(count(&data).await, 0);
    }
    place.clear().await;
}

/// By the guard and by the register; but what [`Transactions`] refuses, which their caller counts.
async fn a_refusal_is_told_once_with_its_reason() {
    let (place, told) = (Place::new().await, Arc::new(TestObserver::default()));
    let transactions = transactions(&place).observer(told.clone());
    let fences = MongoFences::connect(&place.url).await.unwrap().observer(told.clone());
    let (never, list): (Fence, _) = ("5@never".parse().unwrap(), Resource::new("list").unwrap());
    for (reason, by_register) in
        [(RefusalReason::NotHeld, false), (RefusalReason::Invalid, false), (RefusalReason::Invalid, true)]
    {
        let mut session = begun(&place, &transactions).await;
        let refused = match (reason, by_register) {
            (RefusalReason::NotHeld, _) => transactions.hold(&mut session, &never).await,
            (_, false) => transactions.hold(&mut session, &Nothing).await,
            (_, true) => fences.admit(&mut session, &list, &Nothing, Pass::Again).await,
        };
        assert_eq!(refused.unwrap_err().reason(), Some(reason));
        assert_eq!(told.refusals(), [reason]);
    }
    for reason in [None, Some(RefusalReason::Used)] {
        let mut session = begun(&place, &transactions).await;
        let admitted = fences.admit(&mut session, &list, &never, Pass::Once).await;
        assert_eq!(admitted.is_ok(), reason.is_none(), "{admitted:?}");
        assert_eq!(told.refusals(), Vec::from_iter(reason));
        if reason.is_none() {
            session.commit_transaction().await.unwrap();
        }
    }
    transactions.begin(&never).await.map(drop).unwrap_err();
    assert_eq!(told.refusals(), []);
    place.clear().await;
}

fn transactions_of(locks: &MongoLocks) -> MongoTransactions {
    let transactions = locks.transactions().unwrap();
    assert!(!format!("{transactions:?}").contains(common::PASSWORD));
    transactions
}

testbed::server_tests!(testbed::mongo =>
    a_transaction_open_beyond_its_lease_delays_a_take_over_until_it_ends,
    who_does_not_hold_the_lock_is_refused_and_nothing_is_kept,
    a_transaction_that_read_before_a_take_over_is_not_let_through_after_it,
    without_a_transaction_nothing_is_held,
    work_that_ends_its_transaction_itself_is_told_as_unknown,
    what_is_no_fence_undoes_the_transaction_as_well,
    a_refusal_is_told_once_with_its_reason,
);
