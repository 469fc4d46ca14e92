//! Which transaction is the guarded one.
//!
//! That one is open says nothing: the driver, or the work, may have begun it after SQLite ended the guarded one. So that has a
//! savepoint of ours, which ends with it, whatever ends it.

use sqlx::{Error, SqliteConnection};

/// As the statements have it, and what SQLite says when it is missing.
const NAME: &str = "leasehold_guarded";

/// Whether it failed since the transaction is not, or no longer, the one that was marked.
pub(super) fn is_missing(error: &Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains(NAME))
}

/// Takes the mark away, and with it the savepoints of those within: whether the transaction had it.
pub(super) async fn take(connection: &mut SqliteConnection) -> Result<bool, Error> {
    match sqlx::query(include_str!("../sql/fence_marked.sql")).execute(connection).await {
        Err(error) if is_missing(&error) => Ok(false),
        taken => taken.map(|_| true),
    }
}

pub(super) async fn set(connection: &mut SqliteConnection) -> Result<(), Error> {
    sqlx::query(include_str!("../sql/fence_mark.sql")).execute(connection).await.map(|_| ())
}
