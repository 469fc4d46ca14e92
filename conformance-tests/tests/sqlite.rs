//! The suite over SQLite.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use conformance_tests::{Counted, Failure, Faulty, Harness, Hook, Lacking, Missing, SkewedClock, Unreliable};
use lock_core::{LockName, LockProvider};
use lock_sqlite::SqliteLocks;
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

conformance_tests::suite!(SqliteHarness);

/// A file of locks in a folder of its own.
struct SqliteHarness {
    folder: TempDir,
    commands: Arc<AtomicU64>,
}

impl SqliteHarness {
    fn path(&self) -> PathBuf {
        self.folder.path().join("locks.db")
    }

    fn counted(&self, store: SqliteLocks) -> Arc<dyn LockProvider> {
        Arc::new(Counted::new(Arc::new(store), self.commands.clone()))
    }
}

#[async_trait]
impl Harness for SqliteHarness {
    async fn open() -> Result<Self, Missing> {
        let folder = tempfile::tempdir().map_err(|error| Missing(format!("no folder for a file of locks: {error}")))?;
        Ok(Self { folder, commands: Arc::default() })
    }

    fn store(&self) -> &'static str {
        "sqlite"
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(self.counted(SqliteLocks::builder(self.path()).build().await?))
    }

    fn skewed_provider(&self, micros: i64) -> Hook<'_, Arc<dyn LockProvider>> {
        Ok(Box::pin(async move {
            let clock = Arc::new(SkewedClock::new(micros));
            Ok(self.counted(SqliteLocks::builder(self.path()).clock(clock).build().await?))
        }))
    }

    fn delete_record<'a>(&'a self, name: &'a LockName) -> Hook<'a> {
        Ok(Box::pin(async move {
            let mut operator = SqliteConnectOptions::new().filename(self.path()).connect().await?;
            let done = sqlx::query("DELETE FROM leasehold_locks WHERE name = ?")
                .bind(name.as_str())
                .execute(&mut operator)
                .await?;
            match done.rows_affected() {
                1 => Ok(()),
                rows => Err(Failure::new(format!("{rows} records of {name:?} were there to be deleted"))),
            }
        }))
    }

    /// Deletes the file, and the two that SQLite keeps beside it.
    fn wipe(&self) -> Hook<'_> {
        Ok(Box::pin(async move {
            for end in ["", "-wal", "-shm"] {
                let file = format!("{}{end}", self.path().display());
                match std::fs::remove_file(file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            Ok(())
        }))
    }

    fn faulty(&self) -> Hook<'_, Faulty> {
        Ok(Box::pin(async move {
            let unreliable = Arc::new(Unreliable::new(self.provider().await?));
            Ok(Faulty { provider: unreliable.clone(), faults: unreliable })
        }))
    }

    fn commands(&self) -> Hook<'_, u64> {
        Ok(Box::pin(async move { Ok(self.commands.load(Ordering::SeqCst)) }))
    }

    fn cut_subscriptions(&self) -> Hook<'_> {
        Err(Lacking::new("the kernel's file events can't be cut"))
    }

    fn child_spec(&self) -> Result<String, Lacking> {
        Ok(self.path().display().to_string())
    }

    async fn open_in_child(spec: &str) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(SqliteLocks::builder(spec).build().await?))
    }
}
