//! The register: the lock anywhere, the data and the highest fences in one SQLite file.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use lock_core::{
    ErrorKind, Fence, FenceError, FenceRegister, FenceReport, FencingToken, LockName, Observer, Operation, Pass,
    Resource, StoreError, ToFence, admit,
};
use sqlx::{
    ConnectOptions, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    BEGIN,
    alive::{Read, ended, read_alive},
    end::{Ending, commit, ending, undone},
    failure::{Table, in_check},
    refusal::heed,
};
use crate::{
    failure::{before_commit, is_wrong},
    place::{self, quoted},
    provider::STORE,
    url,
};

const FENCES: Table = Table {
    name: "leasehold_fences",
    missing: "no fences are kept in it; open the register on the file that has the data",
};

const ADMIT: &str = include_str!("../sql/fence_admit.sql");

/// In a transaction that somebody else began, which may not be one any more.
const ADMIT_AND_BEGIN: &str = concat!(include_str!("../sql/fence_admit.sql"), include_str!("../sql/fence_begin.sql"));

/// How long a connection of its own waits for others that write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A row of the table: the lock and its token.
type Row = (String, i64);

/// The highest fence of each resource, in the SQLite file that has the data, for locks that are kept anywhere. Clones share
/// their connections.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use lock_core::{Fence, FenceRegister, Pass, Resource};
/// use lock_sqlite::{SqliteFences, sqlx::{self, SqlitePool, sqlite::SqliteConnectOptions}};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path).create_if_missing(true)).await?;
/// sqlx::query("CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INTEGER)").execute(&pool).await?;
/// let fences = SqliteFences::new(pool.clone()).await?;
/// let accounts = Resource::new("accounts")?;
///
/// // A lease's, or as it came along with a request.
/// let fence: Fence = "1764328000123456@accounts".parse()?;
/// fences.raise(&accounts, &fence, Pass::Again).await?; // before the first read: late writes of others are refused now
///
/// let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
/// fences.admit(&mut tx, &accounts, &fence, Pass::Again).await?;
/// sqlx::query("INSERT INTO accounts VALUES ('anna', 100)").execute(&mut *tx).await?;
/// tx.commit().await?;
///
/// let stale: Fence = "1764328000000000@accounts".parse()?;
/// let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
/// assert!(fences.admit(&mut tx, &accounts, &stale, Pass::Again).await.is_err());
/// # Ok(()) }
/// ```
///
/// # What it guarantees
/// [`admit`](Self::admit) and the writes of its transaction are one step, as far as SQLite keeps that [one
/// step](#what-it-cant-see), and no other write of the file comes between. The tokens that a resource has let in never fall,
/// unless somebody [forgets](FenceRegister::forget) them, or puts an older file in the place of this one.
///
/// A transaction whose check failed is not kept, also if that isn't heeded: its commit fails (SQLite says `FOREIGN KEY
/// constraint failed`) and undoes all that was written in it, before the check and after. A savepoint that is rolled back
/// takes the check in it along. On connections with `foreign_keys` switched off (they are on unless your options say
/// otherwise) only what was written *before* the check is undone; what you write after it is committed, so don't.
///
/// # What it costs
/// A few short statements where the token was seen before. A higher one is written along with the transaction's writes, in
/// the same commit. The file has one writer at a time, and an admitted transaction is it until it ends.
///
/// # What the commit is worth
/// As much as the settings of the pool make it. With `synchronous` at FULL (the default) writes and fences survive a power
/// cut. With NORMAL in WAL mode the last transactions may be lost then, their fences along with them: a late write of
/// a holder on another host may then pass that was refused before, so keep FULL where fences come from other hosts.
///
/// # What it can't see
/// A failing statement may make SQLite roll back the whole transaction (`OR ROLLBACK`, `RAISE(ROLLBACK)`, a full disk, an
/// interrupt). What was written and raised is gone then, and with it the write lock; statements that follow are committed
/// one by one, whatever others raise in the meantime, and no check stands before them. The next [`admit`](Self::admit) of
/// the transaction tells of it, as an error that says that something may have been kept
/// ([`Applied::Maybe`](lock_core::Applied)); but not in a transaction that was begun within after the end, which is one of its
/// own. The driver doesn't: its commit fails, and so does its roll-back, and the connection goes back to the pool but can
/// begin no transaction any more. So after any such error begin and write no more in the transaction, and call
/// [`admit`](Self::admit) once more before you roll it back: that puts the connection right.
///
/// `leasehold_fences` is all that is made in the file; its journal mode stays as it is.
#[derive(Clone, Debug)]
pub struct SqliteFences {
    pool: SqlitePool,
    report: FenceReport,
}

impl SqliteFences {
    /// The register in a file: by URL (`sqlite:/abs/path`, `sqlite:relative`) or by plain path. File and table are made if
    /// they aren't there. It has a connection of its own, with `synchronous` at FULL.
    ///
    /// # Errors
    /// Those of [`new`](Self::new); [`ErrorKind::InvalidConfig`] for a URL that can't be understood;
    /// [`ErrorKind::NotReady`] or [`ErrorKind::Denied`] for a place where no such file can be kept, as with
    /// [`SqliteLocks`](crate::SqliteLocks::connect).
    pub async fn connect(url_or_path: &str) -> Result<Self, StoreError> {
        let place = |why: StoreError| why.at(STORE, Operation::Connect, None);
        let path = url::path_of(url_or_path).and_then(|path| place::absolute(&path)).map_err(place)?;
        place::check(&path, false).map_err(place)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        Self::new(pool.map_err(|error| place(before_commit(error, &path)))?).await
    }

    /// The register in the file of an application's pool. The table is made if it isn't there.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] if the table can't be made, or is none of this program, or the file lies on a network file
    /// system, where SQLite's locks can't be relied on; [`ErrorKind::Contention`] if others keep the file locked.
    pub async fn new(pool: SqlitePool) -> Result<Self, StoreError> {
        let fences = Self { pool, report: FenceReport::new(STORE) };
        fences.prepare().await.map_err(|why| why.at(STORE, Operation::Connect, None))?;
        Ok(fences)
    }

    /// Tells refusals to this observer, for metrics. Clones that were made before don't.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// The statement that makes the table, for people: opening the register runs it.
    #[must_use]
    pub fn ddl() -> &'static str {
        include_str!("../sql/fence_schema.sql")
    }

    /// Lets the writes of this transaction through if the fence passes, and raises what the resource has seen. What was
    /// written before is kept or undone with the rest; but call it first, since what was *read* before may be old.
    ///
    /// Raised and written is with the transaction's commit; rolled back, nothing was seen. In a savepoint the writes must
    /// be in the same one.
    ///
    /// A transaction that has read nothing yet waits for the write lock, for as long as its connection's busy timeout; one
    /// that has, doesn't wait, and is refused if somebody has written since. So begin it with `BEGIN IMMEDIATE`
    /// (`pool.begin_with`) where you can.
    ///
    /// # Errors
    /// Then roll the transaction back; it can't be committed any more, but on connections without `foreign_keys` (see
    /// [above](Self#what-it-guarantees)). [`FenceError::Stale`] and [`FenceError::OtherLock`]. [`FenceError::Store`], with
    /// nothing written by the check: [`ErrorKind::Contention`] if the write lock can't be had, [`ErrorKind::NotReady`] if the file has no
    /// register, [`ErrorKind::Corrupt`] for a row that no version of this crate writes.
    ///
    /// Cancel safe; whether the fence was raised in the transaction is then unknown, so roll that back.
    pub async fn admit(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        resource: &Resource,
        fence: &impl ToFence,
        pass: Pass,
    ) -> Result<(), FenceError> {
        let admitted = match fence.to_fence() {
            Ok(fence) => {
                let admitted = self.admitted(transaction, resource, &fence, pass).await;
                self.report.told(Some(fence.lock()), admitted)
            }
            Err(invalid) => self.report.told(None, Err(invalid)),
        };
        heed(transaction, admitted).await
    }

    /// In a transaction that somebody else began, which may not be one any more.
    async fn admitted(
        &self,
        connection: &mut SqliteConnection,
        resource: &Resource,
        fence: &Fence,
        pass: Pass,
    ) -> Result<(), FenceError> {
        let path = self.path();
        let highest = sqlx::query_as(ADMIT_AND_BEGIN).bind(resource.as_str());
        match read_alive(connection, highest).await.map_err(|error| before_commit(error, &path))? {
            Read::Alive(row) => self.raise_over(row, connection, resource, fence, pass).await,
            Read::Ended => Err(ended(&path).into()),
            Read::Failed(error) => Err(in_check(error, connection, &path, &FENCES).await.into()),
        }
    }

    async fn step(
        &self,
        connection: &mut SqliteConnection,
        resource: &Resource,
        fence: &Fence,
        pass: Pass,
    ) -> Result<(), FenceError> {
        let highest = sqlx::query_as(ADMIT).bind(resource.as_str());
        match highest.fetch_optional(&mut *connection).await {
            Ok(row) => self.raise_over(row, connection, resource, fence, pass).await,
            Err(error) => Err(in_check(error, connection, &self.path(), &FENCES).await.into()),
        }
    }

    /// Over what the resource has seen, which can't change any more before the transaction ends.
    async fn raise_over(
        &self,
        highest: Option<Row>,
        connection: &mut SqliteConnection,
        resource: &Resource,
        fence: &Fence,
        pass: Pass,
    ) -> Result<(), FenceError> {
        let highest = highest.map(|row| parse(row, resource)).transpose()?;
        if admit(highest.as_ref(), resource, fence, pass)? {
            let raise = sqlx::query(include_str!("../sql/fence_raise.sql"))
                .bind(resource.as_str())
                .bind(fence.lock().as_str())
                .bind(fence.token_i64());
            if let Err(error) = raise.execute(&mut *connection).await {
                return Err(in_check(error, connection, &self.path(), &FENCES).await.into());
            }
        }
        Ok(())
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        let path = self.path();
        place::check_shared(&path)?;
        let failed = |error| before_commit(error, &path);
        let look = sqlx::query_as(include_str!("../sql/fence_table.sql")).bind(FENCES.name);
        let (_, has_table): (Option<String>, bool) = look.fetch_one(&self.pool).await.map_err(failed)?;
        if !has_table {
            let mut transaction = self.pool.begin_with(BEGIN).await.map_err(failed)?;
            sqlx::raw_sql(Self::ddl()).execute(&mut *transaction).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
        }
        // A table of this name that isn't ours is told now and not at the first write.
        let read = sqlx::query_as(include_str!("../sql/fence_highest.sql")).bind("");
        let read: Result<Option<Row>, _> = read.fetch_optional(&self.pool).await;
        read.map(|_| ()).map_err(|error| {
            if !is_wrong(&error) {
                return failed(error);
            }
            let what = "has a table leasehold_fences that is not of this program; name another file";
            StoreError::refused(ErrorKind::NotReady, format!("{} {what}", quoted(&path))).caused_by(error)
        })
    }

    async fn raised(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        let mut transaction = self.alone().await?;
        if let Err(error) = self.step(&mut transaction, resource, fence, pass).await {
            return Err(undone(transaction, error).await);
        }
        Ok(commit(transaction, &self.path()).await?)
    }

    async fn seen(&self, resource: &Resource) -> Result<Option<Fence>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|error| before_commit(error, &self.path()))?;
        let read = sqlx::query_as(include_str!("../sql/fence_highest.sql")).bind(resource.as_str());
        match read.fetch_optional(&mut *connection).await {
            Ok(row) => row.map(|row| parse(row, resource)).transpose(),
            Err(error) => Err(in_check(error, &mut connection, &self.path(), &FENCES).await),
        }
    }

    async fn forgotten(&self, resource: &Resource) -> Result<bool, FenceError> {
        let mut transaction = self.alone().await?;
        let forget = sqlx::query(include_str!("../sql/fence_forget.sql")).bind(resource.as_str());
        let forgotten = match forget.execute(&mut **transaction).await {
            Ok(done) => done.rows_affected() > 0,
            Err(error) => {
                let error = in_check(error, &mut transaction, &self.path(), &FENCES).await;
                return Err(undone(transaction, error.into()).await);
            }
        };
        commit(transaction, &self.path()).await?;
        Ok(forgotten)
    }

    /// A step of its own, from its beginning to its commit.
    async fn alone(&self) -> Result<Ending, StoreError> {
        self.pool.begin_with(BEGIN).await.map(ending).map_err(|error| before_commit(error, &self.path()))
    }

    fn path(&self) -> PathBuf {
        self.pool.connect_options().get_filename().to_owned()
    }
}

#[async_trait]
impl FenceRegister for SqliteFences {
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        self.report.told(Some(fence.lock()), self.raised(resource, fence, pass).await)
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        self.report.told(None, self.seen(resource).await)
    }

    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        self.report.told(None, self.forgotten(resource).await)
    }
}

/// What the file says is not trusted.
fn parse((lock, token): Row, resource: &Resource) -> Result<Fence, StoreError> {
    let token = u64::try_from(token).ok().map(FencingToken::new);
    let fence = LockName::new(lock).ok().zip(token).and_then(|(lock, token)| Fence::new(lock, token).ok());
    fence.ok_or_else(|| {
        let what = format!(
            "the fence of \"{resource}\" can't be understood: something else writes the table leasehold_fences; forget \
             the fence once no holder of its lock is at work"
        );
        StoreError::refused(ErrorKind::Corrupt, what)
    })
}
