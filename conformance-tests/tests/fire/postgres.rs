//! PostgreSQL under fire: one server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{
    Failure, Outcome,
    fire::{Begun, Chance, Fault, Ground, Lane, NotCommitted, Scale, Scene, Site, Stroke, TransactedSet, Wired},
};
use lock_core::{FenceError, Lease, Lock, LockProvider};
use lock_postgres::{PostgresLocks, PostgresTransactions};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use testbed::PrivateServer;

use crate::{clocks::Leaps, elsewhere, not_committed, not_written, opened, postgres_lists, servers};

pub(crate) struct Ours(Arc<PrivateServer>);

pub(crate) fn start() -> Result<Arc<dyn Ground>, Failure> {
    Ok(Arc::new(Ours(Arc::new(testbed::postgres_private_clocked()?))))
}

#[async_trait]
impl Ground for Ours {
    fn scale(&self) -> Scale {
        Scale { ttl: Duration::from_secs(2), grace: Duration::from_millis(500) }
    }

    fn wired(&self) -> Wired {
        Wired::Given(vec![self.0.host_port().to_owned()])
    }

    fn place(&self, by: &[SocketAddr]) -> String {
        servers::by(self.0.url(), &[self.0.host_port()], by)
    }

    fn faults(&self) -> Vec<Fault> {
        let mut faults = servers::faults_of_one(&self.0);
        faults.push(terminated(self.0.url()));
        faults.extend(servers::clocks_of(&self.0, Leaps::Alone));
        faults
    }

    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(PostgresLocks::connect(self.0.url()).await?))
    }

    async fn healed(&self) -> Outcome {
        servers::serves(&self.0).await
    }
}

/// The server itself ends the sessions of its clients, those that listen among them.
fn terminated(url: &str) -> Fault {
    let url = url.to_owned();
    let about = "the server ends all sessions (pg_terminate_backend), those that listen among them";
    Fault::new(Lane::People, "sessions-ended", about, move |_: &Chance, _| {
        let url = url.clone();
        Some(Stroke::at_once("all sessions", async move {
            // The server may be down just now, or end this very session.
            if let Ok(pool) = PgPoolOptions::new().max_connections(1).connect(&url).await {
                _ = sqlx::raw_sql(include_str!("sql/end_sessions.sql")).execute(&pool).await;
            }
            Ok(())
        }))
    })
}

/// A client's, or the operator's.
pub(crate) async fn open(site: Site) -> Result<Scene, Failure> {
    let locks = PostgresLocks::builder(site.place.as_str()).clock(Arc::clone(&site.clock)).build().await?;
    let url = site.place.clone();
    let guarded = opened({
        let url = url.clone();
        async move { postgres_lists::guard_list(&url, "guarded").await }
    });
    let registered = opened({
        let url = url.clone();
        async move { postgres_lists::register_list(&url, "registered").await }
    });
    Ok(Scene {
        locks: Arc::new(locks),
        sets: vec![
            ("elsewhere", elsewhere::set(&site.folder).await?),
            ("guarded", guarded.await?),
            ("registered", registered.await?),
        ],
        transacted: Some(Arc::new(Transacted::open(&url).await?)),
        counter: elsewhere::counter(&site.folder).await?,
    })
}

struct Transacted {
    pool: PgPool,
    transactions: PostgresTransactions,
}

impl Transacted {
    async fn open(url: &str) -> Result<Self, Failure> {
        let pool = PgPoolOptions::new().max_connections(4).connect(url).await?;
        sqlx::raw_sql(include_str!("sql/transacted.postgres.sql")).execute(&pool).await?;
        Ok(Self { transactions: PostgresTransactions::new(pool.clone()), pool })
    }
}

#[async_trait(?Send)]
impl TransactedSet for Transacted {
    async fn append(&self, lock: Lock, begun: &Begun<'_>) -> Result<(), NotCommitted> {
        let work = async |tx: &mut sqlx::Transaction<'static, sqlx::Postgres>, lease: &Lease| {
            let insert = sqlx::query(AssertSqlSafe("INSERT INTO fire_transacted (entry) VALUES ($1)"));
            insert.bind(begun(lease)).execute(&mut **tx).await.map(drop)
        };
        lock.run_in_transaction(&self.transactions, work).await.map_err(not_committed)
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        let entries = sqlx::query_scalar(AssertSqlSafe("SELECT entry FROM fire_transacted ORDER BY n"));
        entries.fetch_all(&self.pool).await.map_err(not_written)
    }
}
