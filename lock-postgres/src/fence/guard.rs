//! Lock and data in one database: the transaction is done only if its grant holds the lock, and the lock waits for its end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use lock_core::{
    Applied, ErrorKind, Fence, FenceError, FenceReport, LockName, NotHeld, Observer, Operation, StoreError, ToFence,
    Transactions,
};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction, postgres::PgRow};

use super::{
    begin::begin,
    elsewhere::{Elsewhere, Server},
    ended,
    guarding::{Statements, has_ended, is_refusal, must_look_again, must_look_elsewhere, was_another_server},
    of_fence, refuse, uncommitted,
};
use crate::{
    provider::PostgresLocks,
    rows::{column, corrupt},
    statements::Schema,
};

/// Goes back to before the look of `fence_commit.sql`.
const NOT_YET: &str = "ROLLBACK TO SAVEPOINT leasehold_look; RELEASE SAVEPOINT leasehold_look";

/// Transactions that are done under a lock of the same database, or not at all: the strongest fence there is.
///
/// The whole of it by [`Lock::run_in_transaction`](lock_core::Lock::run_in_transaction), or a transaction of one's own that
/// [`begin`](Self::begin) begins. [`hold`](Self::hold) is for one that was begun otherwise:
///
/// ```no_run
/// # async fn example(pool: lock_postgres::sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// use lock_core::{Lease, Locks};
/// use lock_postgres::{PostgresLocks, sqlx};
///
/// let provider = PostgresLocks::builder(&pool).build().await?;
/// let transactions = provider.transactions(pool.clone());
/// let locks = Locks::new(provider);
///
/// let paid = locks.lock("invoice-42").run_in_transaction(&transactions, async |tx, _lease: &Lease| {
///     sqlx::query("UPDATE invoices SET paid = true WHERE id = 42").execute(&mut **tx).await
/// });
/// paid.await?;
///
/// let lease = locks.lock("invoice-42").acquire().await?;
/// let mut tx = transactions.begin(&lease).await?;
/// sqlx::query("DELETE FROM invoices WHERE id = 42").execute(&mut *tx).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresTransactions {
    pool: PgPool,
    schema: Schema,
    statements: Arc<Statements>,
    elsewhere: Arc<Elsewhere>,
    /// Whether the pool's transactions were seen to be of a level that sees only what was there at the first statement. A
    /// guess at the next one, which costs a round trip if it is wrong.
    snapshots: Arc<AtomicBool>,
    report: FenceReport,
}

impl PostgresTransactions {
    /// Of a pool of the database that keeps the locks, in the schema `leasehold`. Sends nothing.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::of(pool, Schema::usual())
    }

    /// The schema of the locks, if it is another one.
    ///
    /// # Errors
    /// [`InvalidConfig`](lock_core::ErrorKind::InvalidConfig) if the name is empty, longer than 63 bytes or holds a NUL.
    pub fn schema(self, name: &str) -> Result<Self, StoreError> {
        let schema = Schema::new(name)?;
        Ok(Self { statements: Arc::new(Statements::new(&schema)), schema, ..self })
    }

    /// Tells what [`begin`](Self::begin) and [`hold`](Self::hold) refuse to this observer, for metrics. Clones that were made
    /// before don't.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    fn of(pool: PgPool, schema: Schema) -> Self {
        Self {
            statements: Arc::new(Statements::new(&schema)),
            elsewhere: Arc::new(Elsewhere::new(pool.clone())),
            pool,
            schema,
            snapshots: Arc::default(),
            report: FenceReport::new("postgres"),
        }
    }

    /// Begins a transaction that is done under this grant, as by [`hold`](Self::hold), in the one round trip that it takes to
    /// begin any.
    ///
    /// With the isolation that the session has by default. `READ COMMITTED` is enough, since nobody else is at work; under
    /// `REPEATABLE READ` and `SERIALIZABLE` it takes more round trips, see [`hold`](Self::hold).
    ///
    /// Cancel safe: what was begun is rolled back in the background.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`], [`FenceError::Invalid`] and [`FenceError::Store`]. The connection goes back to the pool.
    pub async fn begin(&self, fence: &impl ToFence) -> Result<Transaction<'static, Postgres>, FenceError> {
        let fence = self.report.told(None, fence.to_fence())?;
        self.report.told(Some(fence.lock()), self.begun(&fence).await)
    }

    async fn begun(&self, fence: &Fence) -> Result<Transaction<'static, Postgres>, FenceError> {
        if !self.snapshots.load(Ordering::Relaxed) {
            match begin(&self.pool, self.statements.begin.about(fence)).await {
                Err(error) if must_look_again(&error) => {}
                Err(error) if must_look_elsewhere(&error) => self.snapshots.store(true, Ordering::Relaxed),
                Err(error) if is_refusal(&error) => return Err(not_held(fence)),
                begun => return Ok(begun.map_err(|error| uncommitted(error, "locks"))?),
            }
        }
        let looks_elsewhere = self.snapshots.load(Ordering::Relaxed);
        if looks_elsewhere && self.sees_held(fence).await?.is_none() {
            return Err(not_held(fence));
        }
        let begun = begin(&self.pool, "BEGIN".to_owned()).await;
        let mut transaction = begun.map_err(|error| uncommitted(error, "locks"))?;
        let snapshot = self.held(&mut transaction, fence, looks_elsewhere).await?;
        self.snapshots.store(snapshot, Ordering::Relaxed);
        Ok(transaction)
    }

    /// From here to its end, this transaction is done under this grant: fails unless the grant holds its lock now, by the
    /// server's clock, and nobody is granted the lock before the transaction has ended. Not if the lease expires, is given
    /// back or taken away, and not if somebody deletes the lock's row, who waits. One round trip.
    ///
    /// Take it first: what was read in the transaction before may have changed since. May be taken again to look whether
    /// the grant still holds, and for several locks. Renewals, and other locks, are not held up by it; who asks for this
    /// lock meanwhile is told that it is held.
    ///
    /// Rolling back to a savepoint that was set before it undoes it. After a refusal the transaction can only be rolled
    /// back (to such a savepoint, too); a commit of it keeps nothing.
    ///
    /// Under `REPEATABLE READ` and `SERIALIZABLE` the grant must be older than the transaction's first statement, which otherwise
    /// may see what was there before an earlier holder was done. What became of the grant since is asked on another
    /// connection, before the lock is held and after: three round trips more. There are up to two such connections, with the
    /// pool's options, made when they are needed. Behind a pooler, or for a role with a limit of connections, leave room for two
    /// more than there are such transactions at once: a look that isn't answered within two seconds is given up, with
    /// [`Contention`](lock_core::ErrorKind::Contention).
    ///
    /// Cancel safe: at most the lock stays held until the transaction ends.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`], [`FenceError::Invalid`] and [`FenceError::Store`]: none has written anything. One that
    /// [may have been applied](Applied::Maybe) says that no transaction is open any more (the program ended it by itself, or
    /// dropped a nested one while it was being begun): what it wrote since may stand.
    pub async fn hold(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        fence: &impl ToFence,
    ) -> Result<(), FenceError> {
        let fence = self.report.told(None, fence.to_fence())?;
        self.report.told(Some(fence.lock()), self.held(transaction, &fence, false).await).map(drop)
    }

    /// Guards the transaction; whether it sees only what was there at its first statement. If not held, it is spoilt.
    ///
    /// `looked` says whether it was seen from elsewhere that the grant holds its lock.
    async fn held(&self, connection: &mut PgConnection, fence: &Fence, looked: bool) -> Result<bool, FenceError> {
        let error = match self.look(connection, fence, looked).await {
            Ok(Some(snapshot)) => return Ok(snapshot),
            // By the server, which has failed the transaction as well.
            Err(Failed::Statement(error)) if is_refusal(&error) => return Err(not_held(fence)),
            Err(Failed::Statement(error)) if has_ended(&error) => ended(error).into(),
            Ok(None) => not_held(fence),
            Err(Failed::Statement(error)) => uncommitted(error, "locks").into(),
            Err(Failed::Look(error)) => error.into(),
        };
        refuse(connection).await;
        Err(error)
    }

    /// Whether the transaction sees only what was there at its first statement; nothing if the grant doesn't hold its lock.
    async fn look(&self, connection: &mut PgConnection, fence: &Fence, looked: bool) -> Result<Option<bool>, Failed> {
        let hold = if looked { &self.statements.hold_after_look } else { &self.statements.hold };
        let mut rows = hold.run(connection, fence).await.map_err(Failed::Statement)?;
        if !looked && alone(&rows)?.is_none() {
            // Not guarded yet. Who is late, or sees no row of the lock, is refused without it.
            if rows.len() == 1 || self.sees_held(fence).await.map_err(Failed::Look)?.is_none() {
                return Ok(None);
            }
            rows = self.statements.hold_after_look.run(connection, fence).await.map_err(Failed::Statement)?;
        }
        let (alone, here) = (alone(&rows)?, Server::of(guard(&rows)?).map_err(Failed::Look)?);
        if alone != Some(true) {
            rows = self.statements.wait.run(connection, fence).await.map_err(Failed::Statement)?;
        }
        // The first row is that of the advisory lock.
        let Some(look) = rows.get(1) else { return Ok(None) };
        let snapshot = column::<i32>(look, "snapshot").map_err(Failed::Look)? != 0;
        if !snapshot {
            return Ok(Some(false));
        }
        match self.sees_held(fence).await.map_err(Failed::Look)? {
            Some(server) if server != here => Err(Failed::Look(another_server())),
            held => Ok(held.map(|_| true)),
        }
    }

    async fn sees_held(&self, fence: &Fence) -> Result<Option<Server>, StoreError> {
        self.elsewhere.sees_held(&self.statements.look_elsewhere, fence).await
    }

    /// In one message; `false` if nothing was done, since one look isn't enough.
    async fn commit_at_once(&self, connection: &mut PgConnection, fence: &Fence) -> Result<bool, FenceError> {
        match self.statements.commit.run(connection, fence).await {
            Ok(_) => Ok(true),
            Err(error) if is_refusal(&error) => Err(not_held(fence)),
            Err(error) if must_look_elsewhere(&error) => {
                let undone = sqlx::raw_sql(NOT_YET).execute(connection).await;
                Ok(undone.map(|_| false).map_err(|error| uncommitted(error, "locks"))?)
            }
            Err(error) => Err(uncertain(error)),
        }
    }

    /// After a look from outside: nobody else was granted the lock since the transaction was guarded, if it was.
    async fn commit_marked(&self, connection: &mut PgConnection, fence: &Fence) -> Result<(), FenceError> {
        let held = self.sees_held(fence).await;
        if let Ok(Some(server)) = held {
            return match self.statements.commit_marked.run_at(connection, fence, server).await {
                Err(error) if was_another_server(&error) => Err(another_server().caused_by(error).into()),
                committed => committed.map(drop).map_err(uncertain),
            };
        }
        match self.statements.open.run(connection, fence).await {
            // Without an answer of the server it isn't known whether the work had ended it before.
            Err(error) if has_ended(&error) || crate::error::applied(&error) == Applied::Maybe => Err(uncertain(error)),
            _ => Err(held.err().map_or_else(|| not_held(fence), FenceError::from)),
        }
    }

    async fn committed(&self, connection: &mut PgConnection, fence: &Fence) -> Result<(), FenceError> {
        if !self.snapshots.load(Ordering::Relaxed) && self.commit_at_once(connection, fence).await? {
            return Ok(());
        }
        self.commit_marked(connection, fence).await
    }
}

/// Why a look gave no answer.
enum Failed {
    /// In the transaction.
    Statement(sqlx::Error),
    /// Outside of it, or the answer can't be understood.
    Look(StoreError),
}

/// Whether no take-over was being committed when the guard was taken; nothing if it was not taken.
fn alone(rows: &[PgRow]) -> Result<Option<bool>, Failed> {
    column(guard(rows)?, "alone").map_err(Failed::Look)
}

/// What the server says of the guard.
fn guard(rows: &[PgRow]) -> Result<&PgRow, Failed> {
    rows.first().ok_or_else(|| Failed::Look(corrupt("the server said nothing")))
}

fn not_held(fence: &Fence) -> FenceError {
    NotHeld { lock: fence.lock().clone(), token: fence.token() }.into()
}

/// The error of a look that says nothing of the transaction's server.
fn another_server() -> StoreError {
    let message = "whether the lease goes on was answered by another server than the transaction's: is one address that of several?";
    StoreError::refused(ErrorKind::Unreachable, message)
}

/// The error of a message that commits.
fn uncertain(error: sqlx::Error) -> FenceError {
    if has_ended(&error) {
        return ended(error).into();
    }
    let applied = crate::error::applied(&error);
    of_fence(error, applied, "locks").into()
}

/// Says where it happened, and counts nothing.
fn placed<T>(lock: Option<&LockName>, outcome: Result<T, FenceError>) -> Result<T, FenceError> {
    FenceReport::new("postgres").told(lock, outcome)
}

#[async_trait]
impl Transactions for PostgresTransactions {
    type Transaction = Transaction<'static, Postgres>;

    async fn begin(&self, fence: &Fence) -> Result<Self::Transaction, FenceError> {
        placed(Some(fence.lock()), self.begun(fence).await)
    }

    /// In the one round trip of any commit; under `REPEATABLE READ` and `SERIALIZABLE` in one more, on a connection of its own.
    ///
    /// Of a transaction that [`begin`](PostgresTransactions::begin) or [`hold`](PostgresTransactions::hold) guarded with this
    /// fence; of any other it is told that the guarded one has ended before, and may have been kept. Not if another one that the
    /// work began has failed since: the server answers nothing in that.
    async fn commit(&self, mut transaction: Self::Transaction, fence: &Fence) -> Result<(), FenceError> {
        placed(Some(fence.lock()), self.committed(&mut transaction, fence).await)
    }

    /// A transaction that had ended before is not told of if another one that the work began has failed since: the server
    /// answers nothing in that.
    async fn roll_back(&self, mut transaction: Self::Transaction) -> Result<(), StoreError> {
        let open = sqlx::raw_sql(AssertSqlSafe(self.statements.open_at_all.as_str())).execute(&mut *transaction).await;
        let rolled_back = transaction.rollback().await.map_err(|error| of_fence(error, Applied::No, "locks"));
        let outcome = match open {
            Err(error) if has_ended(&error) => Err(ended(error)),
            _ => rolled_back,
        };
        outcome.map_err(|error| error.at("postgres", Operation::Fence, None))
    }
}

impl PostgresLocks {
    /// Transactions under these locks; the pool is the application's, of the same database.
    #[must_use]
    pub fn transactions(&self, pool: PgPool) -> PostgresTransactions {
        PostgresTransactions::of(pool, self.schema().clone())
    }
}

impl std::fmt::Debug for PostgresTransactions {
    /// Without the pool: it knows the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresTransactions").field("schema", &self.schema.as_str()).finish_non_exhaustive()
    }
}
