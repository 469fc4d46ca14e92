//! What sqlx does with a connection's transaction, where its `Transaction` doesn't let one see.

use sqlx::{Error, SqliteConnection, sqlite::SqliteTransactionManager};
use sqlx_core::transaction::TransactionManager;

/// Commits the transaction without giving its connection away: `Transaction::commit` hands it back to the pool also when
/// it fails, whatever SQLite has made of it.
pub(super) async fn commit(connection: &mut SqliteConnection) -> Result<(), Error> {
    SqliteTransactionManager::commit(connection).await
}

/// How many transactions, one in the other, the driver takes for open.
pub(super) fn depth(connection: &SqliteConnection) -> usize {
    SqliteTransactionManager::get_transaction_depth(connection)
}
