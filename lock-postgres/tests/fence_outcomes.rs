//! How guarded transactions end, and what is told of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{
    Place, fence_of, give_back, granted,
    guarded::{LEVELS, Single, Stage},
    take,
};
use lock_core::{
    Applied, ErrorKind, FenceError, Lease, LockProvider, Locks, Pass, Resource, ToFence, TransactionError,
    Transactions, Waiting,
};
use lock_postgres::{PostgresFences, PostgresTransactions, sqlx};

async fn a_savepoint_that_is_rolled_back_takes_its_guard_along() {
    use sqlx::Acquire as _;
    let stage = Stage::new().await;
    let (request, grant) = take(&stage.locks, "x").await;
    let mut tx = stage.ledger.begin("READ COMMITTED").await;
    let mut inner = tx.begin().await.unwrap();
    stage.transactions.hold(&mut inner, &fence_of(&request, grant)).await.unwrap();
    stage.locks.release(&give_back(&request, grant)).await.unwrap();
    stage.refused("x").await;
    inner.rollback().await.unwrap();
    granted(stage.asked("x", Waiting::No).await);
    tx.commit().await.unwrap();
    stage.clear().await;
}

async fn work_in_a_transaction_is_kept_under_its_lease_alone() {
    let stage = Stage::new().await;
    let locks = Locks::new(stage.locks.clone());
    let write = async |tx: &mut sqlx::Transaction<'static, sqlx::Postgres>, lease: &Lease| {
        stage.ledger.write(tx, lease.token().to_string().as_str()).await;
        Ok::<_, sqlx::Error>(lease.token().to_string())
    };
    let token = locks.lock("x").run_in_transaction(&stage.transactions, write).await.unwrap();
    assert_eq!(stage.ledger.entries().await, std::slice::from_ref(&token));

    let forced = locks.lock("x").run_in_transaction(&stage.transactions, async |tx, lease: &Lease| {
        write(tx, lease).await?;
        assert!(stage.locks.force_release(lease.name()).await.unwrap());
        Ok::<_, sqlx::Error>(())
    });
    let error = forced.await.unwrap_err();
    assert!(matches!(error, TransactionError::Fence(FenceError::NotHeld(_))), "{error:?}");
    assert_eq!(error.applied(), Applied::No);

    let failed = locks.lock("x").run_in_transaction(&stage.transactions, async |tx, lease: &Lease| {
        write(tx, lease).await?;
        sqlx::query("SELECT 1 / 0").execute(&mut **tx).await
    });
    assert!(matches!(failed.await.unwrap_err(), TransactionError::Work(_)));
    // The work hides that a statement failed: what it wrote before that is lost, and it is told.
    let hidden = locks.lock("x").run_in_transaction(&stage.transactions, async |tx, lease: &Lease| {
        write(tx, lease).await?;
        let _ = sqlx::query("SELECT 1 / 0").execute(&mut **tx).await;
        Ok::<_, sqlx::Error>(())
    });
    let error = hidden.await.unwrap_err();
    assert!(matches!(error, TransactionError::Fence(FenceError::Store(_))), "{error:?}");
    assert_eq!(stage.ledger.entries().await, [token]);
    locks.settled().await;
    stage.clear().await;
}

async fn a_transaction_that_ended_before_is_told() {
    use futures_util::FutureExt as _;
    use sqlx::Acquire as _;
    let stage = Stage::new().await;
    let fences = PostgresFences::builder(stage.ledger.pool.clone()).schema(&stage.place.schema).build().await.unwrap();
    let accounts = Resource::new("accounts").unwrap();
    for isolation in LEVELS {
        for how in ["nested", "COMMIT", "COMMIT; BEGIN"] {
            let lock = format!("{isolation} {how}");
            let (request, grant) = take(&stage.locks, &lock).await;
            let fence = fence_of(&request, grant);
            for end in ["hold", "admit", "commit", "roll_back"] {
                let mut tx = stage.held(isolation, &fence).await;
                stage.ledger.write(&mut tx, "under the lock").await;
                if how == "nested" {
                    // One that the server has answered already is ended properly.
                    while tx.begin().now_or_never().is_some() {}
                } else {
                    sqlx::raw_sql(how).execute(&mut *tx).await.unwrap();
                }
                stage.ledger.write(&mut tx, "without it").await;
                let outcome = match end {
                    "hold" if how == "COMMIT; BEGIN" => continue,
                    "admit" if how == "COMMIT; BEGIN" => continue,
                    "hold" => stage.transactions.hold(&mut tx, &fence).await,
                    "admit" => fences.admit(&mut tx, &accounts, &fence, Pass::Again).await,
                    "commit" => stage.transactions.commit(tx, &fence).await,
                    _ => stage.transactions.roll_back(tx).await.map_err(FenceError::from),
                };
                let Err(FenceError::Store(error)) = outcome else { panic!("{lock} {end}: {outcome:?}") };
                assert_eq!(error.applied(), Applied::Maybe, "{lock} {end}: {error}");
                assert!(error.to_string().contains("had ended before"), "{lock} {end}: {error}");
            }
        }
    }
    // It was right to say so.
    assert!(stage.ledger.entries().await.iter().any(|entry| entry == "without it"));

    let locks = Locks::new(stage.locks.clone());
    for fails in [false, true] {
        let work = locks.lock("x").run_in_transaction(&stage.transactions, async |tx, _lease: &Lease| {
            sqlx::raw_sql("COMMIT").execute(&mut **tx).await.unwrap();
            stage.ledger.write(tx, "after the end").await;
            if fails { Err("failed") } else { Ok(()) }
        });
        let error = work.await.unwrap_err();
        assert!(matches!(error, TransactionError::Fence(FenceError::Store(_))), "{error:?}");
        assert_eq!(error.applied(), Applied::Maybe);
    }
    locks.settled().await;
    // Several locks are held in one transaction, and it is committed under either.
    let (x, y) = (take(&stage.locks, "several x").await, take(&stage.locks, "several y").await);
    let (x, y) = (fence_of(&x.0, x.1), fence_of(&y.0, y.1));
    for fence in [&x, &y] {
        let mut tx = stage.transactions.begin(&x).await.unwrap();
        stage.transactions.hold(&mut tx, &y).await.unwrap();
        stage.transactions.hold(&mut tx, &x).await.unwrap();
        stage.transactions.commit(tx, fence).await.unwrap();
    }
    stage.clear().await;
}

async fn a_commit_without_an_answer_may_have_been_applied() {
    let stage = Stage::new().await;
    let (request, grant) = take(&stage.locks, "x").await;
    let fence = fence_of(&request, grant);
    // A commit that takes long, and then one that the server answers with an error.
    let after = |does: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION {{s}}.after() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {does}; RETURN NULL; END$$"
        )
    };
    stage.place.sql(&after("PERFORM pg_sleep(20)")).await;
    let trigger = "CREATE CONSTRAINT TRIGGER after AFTER INSERT ON {s}.entries DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION {s}.after()";
    stage.place.sql(trigger).await;
    let mut tx = stage.transactions.begin(&fence).await.unwrap();
    stage.ledger.write(&mut tx, "cut").await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.unwrap();
    let committing = tokio::spawn({
        let (transactions, fence) = (stage.transactions.clone(), fence.clone());
        async move { transactions.commit(tx, &fence).await }
    });
    let cut = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE pid = {pid} AND query LIKE 'SAVEPOINT leasehold_look%' AND wait_event = 'PgSleep'"
    );
    while stage.place.number(&cut).await == 0 {
        tokio::task::yield_now().await;
    }
    let Err(FenceError::Store(error)) = committing.await.unwrap() else { panic!("committed") };
    assert_eq!(error.applied(), Applied::Maybe, "{error}");

    stage.place.sql(&after("RAISE EXCEPTION 'on purpose'")).await;
    let mut tx = stage.transactions.begin(&fence).await.unwrap();
    stage.ledger.write(&mut tx, "failed").await;
    let Err(FenceError::Store(error)) = stage.transactions.commit(tx, &fence).await else { panic!("committed") };
    assert_eq!(error.applied(), Applied::No, "{error}");
    assert!(stage.ledger.entries().await.is_empty());
    stage.clear().await;
}

/// What its work committed by itself stands, whatever a look says of the grant.
async fn a_commit_that_finds_the_connection_gone_may_have_been_applied() {
    let stage = Stage::new().await;
    for isolation in LEVELS {
        let single = Single::new(&stage, isolation).await;
        let (request, grant) = take(&stage.locks, isolation).await;
        let fence = fence_of(&request, grant);
        let mut tx = single.transactions.begin(&fence).await.unwrap();
        sqlx::raw_sql("COMMIT").execute(&mut *tx).await.unwrap();
        stage.ledger.write(&mut tx, isolation).await;
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.unwrap();
        assert_eq!(stage.place.number(&format!("SELECT count(pg_terminate_backend({pid}, 5000))")).await, 1);
        assert!(stage.locks.force_release(&request.name).await.unwrap());
        match single.transactions.commit(tx, &fence).await {
            Err(FenceError::Store(error)) => assert_eq!(error.applied(), Applied::Maybe, "{isolation}: {error}"),
            other => panic!("{isolation}: {other:?}"),
        }
        single.pool.close().await;
    }
    assert_eq!(stage.ledger.entries().await, LEVELS);
    stage.clear().await;
}

async fn a_missing_right_and_a_missing_table_are_told() {
    let mut place = Place::new().await;
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let fence = fence_of(&request, grant);
    let (role, url) = place.role().await;
    place.sql(&format!("GRANT USAGE ON SCHEMA {{s}} TO {role}; GRANT SELECT ON {{s}}.locks TO {role}")).await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let transactions = locks.transactions(pool.clone());
    let told = |outcome: Result<_, FenceError>| match outcome {
        Err(FenceError::Store(error)) => error,
        Err(other) => panic!("{other:?}"),
        Ok(()) => panic!("held"),
    };
    let error = told(transactions.begin(&fence).await.map(drop));
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Denied, Applied::No), "{error}");
    place.sql(&format!("GRANT UPDATE ON {{s}}.locks TO {role}")).await;
    transactions.begin(&fence).await.unwrap().rollback().await.unwrap();

    let elsewhere = PostgresTransactions::new(pool.clone()).schema("no such schema").unwrap();
    let error = told(elsewhere.begin(&fence).await.map(drop));
    assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
    assert!(PostgresTransactions::new(pool.clone()).schema("").is_err());
    assert!(!format!("{elsewhere:?}{error:?}").contains(common::PASSWORD));

    pool.close().await;
    let error = told(transactions.begin(&fence).await.map(drop));
    assert_eq!(error.applied(), Applied::No, "{error}");
    drop(locks);
    place.clear().await;
}

async fn a_lease_or_a_guard_is_a_fence() {
    let stage = Stage::new().await;
    let locks = Locks::new(stage.locks.clone());
    let guard = locks.lock("x").acquire().await.unwrap();
    assert_eq!(guard.to_fence().unwrap().token(), guard.token());
    let mut tx = stage.ledger.begin("READ COMMITTED").await;
    stage.transactions.hold(&mut tx, &guard).await.unwrap();
    stage.transactions.hold(&mut tx, guard.lease()).await.unwrap();
    tx.commit().await.unwrap();
    guard.release().await.unwrap();
    stage.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    a_savepoint_that_is_rolled_back_takes_its_guard_along,
    work_in_a_transaction_is_kept_under_its_lease_alone,
    a_transaction_that_ended_before_is_told,
    a_commit_without_an_answer_may_have_been_applied,
    a_commit_that_finds_the_connection_gone_may_have_been_applied,
    a_missing_right_and_a_missing_table_are_told,
    a_lease_or_a_guard_is_a_fence,
);
