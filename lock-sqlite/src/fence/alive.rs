//! Whether a transaction is still one.

use std::path::Path;

use lock_core::{ErrorKind, StoreError};
use sqlx::{AssertSqlSafe, Error, SqliteConnection};

use super::driver;
use crate::{
    failure::{before_commit, is_wrong},
    place::quoted,
};

/// Checks that SQLite hasn't ended the transaction by itself, as it does after some failures (`OR ROLLBACK`,
/// `RAISE(ROLLBACK)`, a full disk). The driver doesn't notice, and what follows would be committed statement by statement.
///
/// # Errors
/// As unknown: what was written before is gone, what came after was kept. The connection is in a transaction again then, an
/// empty one, so that the driver's roll-back finds what it expects. If it didn't, the driver would count the transaction as
/// open for ever, and whoever gets the connection from the pool next could begin none.
pub(super) async fn is_alive(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    if !begin_if_ended(connection).await.map_err(|error| before_commit(error, path))? {
        return Ok(());
    }
    let what = "was left by this transaction: SQLite rolled it back when a statement failed, and statements after that were \
                on their own; begin anew";
    Err(StoreError::unknown(ErrorKind::Other, format!("{} {what}", quoted(path))))
}

/// Begins an empty one in the place of one that SQLite has ended: whether it had.
pub(super) async fn begin_if_ended(connection: &mut SqliteConnection) -> Result<bool, Error> {
    match sqlx::query(include_str!("../sql/fence_begin.sql")).execute(&mut *connection).await {
        Err(error) if is_wrong(&error) => Ok(false),
        Err(error) => Err(error),
        Ok(_) => open_again(connection).await.map(|()| true),
    }
}

/// Begins those in a transaction that the driver takes for open, by its names for them.
pub(super) async fn open_again(connection: &mut SqliteConnection) -> Result<(), Error> {
    for depth in 1..driver::depth(connection) {
        let savepoint = AssertSqlSafe(format!("SAVEPOINT _sqlx_savepoint_{depth}"));
        sqlx::raw_sql(savepoint).execute(&mut *connection).await?;
    }
    Ok(())
}
