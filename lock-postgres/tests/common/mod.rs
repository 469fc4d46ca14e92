//! A database for one test: the testbed's server, and a schema and a role of the test's own.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

pub(crate) mod guarded;
pub(crate) mod ledger;
pub(crate) mod pooler;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lock_core::{
    AcquireRequest, Acquired, Clock, Fence, Grant, LockName, LockProvider, OsEntropy, OwnerId, ReleaseRequest,
    RenewRequest, SystemClock,
};
use lock_postgres::{Builder, PostgresLocks};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};

pub(crate) const PASSWORD: &str = "s3cret-word";

/// What one test works on. [`Place::clear`] removes it.
pub(crate) struct Place {
    pub(crate) admin: PgPool,
    pub(crate) url: String,
    pub(crate) schema: String,
    roles: Vec<String>,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let server = tokio::task::spawn_blocking(testbed::postgres).await.unwrap().unwrap_or_else(|missing| {
            panic!("no PostgreSQL for this test: {missing}");
        });
        Self::at(server.url()).await
    }

    /// In the database of this URL.
    pub(crate) async fn at(url: &str) -> Self {
        let admin = PgPoolOptions::new().max_connections(3).connect(url).await.unwrap();
        Self { admin, url: url.to_owned(), schema: format!("test {}", unique()), roles: Vec::new() }
    }

    pub(crate) fn builder(&self) -> Builder {
        PostgresLocks::builder(self.url.as_str()).schema(&self.schema)
    }

    pub(crate) async fn locks(&self) -> PostgresLocks {
        self.builder().build().await.unwrap()
    }

    pub(crate) async fn sql(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.replace("{s}", &self.quoted()))).execute(&self.admin).await.unwrap();
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = sql.replace("{s}", &self.quoted());
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.admin).await.unwrap()
    }

    /// A role that can log in, and the URL to do so.
    pub(crate) async fn role(&mut self) -> (String, String) {
        let role = format!("role_{}", unique());
        self.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")).await;
        self.roles.push(role.clone());
        let (_, rest) = self.url.split_once('@').unwrap();
        let url = format!("postgres://{role}:{PASSWORD}@{rest}");
        (role, url)
    }

    pub(crate) async fn clear(self) {
        self.sql("DROP SCHEMA IF EXISTS {s} CASCADE").await;
        for role in &self.roles {
            self.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
        }
    }

    fn quoted(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }
}

pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}_{}_{}", SystemClock.wall_micros(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn name(name: &str) -> LockName {
    LockName::new(name).unwrap()
}

pub(crate) fn ask(lock: &str, ttl: Duration) -> AcquireRequest {
    AcquireRequest::new(name(lock), OwnerId::random(&OsEntropy), ttl)
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn granted(acquired: Acquired) -> Grant {
    match acquired {
        Acquired::Granted(grant) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

/// A grant of a free lock, and the request it came from.
pub(crate) async fn take(locks: &PostgresLocks, lock: &str) -> (AcquireRequest, Grant) {
    let request = ask(lock, seconds(30));
    let grant = granted(locks.acquire(&request).await.unwrap());
    (request, grant)
}

pub(crate) fn give_back(request: &AcquireRequest, grant: Grant) -> ReleaseRequest {
    ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token))
}

pub(crate) fn again(request: &AcquireRequest, grant: Grant) -> RenewRequest {
    RenewRequest::new(request.name.clone(), request.owner, grant.token, request.ttl)
}

/// The fence of this grant.
pub(crate) fn fence_of(request: &AcquireRequest, grant: Grant) -> Fence {
    Fence::new(request.name.clone(), grant.token).unwrap()
}

pub(crate) async fn pass(by: Duration) {
    SystemClock.sleep_until(SystemClock.now() + by).await;
}
