//! A list in PostgreSQL: a row for each entry, in the order of their commits.

use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::FencedList;
use lock_core::{ErrorKind, FenceError, Lease, Pass, Resource, StoreError};
use lock_postgres::{PostgresFences, PostgresTransactions};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};

/// Appended to in transactions that the lock of the same database guards.
///
/// The URL is that of the database with the locks, whose schema is `leasehold`; the name has at most 58 bytes. What can't be had
/// is a panic.
pub(crate) async fn guard_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let table = Table::open(url, name).await;
    let fence = Check::Guard(PostgresTransactions::new(table.pool.clone()));
    Arc::new(List { table, fence })
}

/// Appended to in transactions that a register admits, wherever the lock is.
pub(crate) async fn register_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let table = Table::open(url, name).await;
    let fences = PostgresFences::builder(table.pool.clone()).build().await.expect("a register");
    let resource = Resource::new(name).expect("a name for the resource");
    Arc::new(List { table, fence: Check::Register(fences, resource) })
}

struct List {
    table: Table,
    fence: Check,
}

enum Check {
    Guard(PostgresTransactions),
    Register(PostgresFences, Resource),
}

struct Table {
    pool: PgPool,
    /// Quoted.
    name: String,
}

impl Table {
    async fn open(url: &str, name: &str) -> Self {
        let pool = PgPoolOptions::new().max_connections(4).connect(url).await.expect("a connection to PostgreSQL");
        let table = Self { pool, name: format!("\"list {}\"", name.replace('"', "\"\"")) };
        let create = format!(
            "SELECT pg_advisory_xact_lock(7307182319120318566);
             CREATE TABLE IF NOT EXISTS {} (n bigserial PRIMARY KEY, entry text NOT NULL)",
            table.name
        );
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&table.pool).await.expect("a table for the list");
        table
    }

    /// The statements that append, one transaction if they are sent as one.
    ///
    /// Numbers are drawn one after the other, also by those who don't check: so they are in the order of the commits.
    fn append(&self, entry: &str) -> AssertSqlSafe<String> {
        let (table, hex) = (&self.name, entry.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
        AssertSqlSafe(format!(
            "LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;
             INSERT INTO {table} (entry) VALUES (convert_from(decode('{hex}', 'hex'), 'UTF8'))"
        ))
    }
}

#[async_trait]
impl FencedList for List {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        let mut tx = self.table.pool.begin().await.map_err(uncommitted)?;
        match &self.fence {
            Check::Guard(transactions) => transactions.hold(&mut tx, lease).await?,
            Check::Register(fences, resource) => fences.admit(&mut tx, resource, lease, Pass::Again).await?,
        }
        sqlx::raw_sql(self.table.append(entry)).execute(&mut *tx).await.map_err(uncommitted)?;
        tx.commit().await.map_err(committing)
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        let append = sqlx::raw_sql(self.table.append(entry));
        append.execute(&self.table.pool).await.map(drop).map_err(committing)
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        let select = format!("SELECT entry FROM {} ORDER BY n", self.table.name);
        sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(&self.table.pool).await.map_err(uncommitted)
    }
}

fn uncommitted(error: sqlx::Error) -> FenceError {
    StoreError::refused(ErrorKind::Other, error.to_string()).into()
}

fn committing(error: sqlx::Error) -> FenceError {
    StoreError::unknown(ErrorKind::Other, error.to_string()).into()
}
