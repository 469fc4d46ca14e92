//! PgBouncer for one test.

use lock_postgres::{Builder, PostgresLocks};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection,
    postgres::{PgConnectOptions, PgRow},
};

use super::{Place, seconds, unique};

/// A PgBouncer of the test's own, and behind it a database whose defaults are others than ours.
pub(crate) struct Pooler {
    pub(crate) pooler: testbed::PrivateServer,
    /// The server's own database, past the pooler.
    server: String,
    pub(crate) database: String,
    /// The test's database, past the pooler.
    pub(crate) place: Place,
}

impl Pooler {
    pub(crate) async fn new() -> Self {
        let (server, pooler) = tokio::task::spawn_blocking(|| {
            let server = testbed::postgres()?;
            let pooler = testbed::pgbouncer_before(&server)?;
            Ok::<_, testbed::Missing>((server.url().to_owned(), pooler))
        })
        .await
        .unwrap()
        .unwrap_or_else(|missing| panic!("no PgBouncer for this test: {missing}"));
        let database = format!("pooled_{}", unique());
        let mut administrator = PgConnection::connect(&server).await.unwrap();
        for sql in [
            format!("CREATE DATABASE {database}"),
            format!("ALTER DATABASE {database} SET default_transaction_isolation = serializable"),
            format!("ALTER DATABASE {database} SET statement_timeout = 77777"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut administrator).await.unwrap();
        }
        let place = Place::at(&in_database(&server, &database)).await;
        Self { pooler, server, database, place }
    }

    pub(crate) fn url(&self) -> String {
        in_database(self.pooler.url(), &self.database)
    }

    pub(crate) fn builder(&self) -> Builder {
        PostgresLocks::builder(self.url()).schema(&self.place.schema)
    }

    pub(crate) async fn locks(&self) -> PostgresLocks {
        self.builder().build().await.unwrap()
    }

    /// On the pooler's console.
    pub(crate) async fn console(&self, sql: &'static str) -> Vec<PgRow> {
        let url = in_database(self.pooler.url(), "pgbouncer");
        let options: PgConnectOptions = url.parse().unwrap();
        let mut console = PgConnection::connect_with(&options.extra_float_digits(None)).await.unwrap();
        sqlx::raw_sql(sql).fetch_all(&mut console).await.unwrap()
    }

    /// Ends the sessions that are in the way of, or at, what this names; returns how many there were.
    pub(crate) async fn terminate(&self, doing: &str) -> i64 {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
             WHERE datname = '{}' AND wait_event_type = 'Lock' AND query LIKE '{doing}%'",
            self.database
        );
        self.place.number(&sql).await
    }

    pub(crate) async fn terminate_one(&self, doing: &str) {
        in_time(async {
            while self.terminate(doing).await == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) async fn clear(self) {
        self.place.admin.close().await;
        let mut administrator = PgConnection::connect(&self.server).await.unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut administrator).await.unwrap();
    }
}

fn in_database(url: &str, database: &str) -> String {
    format!("{}/{database}", url.rsplit_once('/').unwrap().0)
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(seconds(20), future).await.expect("an event within 20 s")
}
