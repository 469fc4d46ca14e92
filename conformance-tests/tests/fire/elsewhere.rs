//! What is written under the locks and survives all that is done to their store: a file of SQLite that all processes share.

use std::{path::Path, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{Failure, FencedList, fire::FencedCounter};
use lock_core::{ErrorKind, FenceError, Lease, Pass, Resource, StoreError};
use lock_sqlite::SqliteFences;
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};

/// A process that stands still in mid-transaction stops all writers of the file until it goes on.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// A set behind a register.
pub(crate) async fn set(folder: &Path) -> Result<Arc<dyn FencedList>, Failure> {
    let url = format!("sqlite:{}", folder.join("elsewhere.db").display());
    crate::opened(async move { crate::sqlite_lists::register_list(&url, "elsewhere").await }).await
}

/// A number behind a register.
pub(crate) async fn counter(folder: &Path) -> Result<Arc<dyn FencedCounter>, Failure> {
    let options = SqliteConnectOptions::from_str(&format!("sqlite:{}", folder.join("counter.db").display()))?;
    let options = options.create_if_missing(true).busy_timeout(BUSY_TIMEOUT).journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await?;
    sqlx::raw_sql(include_str!("sql/counter.sql")).execute(&pool).await?;
    let fences = SqliteFences::new(pool.clone()).await?;
    Ok(Arc::new(Counter { pool, fences, resource: Resource::new("counter")? }))
}

struct Counter {
    pool: SqlitePool,
    fences: SqliteFences,
    resource: Resource,
}

impl Counter {
    async fn admitted(&self, lease: &Lease) -> Result<Transaction<'static, Sqlite>, FenceError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(not_written)?;
        self.fences.admit(&mut transaction, &self.resource, lease, Pass::Again).await?;
        Ok(transaction)
    }
}

#[async_trait]
impl FencedCounter for Counter {
    async fn read(&self, lease: &Lease) -> Result<u64, FenceError> {
        let mut transaction = self.admitted(lease).await?;
        let value: i64 =
            sqlx::query_scalar("SELECT value FROM counter").fetch_one(&mut *transaction).await.map_err(not_written)?;
        // With it the register: nobody with an older grant writes after this.
        transaction.commit().await.map_err(in_doubt)?;
        Ok(value.unsigned_abs())
    }

    async fn write(&self, lease: &Lease, value: u64) -> Result<(), FenceError> {
        let mut transaction = self.admitted(lease).await?;
        let update = sqlx::query("UPDATE counter SET value = ?1").bind(i64::try_from(value).unwrap_or(i64::MAX));
        update.execute(&mut *transaction).await.map_err(not_written)?;
        transaction.commit().await.map_err(in_doubt)
    }

    async fn value(&self) -> Result<u64, FenceError> {
        let value: i64 =
            sqlx::query_scalar("SELECT value FROM counter").fetch_one(&self.pool).await.map_err(not_written)?;
        Ok(value.unsigned_abs())
    }
}

fn not_written(error: sqlx::Error) -> FenceError {
    StoreError::refused(ErrorKind::Other, "the counter can't be used").caused_by(error).into()
}

fn in_doubt(error: sqlx::Error) -> FenceError {
    StoreError::unknown(ErrorKind::Other, "the commit failed").caused_by(error).into()
}
