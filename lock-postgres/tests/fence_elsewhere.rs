//! The looks that a guard takes on connections of its own, where a transaction sees only what was there before.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{
    Place, ask, fence_of, granted,
    guarded::{LEVELS, Single, Stage, not_held},
    pass,
    pooler::in_time,
    take,
};
use lock_core::{Applied, ErrorKind, FenceError, LockProvider, Transactions as _, Waiting};
use lock_postgres::{
    PostgresTransactions,
    sqlx::{
        self, PgPool,
        postgres::{PgConnectOptions, PgPoolOptions},
    },
};
use tokio::sync::Semaphore;

/// A pool of one connection. The next ones, which a guard opens with the same options, stop at a gate.
struct Gated {
    pool: PgPool,
    transactions: PostgresTransactions,
    arrived: Arc<Semaphore>,
    gate: Arc<Semaphore>,
}

impl Gated {
    async fn new(stage: &Stage, isolation: &str) -> Self {
        let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(1)));
        let (tells, waits) = (arrived.clone(), gate.clone());
        let pool = PgPoolOptions::new().max_connections(1).after_connect(move |_, _| {
            let (tells, waits) = (tells.clone(), waits.clone());
            Box::pin(async move {
                tells.add_permits(1);
                waits.acquire().await.unwrap().forget();
                Ok(())
            })
        });
        let options: PgConnectOptions = stage.place.url.parse().unwrap();
        let options = options.options([("default_transaction_isolation", isolation.to_lowercase())]);
        let pool = pool.connect_with(options).await.unwrap();
        let transactions = stage.locks.transactions(pool.clone());
        let gated = Self { pool, transactions, arrived, gate };
        gated.arrived().await;
        gated
    }

    /// Until the next connection stands at the gate.
    async fn arrived(&self) {
        in_time(self.arrived.acquire()).await.unwrap().forget();
    }

    fn open(&self) {
        self.gate.add_permits(1000);
    }
}

async fn who_is_late_keeps_nobody_out_by_asking() {
    let stage = Stage::new().await;
    for isolation in [LEVELS[1], LEVELS[2]] {
        for begins in [true, false] {
            let lock = format!("{isolation} {begins}");
            let request = ask(&lock, Duration::from_millis(100));
            let old = fence_of(&request, granted(stage.locks.acquire(&request).await.unwrap()));
            let gated = Gated::new(&stage, isolation).await;
            pass(Duration::from_millis(110)).await;
            let (transactions, pool) = (gated.transactions.clone(), gated.pool.clone());
            let late = tokio::spawn(async move {
                if begins {
                    return transactions.begin(&old).await.map(drop);
                }
                let mut tx = pool.begin().await.unwrap();
                transactions.hold(&mut tx, &old).await
            });
            // It is over, unless it was renewed since, which is being asked.
            gated.arrived().await;
            granted(stage.asked(&lock, Waiting::No).await);
            gated.open();
            match late.await.unwrap() {
                Err(FenceError::Store(error)) if error.kind() == ErrorKind::Contention => println!("slowly: {error}"),
                outcome => not_held(outcome),
            }
            gated.pool.close().await;
        }
    }
    stage.clear().await;
}

async fn a_look_that_gets_no_connection_is_given_up_in_time() {
    let stage = Stage::new().await;
    let gated = Gated::new(&stage, LEVELS[1]).await;
    let (request, grant) = take(&stage.locks, "x").await;
    let fence = fence_of(&request, grant);
    // More often than there are connections for looks.
    for _ in 0..3 {
        let begun = in_time(gated.transactions.begin(&fence)).await;
        let Err(FenceError::Store(error)) = begun else { panic!("{begun:?}") };
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    }
    gated.open();
    let tx = in_time(gated.transactions.begin(&fence)).await.unwrap();
    assert!(stage.locks.force_release(&request.name).await.unwrap());
    stage.refused("x").await;
    tx.rollback().await.unwrap();
    granted(stage.asked("x", Waiting::No).await);
    gated.pool.close().await;
    stage.clear().await;
}

/// As a deposed primary beside the new one under one name, or a standby beside its primary.
async fn what_another_server_says_counts_for_nothing() {
    let stage = Stage::new().await;
    let server = tokio::task::spawn_blocking(testbed::postgres_private).await.unwrap().unwrap();
    let mut other = Place::at(server.url()).await;
    other.schema.clone_from(&stage.place.schema);
    drop(other.locks().await);
    let (request, grant) = take(&stage.locks, "x").await;
    let fence = fence_of(&request, grant);
    let row = "INSERT INTO {s}.locks (name, owner, token, granted_at, expires_at, free_at)
        VALUES ('x', repeat('0', 32), TOKEN, now(), 'infinity', 'infinity')";
    other.sql(&row.replace("TOKEN", &grant.token.to_string())).await;
    for isolation in [LEVELS[1], LEVELS[2]] {
        let mut guarded = stage.held(isolation, &fence).await;
        stage.ledger.write(&mut guarded, "lost").await;
        let single = Single::new(&stage, isolation).await;
        let mut tx = single.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM pg_class").execute(&mut *tx).await.unwrap();
        single.pool.set_connect_options(other.url.parse().unwrap());
        for outcome in
            [single.transactions.hold(&mut tx, &fence).await, single.transactions.commit(guarded, &fence).await]
        {
            let Err(FenceError::Store(error)) = outcome else { panic!("{isolation}: {outcome:?}") };
            assert_eq!((error.kind(), error.applied()), (ErrorKind::Unreachable, Applied::No), "{error}");
        }
        assert!(sqlx::query("SELECT 1").execute(&mut *tx).await.is_err());
        tx.rollback().await.unwrap();
        single.pool.close().await;
    }
    assert!(stage.ledger.entries().await.is_empty());
    stage.clear().await;
}

testbed::server_tests!(testbed::tests::private_postgres_can_be_had =>
    who_is_late_keeps_nobody_out_by_asking,
    a_look_that_gets_no_connection_is_given_up_in_time,
    what_another_server_says_counts_for_nothing,
);
