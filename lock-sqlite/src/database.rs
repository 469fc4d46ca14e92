//! The opened file: one connection that writes, one that reads.
//!
//! SQLite has one writer at a time, so more connections would only wait in its busy loop instead of in our queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lock_core::{Clock, ErrorKind, LockName, Moment, StoreError};
use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    failure::{at_commit, before_commit, is_busy},
    ledger::Ledger,
    place::{self, Identity, quoted},
    row::{self, Row},
};

/// The version of `schema.sql`. It doesn't rise for a column that older programs can do without: a fleet isn't upgraded
/// at one stroke, and each run of the command opens the file anew.
const SCHEMA_VERSION: i64 = 1;

/// How long opening waits before it asks again: changing a file to WAL is refused at once while others use it.
const OPENING_PAUSE: Duration = Duration::from_millis(10);

/// How long a disk may take beyond the wait for others, before it counts as hanging.
pub(crate) const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// A file, opened.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    identity: Option<Identity>,
    patience: Duration,
    writer: Arc<Mutex<SqliteConnection>>,
    reader: Arc<Mutex<SqliteConnection>>,
    /// An operation failed in a way after which the connections aren't trusted.
    broken: AtomicBool,
}

/// By what a transaction judges time.
#[derive(Clone, Debug)]
pub(crate) struct Timekeeping {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) boot_id: Arc<str>,
}

impl Database {
    /// Opens the file, makes its schema if it isn't there, and waits at most `patience` for others who keep it locked.
    pub(crate) async fn open(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        let attempts = async {
            let mut over = std::pin::pin!(tokio::time::sleep(patience));
            loop {
                match Self::open_once(path, patience).await {
                    Err(why) if why.kind() == ErrorKind::Contention => tokio::select! {
                        () = &mut over => return Err(why),
                        () = tokio::time::sleep(OPENING_PAUSE) => {}
                    },
                    done => return done,
                }
            }
        };
        let hangs =
            || StoreError::refused(ErrorKind::Timeout, format!("{}: the disk did not answer in time", quoted(path)));
        tokio::time::timeout(patience + DISK_PATIENCE, attempts).await.unwrap_or_else(|_| Err(hangs()))
    }

    async fn open_once(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        let failed = |error| before_commit(error, path);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(patience)
            // NORMAL would lose the last commits in a power cut, and with them lower the tokens.
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let before = place::identity(path);
        let mut writer = options.connect().await.map_err(failed)?;
        prepare(&mut writer, path).await?;
        let identity = place::identity(path);
        let reader = options.create_if_missing(false).pragma("query_only", "ON").connect().await.map_err(failed)?;
        // Both connections must be of the file that the path leads to from now on.
        if before.is_some_and(|before| Some(before) != identity) || place::identity(path) != identity {
            return Err(busy(path));
        }
        Ok(Self {
            path: path.to_owned(),
            identity,
            patience,
            writer: Arc::new(Mutex::new(writer)),
            reader: Arc::new(Mutex::new(reader)),
            broken: AtomicBool::new(false),
        })
    }

    /// Whether it must be opened anew: a connection broke, or the path leads to another file or none. Whoever went on
    /// with a deleted file would share no lock with those who come after.
    pub(crate) fn is_stale(&self) -> bool {
        self.broken.load(Ordering::Relaxed) || place::identity(&self.path) != self.identity
    }

    /// Reads some locks' records, without a write lock.
    pub(crate) async fn read(&self, names: &[LockName], time: &Timekeeping) -> Result<Ledger, StoreError> {
        let mut reader = self.turn(&self.reader).await?;
        let query = sqlx::query_as(include_str!("sql/read.sql")).bind(json_of(names)?);
        let rows: Vec<Row> = query.fetch_all(&mut *reader).await.map_err(|error| self.note(error))?;
        Ok(ledger(rows, time))
    }

    /// A page of records, in byte order of their names.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        below: Option<String>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let mut reader = self.turn(&self.reader).await?;
        let query = sqlx::query_as(include_str!("sql/list.sql")).bind(prefix).bind(below).bind(after).bind(limit);
        query.fetch_all(&mut *reader).await.map_err(|error| self.note(error))
    }

    /// A number that changes whenever another connection, be it of this process, has committed.
    pub(crate) async fn data_version(&self) -> Result<i64, StoreError> {
        let mut reader = self.turn(&self.reader).await?;
        let query = sqlx::query_scalar(include_str!("sql/data_version.sql"));
        query.fetch_one(&mut *reader).await.map_err(|error| self.note(error))
    }

    /// This operation's turn to write. Dropping the future before gives the turn up.
    pub(crate) async fn writer(&self) -> Result<OwnedMutexGuard<SqliteConnection>, StoreError> {
        self.turn(&self.writer).await
    }

    async fn turn(
        &self,
        connection: &Arc<Mutex<SqliteConnection>>,
    ) -> Result<OwnedMutexGuard<SqliteConnection>, StoreError> {
        let turn = tokio::time::timeout(self.patience, Arc::clone(connection).lock_owned()).await;
        turn.map_err(|_| busy(&self.path))
    }

    /// Reads some locks' records under the file's write lock, lets them be judged, and commits what that changed.
    ///
    /// Dropped in mid-transaction it rolls back: the driver does so on the connection's own thread.
    pub(crate) async fn change<T>(
        &self,
        writer: &mut SqliteConnection,
        names: &[LockName],
        time: &Timekeeping,
        sweep_before_micros: impl FnOnce(Moment, u64) -> Option<u64>,
        judge: impl FnOnce(&mut Ledger) -> T,
    ) -> Result<T, StoreError> {
        let names = json_of(names)?;
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.note(error))?;
        let query = sqlx::query_as(include_str!("sql/read.sql")).bind(names);
        let rows: Vec<Row> = query.fetch_all(&mut *transaction).await.map_err(|error| self.note(error))?;
        let mut ledger = ledger(rows, time);
        let answer = judge(&mut ledger);
        if ledger.changed.is_empty() {
            transaction.rollback().await.map_err(|error| self.note(error))?;
            return Ok(answer);
        }
        let write = sqlx::query(include_str!("sql/write.sql")).bind(changes(&ledger)?).bind(&*time.boot_id);
        write.execute(&mut *transaction).await.map_err(|error| self.note(error))?;
        if let Some(before) = sweep_before_micros(ledger.now, ledger.wall_micros) {
            let sweep = sqlx::query(include_str!("sql/sweep.sql"))
                .bind(row::capped(before))
                .bind(&*time.boot_id)
                .bind(row::capped(ledger.now.as_nanos()))
                .bind(row::capped(ledger.wall_micros));
            sweep.execute(&mut *transaction).await.map_err(|error| self.note(error))?;
        }
        transaction.commit().await.map_err(|error| {
            self.distrust(&error);
            at_commit(error, &self.path)
        })?;
        Ok(answer)
    }

    fn note(&self, error: sqlx::Error) -> StoreError {
        self.distrust(&error);
        before_commit(error, &self.path)
    }

    /// A busy file is nobody's fault; after anything else the next operation opens the file anew.
    fn distrust(&self, error: &sqlx::Error) {
        if !is_busy(error) {
            self.broken.store(true, Ordering::Relaxed);
        }
    }
}

/// Checks what kind of file it is before anything is changed, then makes what is missing.
async fn prepare(writer: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let failed = |error| before_commit(error, path);
    let look = sqlx::query_as(include_str!("sql/look.sql"));
    let (encoding, mode, has_schema, has_locks, has_last_tick): (String, String, bool, bool, bool) =
        look.fetch_one(&mut *writer).await.map_err(failed)?;
    if encoding != "UTF-8" {
        let what = format!("{} is a database in {encoding}; name one in UTF-8, or another file", quoted(path));
        return Err(StoreError::refused(ErrorKind::NotReady, what));
    }
    if has_schema && has_locks && !has_last_tick {
        upgrade(writer, path).await?;
    } else if has_schema {
        check_schema(writer, path).await?;
    } else if has_locks {
        return Err(not_ours(path));
    }
    if mode != "wal" {
        let wal = sqlx::query_scalar(include_str!("sql/wal.sql"));
        let mode: String = wal.fetch_one(&mut *writer).await.map_err(failed)?;
        if mode != "wal" {
            let what = format!("{} can't be put in WAL mode there; name a file on a local disk", quoted(path));
            return Err(StoreError::refused(ErrorKind::NotReady, what));
        }
    }
    if !has_schema {
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        sqlx::raw_sql(include_str!("sql/schema.sql")).execute(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        check_schema(writer, path).await?;
    }
    Ok(())
}

/// Adds what a file of an earlier program lacks. Nothing is changed if it turns out not to be ours.
async fn upgrade(writer: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let failed = |error| before_commit(error, path);
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    // Another process may have been faster.
    let look = sqlx::query_scalar(include_str!("sql/has_last_tick.sql"));
    if !look.fetch_one(&mut *transaction).await.map_err(failed)? {
        sqlx::raw_sql(include_str!("sql/last_tick.sql")).execute(&mut *transaction).await.map_err(failed)?;
    }
    check_schema(&mut transaction, path).await?;
    transaction.commit().await.map_err(failed)
}

/// A schema that isn't ours is told now and not at the first acquire.
async fn check_schema(writer: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let failed = |error| if is_busy(&error) { before_commit(error, path) } else { not_ours(path).caused_by(error) };
    let query = sqlx::query_scalar(include_str!("sql/version.sql"));
    let version: Option<i64> = query.fetch_optional(&mut *writer).await.map_err(failed)?;
    match version {
        Some(SCHEMA_VERSION) => {
            let read = sqlx::query_as(include_str!("sql/read.sql")).bind("[]");
            let _none: Vec<Row> = read.fetch_all(writer).await.map_err(failed)?;
            Ok(())
        }
        Some(newer) if newer > SCHEMA_VERSION => {
            let what = format!(
                "{} has the schema version {newer}, and this program knows {SCHEMA_VERSION}; upgrade this program",
                quoted(path)
            );
            Err(StoreError::refused(ErrorKind::NotReady, what))
        }
        other => {
            let found = other.map_or_else(|| "no".to_owned(), |version| version.to_string());
            let what = format!(
                "{} has {found} schema version where {SCHEMA_VERSION} is expected; name another file",
                quoted(path)
            );
            Err(StoreError::refused(ErrorKind::NotReady, what))
        }
    }
}

fn not_ours(path: &Path) -> StoreError {
    let what = format!("{} has tables named leasehold_… that are not of this program; name another file", quoted(path));
    StoreError::refused(ErrorKind::NotReady, what)
}

/// Reads the clock; call it once the rows are had.
fn ledger(rows: Vec<Row>, time: &Timekeeping) -> Ledger {
    // A row whose very name can't be understood is none that was asked for.
    let records: BTreeMap<_, _> = rows.into_iter().filter_map(|row| row::parse(row, &time.boot_id).ok()).collect();
    Ledger {
        records,
        changed: BTreeSet::new(),
        freed: BTreeSet::new(),
        now: time.clock.now(),
        wall_micros: time.clock.wall_micros(),
    }
}

fn changes(ledger: &Ledger) -> Result<String, StoreError> {
    let changed = ledger.changed.iter().filter_map(|name| Some((name, ledger.records.get(name)?.as_ref().ok()?)));
    let rows: Vec<_> =
        changed.map(|(name, record)| row::to_json(name, record, ledger.now, ledger.wall_micros)).collect();
    serde_json::to_string(&rows).map_err(unspeakable)
}

fn json_of(names: &[LockName]) -> Result<String, StoreError> {
    let names: BTreeSet<&str> = names.iter().map(LockName::as_str).collect();
    serde_json::to_string(&names).map_err(unspeakable)
}

fn unspeakable(error: serde_json::Error) -> StoreError {
    StoreError::refused(ErrorKind::Other, "the request can't be written as JSON").caused_by(error)
}

fn busy(path: &Path) -> StoreError {
    StoreError::refused(ErrorKind::Contention, format!("{} is busy; try again", quoted(path)))
}
