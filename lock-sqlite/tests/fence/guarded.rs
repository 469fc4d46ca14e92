//! An application that keeps its data in the file of the locks, and what SQLite may do to its transactions.

use lock_core::Fence;
use lock_sqlite::{
    SqliteFences, SqliteLocks, SqliteTransactions,
    sqlx::{self, SqliteConnection, SqlitePool},
};

use crate::{
    app::{append, entries, fence, immediate, single},
    common::{Home, TTL, ask, take},
};

/// An application whose one connection is to the file of the locks, and a grant that it has.
pub(crate) struct Guarded {
    pub(crate) locks: SqliteLocks,
    pub(crate) pool: SqlitePool,
    pub(crate) transactions: SqliteTransactions,
    pub(crate) fences: SqliteFences,
    pub(crate) fence: Fence,
    _home: Home,
}

impl Guarded {
    pub(crate) async fn new() -> Self {
        let home = Home::new();
        let locks = home.locks().await;
        let pool = single(&home.path()).await;
        let transactions = SqliteTransactions::new(pool.clone());
        let fences = SqliteFences::new(pool.clone()).await.unwrap();
        let fence = fence("x", take(&locks, &ask("x", TTL)).await.token.get());
        Self { locks, pool, transactions, fences, fence, _home: home }
    }
}

/// After it the driver believes that the transaction is open still.
pub(crate) async fn end(transaction: &mut SqliteConnection) {
    let ends_it = sqlx::query("INSERT OR ROLLBACK INTO entries SELECT 1, 'a' UNION ALL SELECT 1, 'b'");
    ends_it.execute(transaction).await.unwrap_err();
}

/// What is begun on the pool's one connection is a transaction, and what is committed is kept.
pub(crate) async fn is_usable(pool: &SqlitePool) {
    let before = entries(pool).await.len();
    immediate(pool).await.rollback().await.unwrap();
    let mut dropped = pool.begin().await.unwrap();
    append(&mut dropped, "dropped").await.unwrap();
    drop(dropped);
    let mut kept = pool.begin().await.unwrap();
    append(&mut kept, "kept").await.unwrap();
    kept.commit().await.unwrap();
    let options = pool.connect_options();
    let mut other = sqlx::ConnectOptions::connect(&*options).await.unwrap();
    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM entries").fetch_one(&mut other).await.unwrap();
    assert_eq!(seen, i64::try_from(before).unwrap() + 1, "seen by others");
}
