//! Whether a transaction is still one.

use std::path::Path;

use futures_util::TryStreamExt;
use lock_core::{ErrorKind, StoreError};
use sqlx::{
    AssertSqlSafe, Error, FromRow, Sqlite, SqliteConnection,
    query::QueryAs,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::driver;
use crate::{failure::is_wrong, place::quoted};

/// What a check read, with the answer to its last statement, a `BEGIN`, which only fails in a transaction.
///
/// SQLite ends a transaction by itself after some failures (`OR ROLLBACK`, `RAISE(ROLLBACK)`, a full disk). The driver doesn't
/// notice, and what follows would be committed statement by statement. A message of its own for that cost a tenth of a small
/// transaction.
pub(super) enum Read<R> {
    /// In the transaction.
    Alive(Option<R>),
    /// It had ended. What was written before is gone, what came after was kept. The connection is in a transaction again, an
    /// empty one, so that the driver's roll-back finds what it expects. If it didn't, the driver would count the transaction as
    /// open for ever, and whoever gets the connection from the pool next could begin none.
    Ended,
    /// The check failed, in the transaction.
    Failed(Error),
}

/// Asks a check whose last statement is that `BEGIN`. Its first row counts.
///
/// # Errors
/// That the transaction can't be looked after.
pub(super) async fn read_alive<R>(
    connection: &mut SqliteConnection,
    check: QueryAs<'_, Sqlite, R, SqliteArguments>,
) -> Result<Read<R>, Error>
where
    R: Send + Unpin + for<'r> FromRow<'r, SqliteRow>,
{
    let (mut row, mut unreadable) = (None, None);
    let failure = {
        let mut rows = check.fetch(&mut *connection);
        loop {
            match rows.try_next().await {
                Ok(Some(read)) => _ = row.get_or_insert(read),
                Ok(None) => break None,
                // It is of the row alone, and the answer to the `BEGIN` is still to come.
                Err(error @ (Error::ColumnDecode { .. } | Error::Decode(_))) => _ = unreadable.get_or_insert(error),
                Err(error) => break Some(error),
            }
        }
    };
    let ended = match &failure {
        // It began one.
        None => end_told(connection, true).await?,
        Some(error) if is_within(error) => end_told(connection, false).await?,
        // It came to nothing, or only to an end: whether there was one is asked anew.
        Some(_) => begin_if_ended(connection).await?,
    };
    Ok(match failure {
        _ if ended => Read::Ended,
        Some(error) if !is_within(&error) => Read::Failed(error),
        _ => unreadable.map_or(Read::Alive(row), Read::Failed),
    })
}

/// Whether it is a `BEGIN` that failed since a transaction is open. SQLite has no code for it.
fn is_within(error: &Error) -> bool {
    is_wrong(error) && error.as_database_error().is_some_and(|error| error.message().ends_with("within a transaction"))
}

/// What is told of a transaction that isn't the one that was begun.
pub(super) fn ended(path: &Path) -> StoreError {
    let what = "was left by this transaction: SQLite rolled it back when a statement failed, or the work ended it, and \
                statements after that were on their own; begin anew";
    StoreError::unknown(ErrorKind::Other, format!("{} {what}", quoted(path)))
}

/// Begins an empty one in the place of one that SQLite has ended: whether it had.
pub(super) async fn begin_if_ended(connection: &mut SqliteConnection) -> Result<bool, Error> {
    let begun = begins(connection).await?;
    end_told(connection, begun).await
}

/// The same, when a `BEGIN` has been tried already, and it is known whether that began one.
async fn end_told(connection: &mut SqliteConnection, begun: bool) -> Result<bool, Error> {
    // After it: the driver's count is right when it has answered all that was asked before.
    let has_ended = begun || was_within(connection).await?;
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
