//! The list in an SQLite file: guarded by a lock in the same file, or fenced by one that is kept anywhere.

use std::{str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::FencedList;
use lock_core::{ErrorKind, FenceError, Lease, Pass, Resource, StoreError};
use lock_sqlite::{SqliteFences, SqliteTransactions};
use sqlx::{
    AssertSqlSafe, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};

/// A process that stands still in mid-transaction stops all writers of its file until it goes on.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// The list whose writes hold the lock, which is in the same file.
pub(crate) async fn guard_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let pool = pool(url).await;
    let check = Check::Guard(SqliteTransactions::new(pool.clone()));
    Arc::new(List::new(pool, name, check).await)
}

/// The list whose writes are admitted by the register beside it.
pub(crate) async fn register_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let pool = pool(url).await;
    let fences = SqliteFences::new(pool.clone()).await.unwrap();
    let check = Check::Register(fences, Resource::new(name).unwrap());
    Arc::new(List::new(pool, name, check).await)
}

async fn pool(url: &str) -> SqlitePool {
    let options = SqliteConnectOptions::from_str(url).unwrap();
    let options = options.create_if_missing(true).busy_timeout(BUSY_TIMEOUT).journal_mode(SqliteJournalMode::Wal);
    SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap()
}

enum Check {
    Guard(SqliteTransactions),
    Register(SqliteFences, Resource),
}

struct List {
    pool: SqlitePool,
    check: Check,
    append: Arc<str>,
    entries: Arc<str>,
}

impl List {
    async fn new(pool: SqlitePool, name: &str, check: Check) -> Self {
        let table = format!("\"{}\"", name.replace('"', "\"\""));
        let make =
            format!("CREATE TABLE IF NOT EXISTS {table} (position INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT)");
        sqlx::query(AssertSqlSafe(make)).execute(&pool).await.unwrap();
        let append = format!("INSERT INTO {table} (entry) VALUES (?1)").into();
        let entries = format!("SELECT entry FROM {table} ORDER BY position").into();
        Self { pool, check, append, entries }
    }

    async fn insert(&self, connection: &mut SqliteConnection, entry: &str) -> Result<(), FenceError> {
        let insert = sqlx::query(AssertSqlSafe(Arc::clone(&self.append))).bind(entry);
        insert.execute(connection).await.map_err(not_written).map(|_| ())
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, FenceError> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(not_written)
    }
}

#[async_trait]
impl FencedList for List {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        let mut transaction = self.begin().await?;
        match &self.check {
            Check::Guard(guard) => guard.hold(&mut transaction, lease).await?,
            Check::Register(fences, list) => fences.admit(&mut transaction, list, lease, Pass::Again).await?,
        }
        self.insert(&mut transaction, entry).await?;
        transaction.commit().await.map_err(in_doubt)
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        let mut transaction = self.begin().await?;
        self.insert(&mut transaction, entry).await?;
        transaction.commit().await.map_err(in_doubt)
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        let entries = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.entries)));
        entries.fetch_all(&self.pool).await.map_err(not_written)
    }
}

fn not_written(error: sqlx::Error) -> FenceError {
    StoreError::refused(ErrorKind::Other, "the list can't be used").caused_by(error).into()
}

fn in_doubt(error: sqlx::Error) -> FenceError {
    StoreError::unknown(ErrorKind::Other, "the commit failed").caused_by(error).into()
}
