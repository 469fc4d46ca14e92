//! Lock and data in one database: the transaction is done only if its grant holds the lock, and the lock waits for its end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use lock_core::{Applied, Fence, FenceError, NotHeld, Operation, StoreError, ToFence, Transactions};
use sqlx::{
    AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction,
    postgres::{PgDatabaseError, PgRow},
};

use super::{Statement, at, begin::begin, ended, of_fence, quoted, refuse, token, uncommitted};
use crate::{
    error::answered,
    provider::PostgresLocks,
    rows::column,
    statements::{Schema, fnv1a},
};

/// What `fence_hold.sql` fails with, in any language of the server's messages.
const REFUSED: &str = "refused by the fence of a lock";

/// What `fence_hold_at_once.sql` fails with where one look isn't enough.
const AGAIN: &str = "the fence of a lock looks again";

/// What `fence_marked.sql` fails with.
const ENDED: &str = "the transaction under a lock has ended before";

const HOLD: &str = concat!(include_str!("../sql/fence_in_transaction.sql"), include_str!("../sql/fence_hold.sql"));

/// Whether the guarded transaction is open still.
const OPEN: &str = concat!(include_str!("../sql/fence_in_transaction.sql"), include_str!("../sql/fence_marked.sql"));

/// [`HOLD`] in a transaction that was guarded before.
const HOLD_AGAIN: &str = concat!(
    include_str!("../sql/fence_in_transaction.sql"),
    include_str!("../sql/fence_marked.sql"),
    include_str!("../sql/fence_hold.sql")
);

/// The guard comes before `BEGIN`, which takes what its message did so far into the transaction (PostgreSQL manual, 55.2.2.1):
/// so a refusal leaves no transaction behind. The driver doesn't roll one back whose beginning failed.
const BEGIN: &str = concat!(include_str!("../sql/fence_hold_at_once.sql"), "BEGIN");

/// The next transaction, which is empty, is for the driver: it rolls one back when it is told nothing of a commit.
const COMMIT: &str = concat!(
    "SAVEPOINT leasehold_look;\n",
    include_str!("../sql/fence_marked.sql"),
    include_str!("../sql/fence_hold_at_once.sql"),
    "RELEASE SAVEPOINT leasehold_look;\nCOMMIT AND CHAIN"
);

/// Goes back to before the look of [`COMMIT`].
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
    hold: Guarding,
    hold_again: Guarding,
    open: String,
    hold_in_snapshot: Guarding,
    begin: Guarding,
    commit: Guarding,
    /// Whether the pool's transactions were seen to be of a level where one look isn't enough. A guess at the next one, which
    /// costs a round trip if it is wrong.
    snapshots: Arc<AtomicBool>,
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
        Schema::new(name).map(|schema| Self::of(self.pool, schema))
    }

    fn of(pool: PgPool, schema: Schema) -> Self {
        let hold = Guarding::of(&schema, HOLD);
        let hold_again = Guarding::of(&schema, HOLD_AGAIN);
        // The mark of whichever grant.
        let open = Statement::new(&schema, OPEN).fill(&[("mark", "@")]);
        let hold_in_snapshot = Guarding::of(&schema, include_str!("../sql/fence_hold_in_snapshot.sql"));
        let begin = Guarding::of(&schema, BEGIN);
        let commit = Guarding::of(&schema, COMMIT);
        Self { pool, schema, hold, hold_again, open, hold_in_snapshot, begin, commit, snapshots: Arc::default() }
    }

    /// Begins a transaction that is done under this grant, as by [`hold`](Self::hold), in the one round trip that it takes to
    /// begin any.
    ///
    /// With the isolation that the session has by default. `READ COMMITTED` is enough, since nobody else is at work; under
    /// `REPEATABLE READ` and `SERIALIZABLE` it takes three round trips, and may end with
    /// [`Contention`](lock_core::ErrorKind::Contention), see [`hold`](Self::hold).
    ///
    /// Cancel safe: what was begun is rolled back in the background.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`], [`FenceError::Invalid`] and [`FenceError::Store`]. The connection goes back to the pool.
    pub async fn begin(&self, fence: &impl ToFence) -> Result<Transaction<'static, Postgres>, FenceError> {
        let fence = fence.to_fence()?;
        if !self.snapshots.load(Ordering::Relaxed) {
            match begin(&self.pool, self.begin.about(&fence)).await {
                Err(error) if says(&error, AGAIN) => self.snapshots.store(true, Ordering::Relaxed),
                Err(error) if says(&error, REFUSED) => return Err(not_held(&fence)),
                begun => return begun.map_err(|error| at(uncommitted(error, "locks").into(), Some(fence.lock()))),
            }
        }
        let begun = begin(&self.pool, "BEGIN".to_owned()).await;
        let mut transaction = begun.map_err(|error| at(uncommitted(error, "locks").into(), Some(fence.lock())))?;
        let one_look_is_enough = self.hold_in(&mut transaction, &self.hold, &fence).await?;
        self.snapshots.store(!one_look_is_enough, Ordering::Relaxed);
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
    /// Under `REPEATABLE READ` and `SERIALIZABLE` the grant must be older than the transaction's first statement, and it takes
    /// two round trips. If the lease was renewed since that statement, or somebody began to wait for the lock, it fails with
    /// [`Contention`](lock_core::ErrorKind::Contention) (SQLSTATE 40001): nothing is written, do the transaction again.
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
        let fence = fence.to_fence()?;
        self.hold_in(transaction, &self.hold, &fence).await.map(drop)
    }

    /// Whether one look was enough, which depends on the transaction's level.
    async fn hold_in(&self, connection: &mut PgConnection, hold: &Guarding, fence: &Fence) -> Result<bool, FenceError> {
        let error = match self.look(connection, hold, fence).await {
            Ok(Some(one_look_is_enough)) => return Ok(one_look_is_enough),
            // By the server, which has failed the transaction as well.
            Err(Failed::Statement(error)) if says(&error, REFUSED) => return Err(not_held(fence)),
            Err(Failed::Statement(error)) if has_ended(&error) => ended(error).into(),
            Ok(None) => not_held(fence),
            Err(Failed::Statement(error)) => uncommitted(error, "locks").into(),
            Err(Failed::Answer(error)) => error.into(),
        };
        refuse(connection).await;
        Err(at(error, Some(fence.lock())))
    }

    /// Whether one look was enough; nothing if the lock has no row.
    async fn look(
        &self,
        connection: &mut PgConnection,
        hold: &Guarding,
        fence: &Fence,
    ) -> Result<Option<bool>, Failed> {
        let rows = hold.run(connection, fence).await.map_err(Failed::Statement)?;
        // The first row is the advisory lock's.
        let Some(held) = rows.get(1) else { return Ok(None) };
        if column::<&str>(held, "isolation").map_err(Failed::Answer)?.starts_with("read ") {
            return Ok(Some(true));
        }
        let rows = self.hold_in_snapshot.run(connection, fence).await.map_err(Failed::Statement)?;
        Ok(rows.first().map(|_| false))
    }

    /// In one message; `false` if nothing was done, since one look isn't enough.
    async fn commit_at_once(&self, connection: &mut PgConnection, fence: &Fence) -> Result<bool, FenceError> {
        if self.snapshots.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let error = match self.commit.run(connection, fence).await {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        if says(&error, REFUSED) {
            return Err(not_held(fence));
        }
        if has_ended(&error) {
            return Err(at(ended(error).into(), Some(fence.lock())));
        }
        if !says(&error, AGAIN) {
            return Err(uncertain(error, fence));
        }
        let undone = sqlx::raw_sql(NOT_YET).execute(connection).await;
        undone.map(|_| false).map_err(|error| at(uncommitted(error, "locks").into(), Some(fence.lock())))
    }
}

/// A statement of the guard.
#[derive(Clone, Debug)]
struct Guarding(Statement);

impl Guarding {
    fn of(schema: &Schema, template: &str) -> Self {
        Self(Statement::new(schema, template))
    }

    fn about(&self, fence: &Fence) -> String {
        let token = token(fence);
        let mark = format!("{token}@{:016x};", fnv1a(fence.lock().as_str()));
        self.0.fill(&[("lock", &quoted(fence.lock().as_str())), ("token", &token), ("mark", &mark)])
    }

    async fn run(&self, connection: &mut PgConnection, fence: &Fence) -> Result<Vec<PgRow>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(self.about(fence))).fetch_all(connection).await
    }
}

/// Why a look gave no answer that it is held.
enum Failed {
    Statement(sqlx::Error),
    /// The answer can't be understood.
    Answer(StoreError),
}

fn not_held(fence: &Fence) -> FenceError {
    NotHeld { lock: fence.lock().clone(), token: fence.token() }.into()
}

/// The error of a message that commits.
fn uncertain(error: sqlx::Error, fence: &Fence) -> FenceError {
    let applied = crate::error::applied(&error);
    at(of_fence(error, applied, "locks").into(), Some(fence.lock()))
}

/// Whether the server says that the guarded transaction isn't open any more, or that none is.
fn has_ended(error: &sqlx::Error) -> bool {
    says(error, ENDED) || answered(error).is_some_and(|answer| answer.code() == "25P01")
}

/// Whether the server failed with these words of ours.
fn says(error: &sqlx::Error, words: &str) -> bool {
    let said = |answer: &PgDatabaseError| answer.code() == "22P02" && answer.message().contains(words);
    answered(error).is_some_and(said)
}

#[async_trait]
impl Transactions for PostgresTransactions {
    type Transaction = Transaction<'static, Postgres>;

    async fn begin(&self, fence: &Fence) -> Result<Self::Transaction, FenceError> {
        Self::begin(self, fence).await
    }

    /// In the one round trip of any commit; in three under `REPEATABLE READ` and `SERIALIZABLE`.
    ///
    /// Of a transaction that [`begin`](PostgresTransactions::begin) or [`hold`](PostgresTransactions::hold) guarded with this
    /// fence; of any other it is told that the guarded one has ended before, and may have been kept.
    async fn commit(&self, mut transaction: Self::Transaction, fence: &Fence) -> Result<(), FenceError> {
        if self.commit_at_once(&mut transaction, fence).await? {
            return Ok(());
        }
        self.hold_in(&mut transaction, &self.hold_again, fence).await?;
        transaction.commit().await.map_err(|error| uncertain(error, fence))
    }

    /// A transaction that had ended before is not told of if another one that the work began has failed since: the server
    /// answers nothing in that.
    async fn roll_back(&self, mut transaction: Self::Transaction) -> Result<(), StoreError> {
        let open = sqlx::raw_sql(AssertSqlSafe(self.open.as_str())).execute(&mut *transaction).await;
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
