//! Guards: the lock and the data in one file.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use lock_core::{
    Clock, Fence, FenceError, FenceReport, NotHeld, Observer, Operation, Record, StoreError, SystemClock, ToFence,
    Transactions,
};
use scopeguard::ScopeGuard;
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::{
    BEGIN,
    alive::{Read, ended, read_alive},
    end::{abandon, commit, ending, roll_back, undone},
    failure::{Table, in_check},
    mark,
    refusal::heed,
};
use crate::{
    boot::boot_id,
    failure::before_commit,
    provider::STORE,
    row::{self, Row},
};

const LOCKS: Table = Table {
    name: "leasehold_locks",
    missing: "no locks are kept in it; guard transactions of the file that has them, or fence by SqliteFences where they are \
              kept elsewhere",
};

/// In a transaction that somebody else began, which may not be one any more.
const HOLD_AND_BEGIN: &str = concat!(include_str!("../sql/fence_hold.sql"), include_str!("../sql/fence_begin.sql"));

/// At its beginning, in one message.
const MARK_AND_HOLD: &str = concat!(include_str!("../sql/fence_mark.sql"), include_str!("../sql/fence_hold.sql"));

/// At its end.
const MARKED_AND_HOLD: &str = concat!(include_str!("../sql/fence_marked.sql"), include_str!("../sql/fence_hold.sql"));

/// Transactions of an application that keeps its data in the file of the locks: a write is kept only if its grant holds
/// the lock.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use lock_core::{Lease, Locks};
/// use lock_sqlite::{SqliteLocks, SqliteTransactions, sqlx::{self, SqlitePool, Sqlite, Transaction}};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// let locks = Locks::new(SqliteLocks::builder(&path).build().await?);
/// let pool = SqlitePool::connect(path.to_str().ok_or("no UTF-8")?).await?;
/// sqlx::query("CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INTEGER)").execute(&pool).await?;
/// let transactions = SqliteTransactions::new(pool.clone());
///
/// // The whole: lock, transaction, check, commit, release.
/// let work = async |tx: &mut Transaction<'static, Sqlite>, _: &Lease| {
///     sqlx::query("INSERT INTO accounts VALUES ('anna', 100)").execute(&mut **tx).await
/// };
/// locks.lock("accounts").run_in_transaction(&transactions, work).await?;
///
/// // The check alone, in a transaction of your own.
/// let lease = locks.lock("accounts").acquire().await?;
/// let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
/// transactions.hold(&mut tx, &lease).await?;
/// sqlx::query("UPDATE accounts SET cents = cents - 1").execute(&mut *tx).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
///
/// # What it guarantees
/// From the check on, the transaction has the file's write lock. Until it ends nobody is granted any lock of the file, even
/// if the lease ends in the meantime; so no write of a later holder comes before its commit, and none of an earlier one
/// after. Killed in between, the process leaves nothing.
///
/// The lock is looked up in the file that the transaction writes: the main database of its connection.
///
/// A transaction whose check failed is not kept, also if that isn't heeded: its commit fails (SQLite says `FOREIGN KEY
/// constraint failed`) and undoes all that was written in it, before the check and after. A savepoint that is rolled back
/// takes the check in it along. On connections with `foreign_keys` switched off (they are on unless your options say
/// otherwise) only what was written *before* the check is undone; what you write after it is committed, so don't.
///
/// # What it costs
/// A few short statements, and no write to the disk; under the savepoint of [`Transactions`] SQLite copies each page before
/// it is changed first, to a temporary file where they are many. But the *whole file* waits while such a transaction is open: every other
/// writer, and every acquire, renewal and release of any of its locks, the lease's own renewals included. Those fail when
/// their [busy timeout](crate::SqliteLocksBuilder::busy_timeout) is over and are tried again while their leases last. So
/// **keep transactions shorter than the shortest ttl of the file's leases**. One that stays open for longer is still safe,
/// but its holder and the file's other holders come to believe that their leases are lost, and the work of
/// [`run_in_transaction`](lock_core::Lock::run_in_transaction) is then broken off and undone. A process that is stopped in
/// mid-transaction stops all others.
///
/// End the transaction before you release the lock or ask for another one of this file: both would wait for it.
///
/// # What the commit is worth
/// As much as the settings of your pool make it. With `synchronous` at FULL (the default) what was committed survives a
/// power cut. With NORMAL in WAL mode the last commits may be lost then, each as a whole; grants of the lock are not,
/// since the provider has a connection of its own.
///
/// # What it can't see
/// A failing statement may make SQLite roll back the whole transaction (`OR ROLLBACK`, `RAISE(ROLLBACK)`, a full disk, an
/// interrupt). The guard is gone then, and statements that follow are committed one by one, or in the transactions that are
/// begun within it. [`Transactions::commit`] and [`Transactions::roll_back`] tell of it, whatever was done in between: as an
/// error that says that something may have been kept ([`Applied::Maybe`](lock_core::Applied)). They know the transaction by
/// a savepoint, `leasehold_guarded`, so they take only one that [`Transactions::begin`] began.
///
/// The next [`hold`](Self::hold) tells of it too, but not in a transaction that was begun within after the end: that one is
/// guarded, and what was before is gone. So after any such error write no more, and end the transaction by
/// [`Transactions::roll_back`]. The driver's own roll-back fails then, also that of a drop, and the connection goes back to
/// the pool but can begin no transaction any more. [`run_in_transaction`](lock_core::Lock::run_in_transaction) puts it right
/// by itself, also when its work panics, or it is dropped, in the work or at its end.
#[derive(Clone, Debug)]
pub struct SqliteTransactions {
    pool: SqlitePool,
    clock: Arc<dyn Clock>,
    /// Why there is none is told by the first check.
    boot_id: Result<Arc<str>, StoreError>,
    report: FenceReport,
}

impl SqliteTransactions {
    /// Transactions of a pool on the file of the locks.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        let (clock, boot_id) = (Arc::new(SystemClock), boot_id().map(Into::into));
        Self { pool, clock, boot_id, report: FenceReport::new(STORE) }
    }

    /// The clock that leases are counted on, if the locks were opened with another one than the host's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tells this observer when [`hold`](Self::hold) refuses, for metrics. What
    /// [`run_in_transaction`](lock_core::Lock::run_in_transaction) is refused is told to the observer of its locks.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// Sees to it that this grant holds its lock until the transaction ends. What was written before is kept or undone with the
    /// rest; but call it first, since what was *read* before may be old.
    ///
    /// For any transaction of the file. One that has read nothing yet waits for the write lock, for as long as its
    /// connection's busy timeout; one that has, doesn't wait, and is refused if somebody has written since. So begin it
    /// with `BEGIN IMMEDIATE` (`pool.begin_with`) where you can.
    ///
    /// # Errors
    /// Then roll the transaction back; it can't be committed any more, but on connections without `foreign_keys` (see
    /// [above](Self#what-it-guarantees)). [`FenceError::NotHeld`] if the grant doesn't hold its lock any more, by the host's
    /// clock and this boot of the host. [`FenceError::Store`], with nothing written by the check: [`Contention`](lock_core::ErrorKind::Contention) if the write lock
    /// can't be had, [`NotReady`](lock_core::ErrorKind::NotReady) if the file has no locks in it, [`Corrupt`](lock_core::ErrorKind::Corrupt) for a record that no
    /// version of this crate writes.
    ///
    /// Cancel safe; whether the write lock was taken, and whether the grant holds the lock, is then unknown: roll it back.
    pub async fn hold(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        fence: &impl ToFence,
    ) -> Result<(), FenceError> {
        let held = match fence.to_fence() {
            Ok(fence) => {
                let held = self.is_held(transaction, &fence).await;
                self.report.told(Some(fence.lock()), held)
            }
            Err(invalid) => self.report.told(None, Err(invalid)),
        };
        heed(transaction, held).await
    }

    async fn is_held(&self, connection: &mut SqliteConnection, fence: &Fence) -> Result<(), FenceError> {
        let path = self.path();
        let look = sqlx::query_as(HOLD_AND_BEGIN).bind(fence.lock().as_str());
        match read_alive(connection, look).await.map_err(|error| before_commit(error, &path))? {
            Read::Alive(row) => self.judge(row, fence),
            Read::Ended => Err(ended(&path).into()),
            Read::Failed(error) => Err(in_check(error, connection, &path, &LOCKS).await.into()),
        }
    }

    async fn check(
        &self,
        connection: &mut SqliteConnection,
        fence: &Fence,
        hold: &'static str,
    ) -> Result<(), FenceError> {
        let record = sqlx::query_as(hold).bind(fence.lock().as_str());
        match record.fetch_optional(&mut *connection).await {
            Ok(row) => self.judge(row, fence),
            Err(error) if mark::is_missing(&error) => Err(ended(&self.path()).into()),
            Err(error) => Err(in_check(error, connection, &self.path(), &LOCKS).await.into()),
        }
    }

    /// After the write lock was had: from here to the end of the transaction nobody can be granted the lock.
    fn judge(&self, row: Option<Row>, fence: &Fence) -> Result<(), FenceError> {
        let boot_id = self.boot_id.clone()?;
        let now = self.clock.now();
        let record = row.map(|row| row::parse(row, &boot_id).and_then(|(_, record)| record)).transpose();
        let holds = |record: &Record| record.token == fence.token() && record.lease.is_some() && record.is_taken(now);
        if record?.as_ref().is_some_and(holds) {
            Ok(())
        } else {
            Err(NotHeld { lock: fence.lock().clone(), token: fence.token() }.into())
        }
    }

    async fn begun(&self, fence: &Fence) -> Result<Transaction<'static, Sqlite>, FenceError> {
        let begun = self.pool.begin_with(BEGIN).await;
        let mut transaction = begun.map(ending).map_err(|error| before_commit(error, &self.path()))?;
        match self.check(&mut transaction, fence, MARK_AND_HOLD).await {
            Ok(()) => Ok(ScopeGuard::into_inner(transaction)),
            Err(refusal) => Err(undone(transaction, refusal).await),
        }
    }

    async fn committed(&self, transaction: Transaction<'static, Sqlite>, fence: &Fence) -> Result<(), FenceError> {
        let mut transaction = ending(transaction);
        if let Err(refusal) = self.check(&mut transaction, fence, MARKED_AND_HOLD).await {
            return Err(undone(transaction, refusal).await);
        }
        Ok(commit(transaction, &self.path()).await?)
    }

    fn path(&self) -> PathBuf {
        self.pool.connect_options().get_filename().to_owned()
    }
}

#[async_trait]
impl Transactions for SqliteTransactions {
    type Transaction = Transaction<'static, Sqlite>;

    async fn begin(&self, fence: &Fence) -> Result<Self::Transaction, FenceError> {
        self.report.placed(Some(fence.lock()), self.begun(fence).await)
    }

    async fn commit(&self, transaction: Self::Transaction, fence: &Fence) -> Result<(), FenceError> {
        self.report.placed(Some(fence.lock()), self.committed(transaction, fence).await)
    }

    async fn roll_back(&self, transaction: Self::Transaction) -> Result<(), StoreError> {
        let undone = roll_back(ending(transaction), &self.path()).await;
        undone.map_err(|error| error.at(STORE, Operation::Fence, None))
    }

    fn abandon(&self, transaction: Self::Transaction) {
        abandon(transaction);
    }
}
