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
    match begin_if_ended(connection).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(ended(path)),
        Err(error) => Err(before_commit(error, path)),
    }
}

/// What is told of a transaction that isn't the one that was begun.
pub(super) fn ended(path: &Path) -> StoreError {
    let what = "was left by this transaction: SQLite rolled it back when a statement failed, or the work ended it, and \
                statements after that were on their own; begin anew";
    StoreError::unknown(ErrorKind::Other, format!("{} {what}", quoted(path)))
}

/// Begins an empty one in the place of one that SQLite has ended: whether it had.
pub(super) async fn begin_if_ended(connection: &mut SqliteConnection) -> Result<bool, Error> {
    // It comes first: the driver's count is right when it has answered all that was asked before.
    let mut has_ended = begins(connection).await?;
    if !has_ended {
        has_ended = was_within(connection).await?;
    }
    // Or it has rolled back one too many, as it does for one within that is dropped while it begins.
    if has_ended || driver::depth(connection) == 0 {
        return open_again(connection).await.map(|()| true);
    }
    Ok(false)
}

/// Whether what is open is one that the driver began within the transaction when that had ended. Undone, it leaves its savepoint:
/// in the transaction that is nothing any more, without it is one of its own.
async fn was_within(connection: &mut SqliteConnection) -> Result<bool, Error> {
    let left = AssertSqlSafe(format!("RELEASE SAVEPOINT _sqlx_savepoint_{}", driver::depth(connection)));
    match sqlx::query(left).execute(&mut *connection).await {
        Ok(_) => begins(connection).await,
        Err(error) if is_wrong(&error) => Ok(false),
        // Only a commit fails so.
        Err(Error::Database(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Begins one if none is open: whether it did.
async fn begins(connection: &mut SqliteConnection) -> Result<bool, Error> {
    match sqlx::query(include_str!("../sql/fence_begin.sql")).execute(connection).await {
        Err(error) if is_wrong(&error) => Ok(false),
        begun => begun.map(|_| true),
    }
}

/// Undoes whatever is open, and begins what the driver takes for open.
pub(super) async fn open_again(connection: &mut SqliteConnection) -> Result<(), Error> {
    begin_anew(connection).await?;
    open_within(connection).await
}

/// Undoes whatever is open, and begins the outermost.
pub(super) async fn begin_anew(connection: &mut SqliteConnection) -> Result<(), Error> {
    match sqlx::query(include_str!("../sql/fence_roll_back.sql")).execute(&mut *connection).await {
        Err(error) if !is_wrong(&error) => return Err(error),
        _ => {}
    }
    if driver::depth(connection) == 0 {
        return driver::begin(connection).await;
    }
    sqlx::query(include_str!("../sql/fence_begin.sql")).execute(connection).await.map(|_| ())
}

/// Begins those in it, by the driver's names for them.
pub(super) async fn open_within(connection: &mut SqliteConnection) -> Result<(), Error> {
    for depth in 1..driver::depth(connection) {
        let savepoint = AssertSqlSafe(format!("SAVEPOINT _sqlx_savepoint_{depth}"));
        sqlx::raw_sql(savepoint).execute(&mut *connection).await?;
    }
    Ok(())
}
