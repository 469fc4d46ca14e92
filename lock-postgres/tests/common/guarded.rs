//! Locks and an application's table in one database.

use std::time::Duration;

use lock_core::{AcquireRequest, Acquired, Fence, FenceError, LockProvider, Waiting};
use lock_postgres::{
    PostgresLocks, PostgresTransactions,
    sqlx::{
        self, PgPool,
        postgres::{PgConnectOptions, PgPoolOptions},
    },
};

use super::{Place, ask, ledger::Ledger, pooler::in_time, seconds, unique};

pub(crate) const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// The locks, the application's table, and transactions under the ones on the other.
pub(crate) struct Stage {
    pub(crate) place: Place,
    pub(crate) locks: PostgresLocks,
    pub(crate) ledger: Ledger,
    pub(crate) transactions: PostgresTransactions,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let place = Place::new().await;
        // No rest after an expiry: what keeps others out then is the guard alone.
        let locks = place.builder().grace(Duration::ZERO).build().await.unwrap();
        let ledger = Ledger::new(&place).await;
        let transactions = locks.transactions(ledger.pool.clone());
        Self { place, locks, ledger, transactions }
    }

    /// A transaction of the application's, which this grant guards.
    pub(crate) async fn held(&self, isolation: &str, fence: &Fence) -> sqlx::Transaction<'static, sqlx::Postgres> {
        let mut tx = self.ledger.begin(isolation).await;
        self.transactions.hold(&mut tx, fence).await.unwrap();
        tx
    }

    /// What who asks for it now is told.
    pub(crate) async fn asked(&self, lock: &str, waiting: Waiting) -> Acquired {
        let request = AcquireRequest { waiting, ..ask(lock, seconds(30)) };
        self.locks.acquire(&request).await.unwrap()
    }

    pub(crate) async fn refused(&self, lock: &str) {
        for waiting in [Waiting::No, Waiting::Wake(seconds(30)), Waiting::Wake(seconds(30))] {
            match self.asked(lock, waiting).await {
                Acquired::Held(held) => {
                    let soon = Duration::from_millis(50)..=Duration::from_millis(100);
                    assert!(held.remaining.is_some_and(|span| soon.contains(&span)), "{waiting:?} {held:?}");
                }
                other => panic!("{waiting:?} {other:?}"),
            }
        }
    }

    /// Until somebody waits for the guard of this key.
    pub(crate) async fn waited_for(&self, key: i64) {
        while self.guards(key, "NOT granted").await == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// How many hold the guard of this key, or wait for it.
    pub(crate) async fn guards(&self, key: i64, which: &str) -> i64 {
        let guards = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND {which}
             AND classid = ({key}::bigint >> 32 & 4294967295) AND objid = ({key}::bigint & 4294967295)"
        );
        self.place.number(&guards).await
    }

    pub(crate) async fn clear(self) {
        self.ledger.pool.close().await;
        drop(self.locks);
        self.place.clear().await;
    }
}

/// A pool of one connection, whose transactions are of this level.
pub(crate) struct Single {
    pub(crate) pool: PgPool,
    pub(crate) program: String,
    pub(crate) transactions: PostgresTransactions,
}

impl Single {
    pub(crate) async fn new(stage: &Stage, isolation: &str) -> Self {
        Self::of(stage, isolation, 1).await
    }

    /// A pool of so many connections.
    pub(crate) async fn of(stage: &Stage, isolation: &str, connections: u32) -> Self {
        let program = unique();
        let options: PgConnectOptions = stage.place.url.parse().unwrap();
        let options =
            options.application_name(&program).options([("default_transaction_isolation", isolation.to_lowercase())]);
        let pool = PgPoolOptions::new().max_connections(connections).connect_with(options).await.unwrap();
        let transactions = stage.locks.transactions(pool.clone());
        Self { pool, program, transactions }
    }

    /// Nothing is open in its session, though nobody uses it again.
    pub(crate) async fn rests(&self, stage: &Stage) {
        let open = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND state <> 'idle'",
            self.program
        );
        in_time(async {
            while stage.place.number(&open).await > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// A transaction without a lock is kept.
    pub(crate) async fn works(&self, stage: &Stage) {
        let before = stage.ledger.entries().await.len();
        let mut tx = self.pool.begin().await.unwrap();
        stage.ledger.write(&mut tx, "without a lock").await;
        tx.commit().await.unwrap();
        assert_eq!(stage.ledger.entries().await.len(), before + 1);
    }
}

pub(crate) fn not_held(outcome: Result<(), FenceError>) {
    assert!(matches!(&outcome, Err(FenceError::NotHeld(_))), "{outcome:?}");
}

/// The key of the guard that this transaction holds.
pub(crate) async fn guard_key(tx: &mut sqlx::Transaction<'_, sqlx::Postgres>) -> i64 {
    let key = "SELECT classid::bigint << 32 | objid::bigint FROM pg_locks
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    sqlx::query_scalar(key).fetch_one(&mut **tx).await.unwrap()
}
