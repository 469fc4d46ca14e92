//! What sqlx does with a connection's transaction, where its `Transaction` doesn't let one see.

use sqlx::{Error, SqliteConnection, sqlite::SqliteTransactionManager};
use sqlx_core::transaction::TransactionManager;

/// Begins one that the driver knows of.
pub(super) async fn begin(connection: &mut SqliteConnection) -> Result<(), Error> {
    SqliteTransactionManager::begin(connection, None).await
}

/// Commits the transaction without giving its connection away: `Transaction::commit` hands it back to the pool also when
/// it fails, whatever SQLite has made of it.
pub(super) async fn commit(connection: &mut SqliteConnection) -> Result<(), Error> {
    SqliteTransactionManager::commit(connection).await
}

/// Rolls back all that the driver takes for open, from the innermost on: also those that were dropped when SQLite had ended
/// them all, and whose roll-back failed.
pub(super) async fn roll_back(connection: &mut SqliteConnection) -> Result<(), Error> {
    while depth(connection) > 0 {
        SqliteTransactionManager::rollback(connection).await?;
    }
    Ok(())
}

/// Has all that rolled back by the connection's own thread, whoever waits for it.
pub(super) fn start_roll_back(connection: &mut SqliteConnection) {
    // Once more than there are: the driver leaves out the first after an end whose outcome nobody took. Too many do nothing.
    for _ in 0..=depth(connection) {
        SqliteTransactionManager::start_rollback(connection);
    }
}

/// How many transactions, one in the other, the driver takes for open.
pub(super) fn depth(connection: &SqliteConnection) -> usize {
    SqliteTransactionManager::get_transaction_depth(connection)
}
