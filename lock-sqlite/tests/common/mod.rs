//! What the tests of this store share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{path::PathBuf, time::Duration};

use lock_core::{
    AcquireRequest, Acquired, Grant, LockName, LockProvider, OsEntropy, OwnerId, ReleaseRequest, RenewRequest,
};
use lock_sqlite::{
    SqliteLocks,
    sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions},
};
use tempfile::TempDir;

pub(crate) const TTL: Duration = Duration::from_secs(30);
/// Long enough for a slow machine, for what should take milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A directory with a file of locks in it.
pub(crate) struct Home {
    pub(crate) directory: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("locks.db")
    }

    pub(crate) async fn locks(&self) -> SqliteLocks {
        SqliteLocks::builder(self.path()).build().await.unwrap()
    }

    /// The file as somebody else sees it.
    pub(crate) async fn sql(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path()).create_if_missing(true);
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// Whatever lies beside the file, by name.
    pub(crate) fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) fn delete(&self) {
        for file in self.files() {
            std::fs::remove_file(self.directory.path().join(file)).unwrap();
        }
    }
}

pub(crate) fn name(text: &str) -> LockName {
    LockName::new(text).unwrap()
}

/// A wish under a fresh owner.
pub(crate) fn ask(lock: &str, ttl: Duration) -> AcquireRequest {
    AcquireRequest::new(name(lock), OwnerId::random(&OsEntropy), ttl)
}

pub(crate) fn granted(answer: Acquired) -> Grant {
    match answer {
        Acquired::Granted(grant) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

pub(crate) async fn take(locks: &SqliteLocks, request: &AcquireRequest) -> Grant {
    granted(locks.acquire(request).await.unwrap())
}

pub(crate) async fn is_held(locks: &SqliteLocks, lock: &str) -> bool {
    matches!(locks.acquire(&ask(lock, TTL)).await.unwrap(), Acquired::Held(_))
}

pub(crate) fn give_back(request: &AcquireRequest, grant: Grant) -> ReleaseRequest {
    ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token))
}

pub(crate) fn extend(request: &AcquireRequest, grant: Grant) -> RenewRequest {
    RenewRequest::new(request.name.clone(), request.owner, grant.token, request.ttl)
}
