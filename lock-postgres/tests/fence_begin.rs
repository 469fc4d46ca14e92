//! Transactions that are begun and committed under a lock in one message each: what they leave to the pool's connection.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{
    again, ask, fence_of, give_back, granted,
    guarded::{LEVELS, Single, Stage, guard_key, not_held},
    name, pass,
    pooler::in_time,
    seconds, take,
};
use lock_core::{
    AcquireRequest, Acquired, Applied, Clock, ErrorKind, Fence, FenceError, FenceRegister, Lease, LockProvider, Locks,
    Pass, Released, Renewed, Resource, SystemClock, Transactions as _, Waiting,
};
use lock_postgres::{PostgresFences, PostgresTransactions, sqlx};

async fn a_refusal_leaves_no_transaction_behind() {
    let stage = Stage::new().await;
    let (request, grant) = take(&stage.locks, "x").await;
    let token = grant.token.get();
    for isolation in LEVELS {
        let single = Single::new(&stage, isolation).await;
        for fence in [format!("{}@x", token + 1), format!("{token}@unknown")] {
            not_held(single.transactions.begin(&fence.parse::<Fence>().unwrap()).await.map(drop));
            single.rests(&stage).await;
            single.works(&stage).await;
        }
        let elsewhere = PostgresTransactions::new(single.pool.clone()).schema("no such schema").unwrap();
        let Err(FenceError::Store(error)) = elsewhere.begin(&fence_of(&request, grant)).await else { panic!("begun") };
        assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
        single.rests(&stage).await;
        single.works(&stage).await;
        single.pool.close().await;
    }
    stage.clear().await;
}

async fn a_beginning_that_is_broken_off_is_rolled_back() {
    let stage = Stage::new().await;
    let single = Single::new(&stage, LEVELS[0]).await;
    let (request, grant) = take(&stage.locks, "x").await;
    let fence = fence_of(&request, grant);
    let mut tx = single.transactions.begin(&fence).await.unwrap();
    let key = guard_key(&mut tx).await;
    tx.rollback().await.unwrap();
    // Where it waits for the guard, and at any moment before and after.
    let mut alone = stage.place.admin.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key).execute(&mut *alone).await.unwrap();
    tokio::select! {
        begun = single.transactions.begin(&fence) => panic!("{begun:?}"),
        () = stage.waited_for(key) => {}
    }
    alone.rollback().await.unwrap();
    single.rests(&stage).await;
    assert_eq!(stage.guards(key, "true").await, 0);
    let (mut broken_off, mut begun) = (0, 0);
    while begun < 20 {
        tokio::select! {
            biased;
            () = async { for _ in 0..broken_off * 10 { tokio::task::yield_now().await } } => broken_off += 1,
            outcome = single.transactions.begin(&fence) => {
                outcome.unwrap().rollback().await.unwrap();
                begun += 1;
            }
        }
    }
    println!("{broken_off} were broken off");
    drop(single.pool.acquire().await.unwrap());
    single.rests(&stage).await;
    assert_eq!(stage.guards(key, "true").await, 0);
    single.works(&stage).await;
    assert_eq!(stage.locks.release(&give_back(&request, grant)).await.unwrap(), Released::Released);
    granted(stage.asked("x", Waiting::No).await);
    single.pool.close().await;
    stage.clear().await;
}

async fn a_raise_that_is_broken_off_is_rolled_back() {
    let stage = Stage::new().await;
    let single = Single::new(&stage, LEVELS[0]).await;
    let fences = PostgresFences::builder(single.pool.clone()).schema(&stage.place.schema).build().await.unwrap();
    let resource = Resource::new("accounts").unwrap();
    let fence: Fence = "5@x".parse().unwrap();
    let (mut broken_off, mut raised) = (0, 0);
    while raised < 20 {
        tokio::select! {
            biased;
            () = async { for _ in 0..broken_off * 10 { tokio::task::yield_now().await } } => broken_off += 1,
            outcome = fences.raise(&resource, &fence, Pass::Again) => {
                outcome.unwrap();
                raised += 1;
            }
        }
        drop(single.pool.acquire().await.unwrap());
        single.rests(&stage).await;
    }
    single.works(&stage).await;
    single.pool.close().await;
    stage.clear().await;
}

async fn the_look_of_a_beginning_comes_after_its_wait_for_the_guard() {
    let stage = Stage::new().await;
    for isolation in LEVELS {
        let single = Single::new(&stage, isolation).await;
        for _ in 0..2 {
            let (request, grant) = take(&stage.locks, "x").await;
            let fence = fence_of(&request, grant);
            let mut tx = stage.held(isolation, &fence).await;
            let key = guard_key(&mut tx).await;
            tx.rollback().await.unwrap();
            let mut alone = stage.place.admin.begin().await.unwrap();
            sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key).execute(&mut *alone).await.unwrap();
            let transactions = single.transactions.clone();
            let beginning = tokio::spawn(async move { transactions.begin(&fence).await.map(drop) });
            stage.waited_for(key).await;
            assert!(stage.locks.force_release(&name("x")).await.unwrap());
            alone.rollback().await.unwrap();
            not_held(beginning.await.unwrap());
            single.rests(&stage).await;
        }
        single.pool.close().await;
    }
    stage.clear().await;
}

async fn each_level_is_guarded_from_its_beginning_to_its_end() {
    let stage = Stage::new().await;
    for isolation in LEVELS {
        let single = Single::new(&stage, isolation).await;
        // The first finds out what the level is, and the next know it.
        for _ in 0..3 {
            let (request, grant) = take(&stage.locks, isolation).await;
            let fence = fence_of(&request, grant);
            let mut tx = single.transactions.begin(&fence).await.unwrap();
            let level: String = sqlx::query_scalar("SHOW transaction_isolation").fetch_one(&mut *tx).await.unwrap();
            assert_eq!(level, isolation.to_lowercase());
            stage.ledger.write(&mut tx, "kept").await;
            single.transactions.commit(tx, &fence).await.unwrap();
            single.rests(&stage).await;

            let mut tx = single.transactions.begin(&fence).await.unwrap();
            stage.ledger.write(&mut tx, "lost").await;
            assert!(stage.locks.force_release(&name(isolation)).await.unwrap());
            stage.refused(isolation).await;
            not_held(single.transactions.commit(tx, &fence).await);
            single.rests(&stage).await;
            not_held(single.transactions.begin(&fence).await.map(drop));
            single.rests(&stage).await;
            let (request, next) = take(&stage.locks, isolation).await;
            assert!(next.token > grant.token);
            stage.locks.release(&give_back(&request, next)).await.unwrap();
        }
        single.works(&stage).await;
        single.pool.close().await;
    }
    let entries = stage.ledger.entries().await;
    assert_eq!(entries.iter().filter(|entry| *entry == "kept").count(), 9, "{entries:?}");
    assert!(!entries.iter().any(|entry| entry == "lost"));
    stage.clear().await;
}

/// At each level: what a transaction sees may be from before, and its end is told by what is.
async fn a_lease_that_is_renewed_meanwhile_holds_to_the_end() {
    let stage = Stage::new().await;
    for isolation in LEVELS {
        let single = Single::new(&stage, isolation).await;
        let request = ask(isolation, seconds(2));
        let grant = granted(stage.locks.acquire(&request).await.unwrap());
        let (fence, end) = (fence_of(&request, grant), SystemClock.now() + seconds(2));
        let renewed = async || {
            assert_eq!(stage.locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(request.ttl));
            let waiter = AcquireRequest { waiting: Waiting::Wake(seconds(30)), ..ask(isolation, seconds(30)) };
            assert!(matches!(stage.locks.acquire(&waiter).await.unwrap(), Acquired::Held(_)));
        };
        let mut tx = single.transactions.begin(&fence).await.unwrap();
        stage.ledger.write(&mut tx, isolation).await;
        // A statement has been done before the lease is renewed, and another transaction after it.
        let mut other = stage.ledger.begin(isolation).await;
        stage.ledger.write(&mut other, isolation).await;
        renewed().await;
        stage.transactions.hold(&mut other, &fence).await.unwrap();
        other.commit().await.unwrap();
        single.transactions.hold(&mut tx, &fence).await.unwrap();
        SystemClock.sleep_until(end - Duration::from_millis(500)).await;
        renewed().await;
        SystemClock.sleep_until(end + Duration::from_millis(100)).await;
        single.transactions.hold(&mut tx, &fence).await.unwrap();
        single.transactions.commit(tx, &fence).await.unwrap();

        // And one that is not, doesn't.
        let mut tx = single.transactions.begin(&fence).await.unwrap();
        stage.ledger.write(&mut tx, "lost").await;
        SystemClock.sleep_until(end + seconds(2)).await;
        not_held(single.transactions.commit(tx, &fence).await);
        single.rests(&stage).await;
        single.pool.close().await;
    }
    let entries = stage.ledger.entries().await;
    assert_eq!(entries.len(), 6, "{entries:?}");
    assert!(!entries.iter().any(|entry| entry == "lost"));
    stage.clear().await;
}

/// Who wants the table alone waits for the transaction, and the look at its end for him.
async fn a_look_from_elsewhere_does_not_wait_for_ever() {
    let stage = Stage::new().await;
    let single = Single::new(&stage, LEVELS[1]).await;
    let (request, grant) = take(&stage.locks, "x").await;
    let fence = fence_of(&request, grant);
    let mut tx = single.transactions.begin(&fence).await.unwrap();
    stage.ledger.write(&mut tx, "lost").await;
    let alone = format!("LOCK TABLE \"{}\".locks", stage.place.schema);
    let mut admin = stage.place.admin.begin().await.unwrap();
    let locking = tokio::spawn(async move {
        sqlx::raw_sql(sqlx::AssertSqlSafe(alone)).execute(&mut *admin).await.unwrap();
        admin.rollback().await.unwrap();
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE relation = '{s}.locks'::regclass AND NOT granted";
    in_time(async { while stage.place.number(waits).await == 0 {} }).await;
    let Err(FenceError::Store(error)) = in_time(single.transactions.commit(tx, &fence)).await else {
        panic!("committed")
    };
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    in_time(locking).await.unwrap();
    single.rests(&stage).await;
    assert!(stage.ledger.entries().await.is_empty());
    single.pool.close().await;
    stage.clear().await;
}

async fn work_of_several_leases_length_is_kept_at_each_level() {
    let stage = Stage::new().await;
    let locks = Locks::new(stage.locks.clone());
    let mut singles = Vec::new();
    for isolation in LEVELS {
        singles.push((isolation, Single::new(&stage, isolation).await));
    }
    let works = singles.iter().map(async |(isolation, single)| {
        let work = async |tx: &mut sqlx::Transaction<'static, sqlx::Postgres>, _: &Lease| {
            stage.ledger.write(tx, isolation).await;
            pass(seconds(3)).await;
            Ok::<_, sqlx::Error>(())
        };
        locks.lock(*isolation).ttl(seconds(1)).run_in_transaction(&single.transactions, work).await.unwrap();
        single.pool.close().await;
    });
    futures_util::future::join_all(works).await;
    assert_eq!(stage.ledger.entries().await.len(), 3);
    locks.settled().await;
    stage.clear().await;
}

async fn a_transaction_of_another_level_than_expected_is_committed_rightly() {
    let stage = Stage::new().await;
    for expected in [LEVELS[0], LEVELS[2]] {
        let single = Single::new(&stage, expected).await;
        for isolation in LEVELS {
            let lock = format!("{expected} {isolation}");
            let (request, grant) = take(&stage.locks, &lock).await;
            let fence = fence_of(&request, grant);
            single.transactions.begin(&fence).await.unwrap().rollback().await.unwrap();
            let mut tx = stage.held(isolation, &fence).await;
            stage.ledger.write(&mut tx, &lock).await;
            single.transactions.commit(tx, &fence).await.unwrap();
            let mut tx = stage.held(isolation, &fence).await;
            stage.ledger.write(&mut tx, "lost").await;
            assert!(stage.locks.force_release(&request.name).await.unwrap());
            not_held(single.transactions.commit(tx, &fence).await);
        }
        single.pool.close().await;
    }
    let entries = stage.ledger.entries().await;
    assert_eq!(entries.len(), 6, "{entries:?}");
    assert!(!entries.iter().any(|entry| entry == "lost"));
    stage.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    a_refusal_leaves_no_transaction_behind,
    a_beginning_that_is_broken_off_is_rolled_back,
    a_raise_that_is_broken_off_is_rolled_back,
    the_look_of_a_beginning_comes_after_its_wait_for_the_guard,
    each_level_is_guarded_from_its_beginning_to_its_end,
    a_lease_that_is_renewed_meanwhile_holds_to_the_end,
    a_look_from_elsewhere_does_not_wait_for_ever,
    work_of_several_leases_length_is_kept_at_each_level,
    a_transaction_of_another_level_than_expected_is_committed_rightly,
);
