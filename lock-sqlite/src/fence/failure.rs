//! What a failed check is told as.

use std::path::Path;

use lock_core::{ErrorKind, StoreError};
use sqlx::SqliteConnection;

use crate::{
    failure::{before_commit, is_old_snapshot, is_wrong},
    place::quoted,
};

/// A table that a check reads.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// What to do where there is none.
    pub(super) missing: &'static str,
}

/// What a failed statement of a check means: it wrote nothing.
pub(super) async fn in_check(
    error: sqlx::Error,
    connection: &mut SqliteConnection,
    path: &Path,
    table: &Table,
) -> StoreError {
    let (kind, message) = if is_old_snapshot(&error) {
        let what = "was written by somebody else since this transaction first read; roll it back and begin anew, with \
                    BEGIN IMMEDIATE if it is to wait for its turn";
        (ErrorKind::Contention, format!("{} {what}", quoted(path)))
    } else if let sqlx::Error::ColumnDecode { .. } = error {
        let what = "holds a value of a type that no version of this program writes; something else writes there";
        (ErrorKind::Corrupt, format!("{} {what}", table.name))
    } else if is_wrong(&error)
        && let Some(file) = file_without(table, connection).await
    {
        (ErrorKind::NotReady, format!("{file} has no table {}: {}", table.name, table.missing))
    } else {
        return before_commit(error, path);
    };
    StoreError::refused(kind, message).caused_by(error)
}

/// The file that a transaction is really on, if it has no such table.
async fn file_without(table: &Table, connection: &mut SqliteConnection) -> Option<String> {
    let look = sqlx::query_as(include_str!("../sql/fence_table.sql")).bind(table.name);
    let (file, has_table): (Option<String>, bool) = look.fetch_one(connection).await.ok()?;
    let file = file.filter(|file| !file.is_empty()).map(|file| quoted(Path::new(&file)));
    (!has_table).then(|| file.unwrap_or_else(|| "the transaction's database".to_owned()))
}
