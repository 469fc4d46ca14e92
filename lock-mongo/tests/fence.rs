//! Transactions in which a grant holds its lock: nobody else is granted it before their end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{COLLECTION, Place, again, ask, give_back, granted, name, pass, seconds, take};
use lock_core::{
    AcquireRequest, Acquired, Applied, Clock, ErrorKind, Fence, FenceError, Grant, InvalidFence, LockError,
    LockProvider, Locks, ReleaseRequest, Released, Renewed, SystemClock, ToFence, TransactionError, Transactions,
};
use lock_mongo::{MongoLocks, MongoTransactions};
use mongodb::{
    ClientSession, Collection,
    bson::{Bson, DateTime, Document, doc},
};

fn fence(request: &AcquireRequest, grant: Grant) -> Fence {
    Fence::new(request.name.clone(), grant.token).unwrap()
}

fn transactions(place: &Place) -> MongoTransactions {
    MongoTransactions::new(place.client.clone()).database(place.database.name())
}

async fn data(place: &Place) -> Collection<Document> {
    place.database.create_collection("data").await.unwrap();
    place.database.collection("data")
}

async fn count(data: &Collection<Document>) -> u64 {
    data.count_documents(doc! {}).await.unwrap()
}

async fn begun(place: &Place, transactions: &MongoTransactions) -> ClientSession {
    let mut session = place.client.start_session().await.unwrap();
    session.start_transaction().with_options(transactions.options()).await.unwrap();
    session
}

/// A grant that nobody renews.
async fn take_for(locks: &MongoLocks, lock: &str, ttl: Duration) -> (AcquireRequest, Grant) {
    let request = ask(lock, ttl);
    let grant = granted(locks.acquire(&request).await.unwrap());
    (request, grant)
}

fn kind(error: &FenceError) -> Option<ErrorKind> {
    if let FenceError::Store(error) = error { Some(error.kind()) } else { None }
}

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

/// The server's clock is that of the command, and not of the transaction's beginning.
async fn a_lease_that_ends_in_the_middle_undoes_what_run_in_transaction_would_commit() {
    let place = Place::new().await;
    let (transactions, data) = (transactions(&place), data(&place).await);
    let locks = place.locks().await;
    for (ttl, holds) in [(seconds(10), true), (seconds(1), false)] {
        let lock = format!("{ttl:?}");
        let (request, grant) = take_for(&locks, &lock, ttl).await;
        let fence = fence(&request, grant);
        let mut session = transactions.begin(&fence).await.unwrap();
        data.insert_one(doc! { "_id": &lock }).session(&mut session).await.unwrap();
        pass(Duration::from_millis(1200)).await;
        let committed = transactions.commit(session, &fence).await;
        assert_eq!(committed.is_ok(), holds);
        if let Err(error) = committed {
            assert!(matches!(error, FenceError::NotHeld(_)), "{error}");
        }
        assert_eq!(data.find_one(doc! { "_id": &lock }).await.unwrap().is_some(), holds);
    }
    place.clear().await;
}

async fn renewals_wait_for_the_transaction_and_others_in_their_group_do_not_wait_as_long() {
    let place = Place::new().await;
    let (transactions, locks) = (transactions(&place), place.locks().await);
    let (guarded, grant) = take(&locks, "guarded").await;
    let (second, second_grant) = take(&locks, "second").await;
    let (third, third_grant) = take(&locks, "third").await;
    let timed = async |requests: Vec<_>| {
        let answers = locks.renew_many(&requests).await;
        (answers, SystemClock.now())
    };
    for group in [false, true] {
        let mut session = transactions.begin(&fence(&guarded, grant)).await.unwrap();
        let start = SystemClock.now();
        let mut requests = vec![again(&guarded, grant)];
        if group {
            requests.extend([again(&second, second_grant), again(&third, third_grant)]);
        }
        let renewing = async {
            let (answers, at) = timed(requests.clone()).await;
            assert!(answers.iter().all(|answer| *answer.as_ref().unwrap() == Renewed::Held(seconds(30))));
            at
        };
        let others = async {
            // In the middle of it the server knows of the others' renewal, which has gone alone.
            if group {
                let before = place.record("third").await.unwrap();
                while place.record("third").await.unwrap() == before {
                    pass(Duration::from_millis(10)).await;
                }
                println!("another lease of the group was renewed after {:?}", SystemClock.now().since(start));
                assert!(SystemClock.now().since(start) < seconds(2));
            } else {
                pass(seconds(1)).await;
            }
            pass(seconds(1)).await;
            let ending = SystemClock.now();
            session.commit_transaction().await.unwrap();
            ending
        };
        let (renewed, ending) = tokio::join!(renewing, others);
        println!("the guarded one {:?} after its transaction's end", renewed.since(ending));
        assert!(renewed >= ending);
    }
    // One that isn't waited for any longer is unknown, and the lease goes on.
    let hasty = place.builder().operation_timeout(Duration::from_millis(300)).build().await.unwrap();
    let session = transactions.begin(&fence(&guarded, grant)).await.unwrap();
    let error = hasty.renew(&again(&guarded, grant)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.applied() == Applied::Maybe, "{error}");
    transactions.commit(session, &fence(&guarded, grant)).await.unwrap();
    assert_eq!(hasty.renew(&again(&guarded, grant)).await.unwrap(), Renewed::Held(seconds(30)));
    place.clear().await;
}

async fn a_release_waits_too_and_a_second_transaction_follows_the_first() {
    let place = Place::new().await;
    let (transactions, locks) = (transactions(&place), place.locks().await);
    let (request, grant) = take(&locks, "x").await;
    let fence = fence(&request, grant);
    let first = transactions.begin(&fence).await.unwrap();
    // An own transaction is told at once that it conflicts.
    let mut own = begun(&place, &transactions).await;
    let error = transactions.hold(&mut own, &fence).await.unwrap_err();
    assert_eq!((kind(&error), error.applied()), (Some(ErrorKind::Contention), Applied::No), "{error}");
    let second = tokio::spawn({
        let (transactions, fence) = (transactions.clone(), fence.clone());
        async move { (transactions.begin(&fence).await, SystemClock.now()) }
    });
    pass(seconds(1)).await;
    assert!(!second.is_finished());
    let ending = SystemClock.now();
    transactions.commit(first, &fence).await.unwrap();
    let (second, at) = second.await.unwrap();
    assert!(at >= ending);
    let releasing = tokio::spawn({
        let (locks, release) = (locks.clone(), give_back(&request, grant));
        async move { (locks.release(&release).await, SystemClock.now()) }
    });
    pass(Duration::from_millis(300)).await;
    assert!(!releasing.is_finished());
    assert!(matches!(locks.acquire(&ask("y", seconds(1))).await.unwrap(), Acquired::Granted(_)));
    let ending = SystemClock.now();
    transactions.roll_back(second.unwrap()).await.unwrap();
    let (released, at) = releasing.await.unwrap();
    assert_eq!(released.unwrap(), Released::Released);
    assert!(at >= ending);
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

async fn work_in_a_transaction_is_kept_as_a_whole_or_not_at_all() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (transactions, data) = (locks.transactions().unwrap(), data(&place).await);
    let inside = transactions.client().database(place.database.name()).collection::<Document>("data");
    let client = Locks::new(locks.clone());
    let write = async |session: &mut ClientSession, id: &str| {
        inside.insert_one(doc! { "_id": id }).session(&mut *session).await.unwrap();
        inside.insert_one(doc! { "_id": format!("{id}, too") }).session(session).await.unwrap();
    };
    let kept = client.lock("x").ttl(seconds(10)).run_in_transaction(&transactions, async |session, _| {
        write(session, "kept").await;
        Ok::<_, ()>(5)
    });
    assert_eq!(kept.await.unwrap(), 5);
    assert_eq!(count(&data).await, 2);
    let failed = client.lock("x").ttl(seconds(10)).run_in_transaction(&transactions, async |session, _| {
        write(session, "failed").await;
        Err::<(), _>("on purpose")
    });
    let error = failed.await.unwrap_err();
    assert!(matches!(error, TransactionError::Work("on purpose")), "{error:?}");
    // It stands in the way of its own renewals, and of its commit in the end.
    let start = SystemClock.now();
    let late = client.lock("x").ttl(seconds(2)).run_in_transaction(&transactions, async |session, _| {
        write(session, "late").await;
        pass(seconds(30)).await;
        Ok::<_, ()>(())
    });
    let error = late.await.unwrap_err();
    println!("work that went on was stopped after {:?}: {error:?}", SystemClock.now().since(start));
    assert!(matches!(error, TransactionError::Lock(LockError::Lost(_))), "{error:?}");
    assert!(SystemClock.now().since(start) < seconds(10));
    // Through a third of the ttl the renewals catch up.
    for _ in 0..3 {
        let long = client.lock("x").ttl(seconds(3)).run_in_transaction(&transactions, async |session, lease| {
            pass(seconds(1)).await;
            write(session, &format!("{}", lease.token())).await;
            Ok::<_, ()>(())
        });
        long.await.unwrap();
    }
    assert_eq!(count(&data).await, 8);
    assert!(matches!(locks.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Granted(_)));
    place.clear().await;
}

/// A beginning of which nobody waits for the end leaves the lock to itself.
async fn a_beginning_that_is_dropped_leaves_nothing_open() {
    let place = Place::new().await;
    let (transactions, locks) = (transactions(&place), place.locks().await);
    let (request, grant) = take(&locks, "x").await;
    for round in 0..60 {
        let begin = tokio::time::timeout(Duration::from_micros(100 * (round % 30)), async {
            transactions.begin(&fence(&request, grant)).await
        });
        drop(begin.await);
    }
    let start = SystemClock.now();
    assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(seconds(30)));
    println!("renewed after {:?}", SystemClock.now().since(start));
    let session = transactions.begin(&fence(&request, grant)).await.unwrap();
    transactions.commit(session, &fence(&request, grant)).await.unwrap();
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
    // Work that ends its transaction itself has none that could be committed.
    let mut session = transactions.begin(&fence(&request, grant)).await.unwrap();
    session.abort_transaction().await.unwrap();
    let error = transactions.commit(session, &fence(&request, grant)).await.unwrap_err();
    assert_eq!((kind(&error), error.applied()), (Some(ErrorKind::Other), Applied::No), "{error}");
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

fn transactions_of(locks: &MongoLocks) -> MongoTransactions {
    let transactions = locks.transactions().unwrap();
    assert!(!format!("{transactions:?}").contains(common::PASSWORD));
    transactions
}

async fn what_is_guarded_costs_two_commands_more() {
    let place = Place::new().await;
    let (transactions, data) = (transactions(&place), data(&place).await);
    let locks = place.locks().await;
    let (request, grant) = take_for(&locks, "x", seconds(600)).await;
    let fence = fence(&request, grant);
    data.insert_one(doc! { "_id": 1, "n": 0 }).await.unwrap();
    let (mut plain, mut held, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..180 {
        let start = SystemClock.now();
        let write = doc! { "$inc": { "n": 1 } };
        if round % 3 == 2 {
            let mut session = transactions.begin(&fence).await.unwrap();
            data.update_one(doc! { "_id": 1 }, write).session(&mut session).await.unwrap();
            transactions.commit(session, &fence).await.unwrap();
        } else {
            let mut session = begun(&place, &transactions).await;
            if round % 3 == 1 {
                transactions.hold(&mut session, &fence).await.unwrap();
            }
            data.update_one(doc! { "_id": 1 }, write).session(&mut session).await.unwrap();
            session.commit_transaction().await.unwrap();
        }
        [&mut plain, &mut held, &mut whole][round % 3].push(SystemClock.now().since(start));
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1000.0
    };
    let (plain, held, whole) = (median(plain), median(held), median(whole));
    println!(
        "a plain transaction {plain:.2} ms, with hold {held:.2} ms ({:.2}x), begun and committed under the lock {whole:.2} ms ({:.2}x)",
        held / plain,
        whole / plain
    );
    assert!(whole < plain * 10.0);
    place.clear().await;
}

testbed::server_tests!(testbed::mongo =>
    a_transaction_open_beyond_its_lease_delays_a_take_over_until_it_ends,
    who_does_not_hold_the_lock_is_refused_and_nothing_is_kept,
    a_lease_that_ends_in_the_middle_undoes_what_run_in_transaction_would_commit,
    renewals_wait_for_the_transaction_and_others_in_their_group_do_not_wait_as_long,
    a_release_waits_too_and_a_second_transaction_follows_the_first,
    a_transaction_that_read_before_a_take_over_is_not_let_through_after_it,
    work_in_a_transaction_is_kept_as_a_whole_or_not_at_all,
    a_beginning_that_is_dropped_leaves_nothing_open,
    without_a_transaction_nothing_is_held,
    what_is_no_fence_undoes_the_transaction_as_well,
    what_is_guarded_costs_two_commands_more,
);
