//! A table of the application's, in the schema of the test.

use lock_postgres::sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use super::Place;

/// What was written, in its order.
pub(crate) struct Ledger {
    schema: String,
    pub(crate) pool: PgPool,
}

impl Ledger {
    pub(crate) async fn new(place: &Place) -> Self {
        place.sql("CREATE SCHEMA IF NOT EXISTS {s}; CREATE TABLE {s}.entries (n serial, entry text)").await;
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(12).connect(&place.url).await.unwrap();
        Self { schema: place.schema.clone(), pool }
    }

    pub(crate) async fn begin(&self, isolation: &str) -> Transaction<'static, Postgres> {
        self.pool.begin_with(AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {isolation}"))).await.unwrap()
    }

    pub(crate) async fn write(&self, tx: &mut Transaction<'_, Postgres>, entry: &str) {
        let insert = format!("INSERT INTO \"{}\".entries (entry) VALUES ($1)", self.schema);
        sqlx::query(AssertSqlSafe(insert)).bind(entry).execute(&mut **tx).await.unwrap();
    }

    pub(crate) async fn entries(&self) -> Vec<String> {
        let select = format!("SELECT entry FROM \"{}\".entries ORDER BY n", self.schema);
        sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(&self.pool).await.unwrap()
    }
}
