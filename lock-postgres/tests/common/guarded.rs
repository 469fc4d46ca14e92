//! Locks and an application's table in one database.

use std::time::Duration;

use lock_core::{AcquireRequest, Acquired, Applied, ErrorKind, Fence, FenceError, LockProvider, Waiting};
use lock_postgres::{PostgresLocks, PostgresTransactions, sqlx};

use super::{Place, ask, ledger::Ledger, seconds};

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

    /// A transaction of the application's, which this grant guards. Done again as its error says, where a waiter has marked
    /// the row since the snapshot.
    pub(crate) async fn held(&self, isolation: &str, fence: &Fence) -> sqlx::Transaction<'static, sqlx::Postgres> {
        for _ in 0..20 {
            let mut tx = self.ledger.begin(isolation).await;
            match self.transactions.hold(&mut tx, fence).await {
                Err(FenceError::Store(error)) if isolation != LEVELS[0] => {
                    assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
                }
                outcome => {
                    outcome.unwrap();
                    return tx;
                }
            }
        }
        panic!("twenty times in vain");
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

pub(crate) fn not_held(outcome: Result<(), FenceError>) {
    assert!(matches!(&outcome, Err(FenceError::NotHeld(_))), "{outcome:?}");
}

/// The key of the guard that this transaction holds.
pub(crate) async fn guard_key(tx: &mut sqlx::Transaction<'_, sqlx::Postgres>) -> i64 {
    let key = "SELECT classid::bigint << 32 | objid::bigint FROM pg_locks
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    sqlx::query_scalar(key).fetch_one(&mut **tx).await.unwrap()
}
