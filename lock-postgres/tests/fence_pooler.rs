//! The fence behind a pooler in transaction mode, before a database whose transactions are serializable by default.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{
    ask, fence_of,
    pooler::{Pooler, in_time},
    seconds, take,
};
use lock_core::{Acquired, Applied, ErrorKind, FenceError, FenceRegister, LockProvider, Pass, Resource, Transactions};
use lock_postgres::{
    PostgresFences,
    sqlx::{
        self, AssertSqlSafe, ConnectOptions as _, PgPool,
        postgres::{PgConnectOptions, PgPoolOptions},
    },
};

async fn pool(pooler: &Pooler) -> PgPool {
    let options: PgConnectOptions = pooler.url().parse().unwrap();
    // What PgBouncer takes, and nothing that stays in a session.
    let options = options.extra_float_digits(None).statement_cache_capacity(0).disable_statement_logging();
    PgPoolOptions::new().max_connections(3).connect_with(options).await.unwrap()
}

async fn a_guarded_transaction_and_a_register_work_behind_a_pooler() {
    let pooler = Pooler::new().await;
    let locks = pooler.locks().await;
    let pool = pool(&pooler).await;
    let transactions = locks.transactions(pool.clone());
    let (request, grant) = take(&locks, "x").await;
    let fence = fence_of(&request, grant);
    let tx = transactions.begin(&fence).await.unwrap();
    assert!(locks.force_release(&request.name).await.unwrap());
    for _ in 0..3 {
        assert!(matches!(locks.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Held(_)));
    }
    tx.rollback().await.unwrap();
    assert!(matches!(transactions.begin(&fence).await, Err(FenceError::NotHeld(_))));
    let (request, grant) = take(&locks, "x").await;
    let fence = fence_of(&request, grant);
    let tx = transactions.begin(&fence).await.unwrap();
    transactions.commit(tx, &fence).await.unwrap();

    let fences = PostgresFences::builder(pool.clone()).schema(&pooler.place.schema).build().await.unwrap();
    let resource = Resource::new("accounts").unwrap();
    fences.raise(&resource, &fence, Pass::Again).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    fences.admit(&mut tx, &resource, &fence, Pass::Again).await.unwrap();
    tx.commit().await.unwrap();
    let old = format!("1@{}", fence.lock()).parse::<lock_core::Fence>().unwrap();
    assert!(matches!(fences.raise(&resource, &old, Pass::Again).await, Err(FenceError::Stale(_))));
    // The same where a message each begins and commits under the lock.
    let usual = format!("ALTER DATABASE {} SET default_transaction_isolation = 'read committed'", pooler.database);
    pooler.place.sql(&usual).await;
    pooler.console("RECONNECT").await;
    let transactions = locks.transactions(pool.clone());
    let sums = [fence.clone(), old].map(async |fence| {
        for _ in 0..5 {
            let tx = transactions.begin(&fence).await?;
            assert!(matches!(locks.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Held(_)));
            transactions.commit(tx, &fence).await?;
        }
        Ok::<_, FenceError>(())
    });
    let [done, refused] = futures_util::future::join_all(sums).await.try_into().unwrap();
    done.unwrap();
    assert!(matches!(refused, Err(FenceError::NotHeld(_))), "{refused:?}");
    let tx = transactions.begin(&fence).await.unwrap();
    assert!(locks.force_release(&request.name).await.unwrap());
    assert!(matches!(locks.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Held(_)));
    assert!(matches!(transactions.commit(tx, &fence).await, Err(FenceError::NotHeld(_))));

    // Nothing stays in the sessions that others get.
    let left: i64 = {
        let sql = "SELECT (SELECT count(*) FROM pg_prepared_statements) + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";
        let mut connection = pool.acquire().await.unwrap();
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.unwrap();
        sqlx::Row::get(&row, 0)
    };
    assert_eq!(left, 0);
    pool.close().await;
    drop(locks);
    pooler.clear().await;
}

/// Each of them has one of the pooler's connections, and its look needs another.
async fn looks_that_wait_for_the_guarded_are_given_up_in_time() {
    let pooler = Pooler::new().await;
    let locks = pooler.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let fence = fence_of(&request, grant);
    let pool = pool(&pooler).await;
    let transactions = locks.transactions(pool.clone());
    transactions.begin(&fence).await.unwrap().rollback().await.unwrap();
    pooler.console("SET default_pool_size = 2").await;
    pooler.console("RECONNECT").await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut tx = pool.begin().await.unwrap();
        sqlx::raw_sql("SELECT 1").execute(&mut *tx).await.unwrap();
        open.push(tx);
    }
    // More of them than there are connections for looks.
    let holds = open.iter_mut().map(|tx| transactions.hold(tx, &fence));
    for outcome in in_time(futures_util::future::join_all(holds)).await {
        let Err(FenceError::Store(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    }
    for tx in open {
        tx.rollback().await.unwrap();
    }
    let tx = in_time(transactions.begin(&fence)).await.unwrap();
    in_time(transactions.commit(tx, &fence)).await.unwrap();
    pool.close().await;
    drop(locks);
    pooler.clear().await;
}

testbed::server_tests!(testbed::tests::private_pgbouncer_can_be_had =>
    a_guarded_transaction_and_a_register_work_behind_a_pooler,
    looks_that_wait_for_the_guarded_are_given_up_in_time,
);
