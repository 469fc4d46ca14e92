//! Which file, and how it is used.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lock_core::{Clock, ErrorKind, Operation, StoreError, SystemClock};

use crate::{SqliteLocks, place, provider::STORE, store::Store, url};

/// How a file of locks is opened; made by [`SqliteLocks::builder`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("state/locks.db");
/// let locks = lock_sqlite::SqliteLocks::builder(path)
///     .create_directory(true)
///     .busy_timeout(std::time::Duration::from_secs(2))
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SqliteLocksBuilder {
    pub(crate) path: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) busy_timeout: Duration,
    pub(crate) retention: Duration,
    create_directory: bool,
}

const BUSY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const BUSY_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const RETENTION_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
const RETENTION_MIN: Duration = Duration::from_secs(24 * 3600);

impl SqliteLocks {
    /// Opens a file of locks, and makes it if it isn't there: by URL (`sqlite:/abs/path`, `sqlite:relative`,
    /// `sqlite:///abs/path`, percent-decoded) or by plain path.
    ///
    /// # Errors
    /// As [`SqliteLocksBuilder::build`], and [`ErrorKind::InvalidConfig`] for a URL that can't be understood.
    pub async fn connect(url_or_path: &str) -> Result<Self, StoreError> {
        let path = url::path_of(url_or_path).map_err(|why| why.at(STORE, Operation::Connect, None))?;
        Self::builder(path).build().await
    }

    /// The statements that make the tables, for people: opening a file runs them.
    #[must_use]
    pub fn ddl() -> &'static str {
        include_str!("sql/schema.sql")
    }

    /// Begins to open the file at a path, with options.
    pub fn builder(path: impl AsRef<Path>) -> SqliteLocksBuilder {
        SqliteLocksBuilder {
            path: path.as_ref().to_owned(),
            clock: Arc::new(SystemClock),
            busy_timeout: BUSY_TIMEOUT_DEFAULT,
            retention: RETENTION_DEFAULT,
            create_directory: false,
        }
    }
}

impl SqliteLocksBuilder {
    /// The clock that leases are counted on; the host's by default. All users of one file must have the same.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long an operation waits for the file's write lock before it fails with
    /// [`Contention`](ErrorKind::Contention): 1 ms to an hour, 5 s by default.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// How long the record of an idle lock is kept after its lease's end: at least 24 h, 7 days by default.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Whether a missing directory of the file is made, for its owner alone (mode 0700); by default it isn't.
    pub fn create_directory(mut self, create: bool) -> Self {
        self.create_directory = create;
        self
    }

    /// Opens the file, and makes it and its tables if they aren't there. Many processes may do so at once.
    ///
    /// # Errors
    /// One line that names the path and what to do: [`ErrorKind::InvalidConfig`] for an option out of its range or a path
    /// that names no file; [`ErrorKind::NotReady`] or [`ErrorKind::Denied`] for a missing directory, a file that is
    /// read-only or not an SQLite database or on a network file system, or a newer schema; [`ErrorKind::Contention`] if
    /// others keep the file locked. Nothing was made then but, if asked for, the directory.
    ///
    /// Cancel safe.
    pub async fn build(self) -> Result<SqliteLocks, StoreError> {
        self.open().await.map_err(|why| why.at(STORE, Operation::Connect, None))
    }

    async fn open(mut self) -> Result<SqliteLocks, StoreError> {
        if self.busy_timeout < Duration::from_millis(1) || self.busy_timeout > BUSY_TIMEOUT_MAX {
            return refuse("busy_timeout goes from 1 ms to an hour; choose one within");
        }
        if self.retention < RETENTION_MIN {
            return refuse(
                "retention is at least 24 h, so that tokens rise over the loss of a record; choose a longer one",
            );
        }
        let Some(text) = self.path.to_str() else {
            return refuse("the path is not UTF-8; name another file");
        };
        self.path = place::absolute(&url::path_of_plain(text)?)?;
        place::check(&self.path, self.create_directory)?;
        Ok(SqliteLocks { store: Arc::new(Store::open(self).await?) })
    }
}

fn refuse<T>(message: &str) -> Result<T, StoreError> {
    Err(StoreError::refused(ErrorKind::InvalidConfig, message))
}
