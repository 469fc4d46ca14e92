//! An application with a list in an SQLite file, which may be that of the locks.

use std::path::Path;

use lock_core::{Fence, FenceError, FencingToken, Resource};
use lock_sqlite::sqlx::{
    self, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};

use crate::common::name;

/// The application's pool on a file, which is made with the list if it isn't there.
pub(crate) async fn pool(path: &Path) -> SqlitePool {
    pool_in(path, SqliteJournalMode::Wal).await
}

pub(crate) async fn pool_in(path: &Path, mode: SqliteJournalMode) -> SqlitePool {
    open(path, mode, SqlitePoolOptions::new()).await
}

/// A pool of one connection: whatever is done next is done on the same one.
pub(crate) async fn single(path: &Path) -> SqlitePool {
    open(path, SqliteJournalMode::Wal, SqlitePoolOptions::new().max_connections(1)).await
}

async fn open(path: &Path, mode: SqliteJournalMode, pool: SqlitePoolOptions) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = pool.connect_with(options.journal_mode(mode)).await.unwrap();
    let list = "CREATE TABLE IF NOT EXISTS entries (position INTEGER PRIMARY KEY, entry TEXT NOT NULL)";
    sqlx::query(list).execute(&pool).await.unwrap();
    pool
}

/// A transaction that has the write lock from its beginning.
pub(crate) async fn immediate(pool: &SqlitePool) -> Transaction<'static, Sqlite> {
    pool.begin_with("BEGIN IMMEDIATE").await.unwrap()
}

pub(crate) async fn append(connection: &mut SqliteConnection, entry: &str) -> Result<(), sqlx::Error> {
    let insert = sqlx::query("INSERT INTO entries (entry) VALUES (?1)").bind(entry);
    insert.execute(connection).await.map(|_| ())
}

pub(crate) async fn entries(pool: &SqlitePool) -> Vec<String> {
    sqlx::query_scalar("SELECT entry FROM entries ORDER BY position").fetch_all(pool).await.unwrap()
}

pub(crate) fn fence(lock: &str, token: u64) -> Fence {
    Fence::new(name(lock), FencingToken::new(token)).unwrap()
}

pub(crate) fn resource(text: &str) -> Resource {
    Resource::new(text).unwrap()
}

/// What the store had to say, where it was no refusal.
#[track_caller]
pub(crate) fn store_error(outcome: Result<(), FenceError>) -> lock_core::StoreError {
    match outcome {
        Err(FenceError::Store(error)) => error,
        other => panic!("not an error of the store: {other:?}"),
    }
}
