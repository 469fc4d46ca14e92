//! How a transaction ends, so that its connection can be used on.

use std::path::Path;

use lock_core::{FenceError, StoreError};
use sqlx::{Sqlite, Transaction};

use super::{alive::is_alive, driver};
use crate::failure::{at_commit, before_commit};

/// Commits it.
///
/// # Errors
/// Says whether it may have been applied. It is rolled back then, if SQLite hasn't done so itself.
pub(super) async fn commit(mut transaction: Transaction<'static, Sqlite>, path: &Path) -> Result<(), StoreError> {
    let committed = driver::commit(&mut transaction).await.map_err(|error| at_commit(error, path));
    if committed.is_err() {
        mended(transaction, path).await;
    }
    // Dropped after it was committed, it rolls back nothing: the driver knows that none is open.
    committed
}

/// Rolls it back.
///
/// # Errors
/// As unknown if SQLite had ended it before: what came after that was kept.
pub(super) async fn roll_back(mut transaction: Transaction<'static, Sqlite>, path: &Path) -> Result<(), StoreError> {
    let was_alive = is_alive(&mut transaction, path).await;
    let undone = match driver::roll_back_inner(&mut transaction).await {
        Ok(()) => transaction.rollback().await,
        Err(error) => Err(error),
    };
    was_alive.and(undone.map_err(|error| before_commit(error, path)))
}

/// The refusal, told when others can write again.
pub(super) async fn undone(transaction: Transaction<'static, Sqlite>, path: &Path, refusal: FenceError) -> FenceError {
    mended(transaction, path).await;
    refusal
}

/// Rolls back what nobody waits for.
pub(super) async fn mended(transaction: Transaction<'static, Sqlite>, path: &Path) {
    if let Err(error) = roll_back(transaction, path).await {
        tracing::debug!(%error, "it was rolled back by SQLite, or is when the connection is closed");
    }
}
