//! How a transaction ends, so that its connection can be used on.

use std::path::Path;

use lock_core::{ErrorKind, FenceError, StoreError};
use scopeguard::ScopeGuard;
use sqlx::{Error, Sqlite, SqliteConnection, Transaction};
use tokio::runtime::Handle;

use super::{
    alive::{ended, open_again},
    driver, mark,
};
use crate::{
    failure::{at_commit, before_commit},
    place::quoted,
};

/// One that comes to its end, also if that is broken off: it is abandoned then.
pub(super) type Ending = ScopeGuard<Transaction<'static, Sqlite>, fn(Transaction<'static, Sqlite>)>;

pub(super) fn ending(transaction: Transaction<'static, Sqlite>) -> Ending {
    scopeguard::guard(transaction, abandon as fn(_))
}

/// Has it rolled back at once, whoever waits, and then sees to its connection: dropped after SQLite had ended it, that could
/// begin none any more.
pub(super) fn abandon(mut transaction: Transaction<'static, Sqlite>) {
    driver::start_roll_back(&mut transaction);
    // Outside of a runtime it is dropped.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move { logged(roll_back_all(&mut transaction).await) });
    }
}

/// Commits it.
///
/// # Errors
/// Says whether it may have been applied. It is rolled back then, if SQLite hasn't done so itself.
pub(super) async fn commit(mut transaction: Ending, path: &Path) -> Result<(), StoreError> {
    let committed = match driver::depth(&transaction) {
        1 => driver::commit(&mut transaction).await.map_err(|error| at_commit(error, path)),
        // The driver would commit the innermost, and undo all of them when they are dropped.
        _ => Err(left_open(path)),
    };
    match committed {
        Ok(()) => drop(ScopeGuard::into_inner(transaction)),
        Err(_) => undo(transaction).await,
    }
    committed
}

fn left_open(path: &Path) -> StoreError {
    let what = "was not written: a transaction was left open within this one; end those that are begun within it";
    StoreError::refused(ErrorKind::Other, format!("{} {what}", quoted(path)))
}

/// Rolls a guarded one back.
///
/// # Errors
/// As unknown if it had ended before: what came after that was kept.
pub(super) async fn roll_back(mut transaction: Ending, path: &Path) -> Result<(), StoreError> {
    let was_guarded = mark::take(&mut transaction).await;
    let undone = roll_back_all(&mut transaction).await;
    drop(ScopeGuard::into_inner(transaction));
    match was_guarded {
        Ok(false) => Err(ended(path)),
        was_guarded => was_guarded.and(undone).map_err(|error| before_commit(error, path)),
    }
}

/// The refusal, told when others can write again.
pub(super) async fn undone(transaction: Ending, refusal: FenceError) -> FenceError {
    undo(transaction).await;
    refusal
}

async fn undo(mut transaction: Ending) {
    logged(roll_back_all(&mut transaction).await);
    drop(ScopeGuard::into_inner(transaction));
}

/// Whatever SQLite has made of it. Dropped after that, it rolls back nothing: the driver knows that none is open.
async fn roll_back_all(connection: &mut SqliteConnection) -> Result<(), Error> {
    if driver::roll_back(connection).await.is_ok() {
        return Ok(());
    }
    open_again(connection).await?;
    driver::roll_back(connection).await
}

fn logged(undone: Result<(), Error>) {
    if let Err(error) = undone {
        tracing::debug!(%error, "no roll-back; SQLite does it when the connection is closed");
    }
}
