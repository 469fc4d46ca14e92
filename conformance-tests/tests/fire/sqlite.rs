//! SQLite under fire: a file, which only clients can be kept from.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{
    Failure, Outcome,
    fire::{Begun, Fault, Ground, Lane, NotCommitted, Scale, Scene, Site, Stroke, TransactedSet, Wired},
};
use lock_core::{Clock, FenceError, Lease, Lock, LockProvider, Moment, SystemClock};
use lock_sqlite::{SqliteLocks, SqliteTransactions};
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tempfile::TempDir;

use crate::{elsewhere, not_committed, not_written, opened, sqlite_lists};

/// A process that stands still in mid-transaction stops all writers of its file until it goes on.
const BUSY_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) struct Ours {
    file: PathBuf,
    _folder: TempDir,
}

pub(crate) fn start() -> Result<Arc<dyn Ground>, Failure> {
    let folder = tempfile::tempdir()?;
    Ok(Arc::new(Ours { file: folder.path().join("locks.db"), _folder: folder }))
}

#[async_trait]
impl Ground for Ours {
    fn scale(&self) -> Scale {
        Scale { ttl: Duration::from_secs(2), grace: Duration::ZERO }
    }

    fn wired(&self) -> Wired {
        Wired::Nowhere
    }

    fn place(&self, _: &[SocketAddr]) -> String {
        format!("sqlite:{}", self.file.display())
    }

    fn faults(&self) -> Vec<Fault> {
        vec![locked(self.place(&[]))]
    }

    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(SqliteLocks::connect(&self.place(&[])).await?))
    }

    async fn healed(&self) -> Outcome {
        Ok(())
    }
}

/// Another program has the file for itself.
fn locked(url: String) -> Fault {
    let about = "another program keeps the file locked (BEGIN EXCLUSIVE) for up to 2 ttls";
    Fault::new(Lane::Server, "file-locked", about, move |chance, scale| {
        let url = url.clone();
        let (held, holds) = tokio::sync::oneshot::channel::<SqlitePool>();
        let begin = async move {
            let pool = pool(&url).await?;
            sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&pool).await?;
            // Handed on with the transaction open, and closed by the end.
            _ = held.send(pool);
            Ok(())
        };
        let end = async move {
            if let Ok(pool) = holds.await {
                sqlx::raw_sql("ROLLBACK").execute(&pool).await?;
                pool.close().await;
            }
            Ok(())
        };
        Some(Stroke::new("the file", scale.ttls(0.1, 2.0, chance), begin, end))
    })
}

async fn pool(url: &str) -> Result<SqlitePool, Failure> {
    let options = SqliteConnectOptions::from_str(url)?;
    let options = options.create_if_missing(true).busy_timeout(BUSY_TIMEOUT).journal_mode(SqliteJournalMode::Wal);
    Ok(SqlitePoolOptions::new().max_connections(1).acquire_timeout(BUSY_TIMEOUT).connect_with(options).await?)
}

/// By which a file's locks are kept. All users of a file must have the same clock, that of the host, for its leases; their
/// wall clocks, by which tokens rise, may jump each by itself.
#[derive(Debug)]
struct Kept(Arc<dyn Clock>);

#[async_trait]
impl Clock for Kept {
    fn now(&self) -> Moment {
        SystemClock.now()
    }

    fn wall_micros(&self) -> u64 {
        self.0.wall_micros()
    }

    async fn sleep_until(&self, at: Moment) {
        SystemClock.sleep_until(at).await;
    }
}

/// A client's, or the operator's, whose own clock may be wrong.
pub(crate) async fn open(site: Site) -> Result<Scene, Failure> {
    let file = site.place.strip_prefix("sqlite:").unwrap_or(&site.place);
    let locks = SqliteLocks::builder(file).clock(Arc::new(Kept(Arc::clone(&site.clock)))).build().await?;
    let (one, other) = (site.place.clone(), site.place.clone());
    Ok(Scene {
        locks: Arc::new(locks),
        sets: vec![
            ("elsewhere", elsewhere::set(&site.folder).await?),
            ("guarded", opened(async move { sqlite_lists::guard_list(&one, "guarded").await }).await?),
            ("registered", opened(async move { sqlite_lists::register_list(&other, "registered").await }).await?),
        ],
        transacted: Some(Arc::new(Transacted::open(&site.place).await?)),
        counter: elsewhere::counter(&site.folder).await?,
    })
}

struct Transacted {
    pool: SqlitePool,
    transactions: SqliteTransactions,
}

impl Transacted {
    async fn open(url: &str) -> Result<Self, Failure> {
        let pool = pool(url).await?;
        sqlx::raw_sql(include_str!("sql/transacted.sqlite.sql")).execute(&pool).await?;
        Ok(Self { transactions: SqliteTransactions::new(pool.clone()), pool })
    }
}

#[async_trait(?Send)]
impl TransactedSet for Transacted {
    async fn append(&self, lock: Lock, begun: &Begun<'_>) -> Result<(), NotCommitted> {
        let work = async |transaction: &mut Transaction<'static, Sqlite>, lease: &Lease| {
            let insert = sqlx::query("INSERT INTO fire_transacted (entry) VALUES (?1)").bind(begun(lease));
            insert.execute(&mut **transaction).await.map(drop)
        };
        lock.run_in_transaction(&self.transactions, work).await.map_err(not_committed)
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        let entries = sqlx::query_scalar("SELECT entry FROM fire_transacted ORDER BY n");
        entries.fetch_all(&self.pool).await.map_err(not_written)
    }
}
