//! What becomes of a transaction whose check failed, should its user go on with it.

use lock_core::{ErrorKind, FenceError};
use sqlx::{Error, SqliteConnection};

use super::{
    alive::{begin_anew, begin_if_ended, open_within},
    mark,
};

/// Sees to it that a transaction is not kept whose check failed, also if its user doesn't heed the error.
///
/// SQLite can't be told to fail a transaction, so it is given a reason to refuse the commit. Where it looks for none
/// (`foreign_keys` is off), what was written until now is undone, and what is written after is the user's own doing.
pub(super) async fn heed<T>(
    connection: &mut SqliteConnection,
    checked: Result<T, FenceError>,
) -> Result<T, FenceError> {
    if let Err(refusal) = &checked
        && let Err(error) = fail(connection, refusal).await
    {
        tracing::warn!(%refusal, %error, "the transaction of this refusal can't be undone; roll it back");
    }
    checked
}

async fn fail(connection: &mut SqliteConnection, refusal: &FenceError) -> Result<(), Error> {
    // The check itself may have been what SQLite ended it for.
    begin_if_ended(connection).await?;
    match doom(connection).await {
        Ok(true) => Ok(()),
        // It doesn't have the write lock, so it has written nothing. Begun anew, it could.
        Ok(false) | Err(_) if is_contention(refusal) => Ok(()),
        Ok(false) | Err(_) => undo(connection).await,
    }
}

/// Whether that was possible.
async fn doom(connection: &mut SqliteConnection) -> Result<bool, Error> {
    let looks: Option<bool> = sqlx::query_scalar("PRAGMA foreign_keys").fetch_optional(&mut *connection).await?;
    if looks != Some(true) {
        return Ok(false);
    }
    sqlx::raw_sql(include_str!("../sql/fence_doom.sql")).execute(connection).await.map(|_| true)
}

/// What is begun in its place counts as the same to whoever guards it: what was written is undone, and nothing is lost.
async fn undo(connection: &mut SqliteConnection) -> Result<(), Error> {
    let is_guarded = mark::take(connection).await?;
    begin_anew(connection).await?;
    if is_guarded {
        // Before those within, which would take it along when they end.
        mark::set(connection).await?;
    }
    open_within(connection).await
}

fn is_contention(refusal: &FenceError) -> bool {
    matches!(refusal, FenceError::Store(error) if error.kind() == ErrorKind::Contention)
}
