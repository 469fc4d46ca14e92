//! What waits for a transaction under a lock, and what `run_in_transaction` keeps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{
    Place, again, ask, give_back,
    guarded::{begun, count, data, fence, kind, take_for, transactions},
    pass, seconds, take,
};
use lock_core::{
    Acquired, Applied, Clock, ErrorKind, FenceError, LockError, LockProvider, Locks, Released, Renewed, SystemClock,
    TransactionError, Transactions,
};
use mongodb::{
    ClientSession,
    bson::{Document, doc},
};

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
                // By design after a quarter of the operation timeout, 1.25 s; the transaction is open for as long as this takes.
                assert!(SystemClock.now().since(start) < seconds(4));
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
    let ended = client.lock("x").ttl(seconds(10)).run_in_transaction(&transactions, async |session, _| {
        write(session, "by itself").await;
        session.commit_transaction().await
    });
    assert_eq!(ended.await.unwrap_err().applied(), Applied::Maybe);
    assert_eq!(data.delete_many(doc! { "_id": { "$regex": "^by itself" } }).await.unwrap().deleted_count, 2);
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
    a_lease_that_ends_in_the_middle_undoes_what_run_in_transaction_would_commit,
    renewals_wait_for_the_transaction_and_others_in_their_group_do_not_wait_as_long,
    a_release_waits_too_and_a_second_transaction_follows_the_first,
    work_in_a_transaction_is_kept_as_a_whole_or_not_at_all,
    a_beginning_that_is_dropped_leaves_nothing_open,
    what_is_guarded_costs_two_commands_more,
);
