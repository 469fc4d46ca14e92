//! Lock and data in one database: the transaction is done only if its grant holds the lock, and the lock waits for its end.

use async_trait::async_trait;
use lock_core::{Applied, Fence, FenceError, NotHeld, StoreError, ToFence, Transactions};
use sqlx::{PgConnection, PgPool, Postgres, Transaction, postgres::PgDatabaseError};

use super::{Statement, at, hex, of_fence, refuse, token, uncommitted};
use crate::{error::answered, provider::PostgresLocks, rows::column, statements::Schema};

/// What `fence_hold.sql` fails with, in any language of the server's messages.
const REFUSED: &str = "refused by the fence of a lock";

/// Transactions that are done under a lock of the same database, or not at all: the strongest fence there is.
///
/// [`hold`](Self::hold) in a transaction of one's own, or the whole of it by
/// [`Lock::run_in_transaction`](lock_core::Lock::run_in_transaction):
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
/// let mut tx = pool.begin().await?;
/// transactions.hold(&mut tx, &lease).await?;
/// sqlx::query("DELETE FROM invoices WHERE id = 42").execute(&mut *tx).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresTransactions {
    pool: PgPool,
    schema: Schema,
    hold: Statement,
    hold_in_snapshot: Statement,
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
        let hold = Statement::new(&schema, include_str!("../sql/fence_hold.sql"));
        let hold_in_snapshot = Statement::new(&schema, include_str!("../sql/fence_hold_in_snapshot.sql"));
        Self { pool, schema, hold, hold_in_snapshot }
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
    /// [`FenceError::NotHeld`], [`FenceError::Invalid`] and [`FenceError::Store`]: none has written anything.
    pub async fn hold(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        fence: &impl ToFence,
    ) -> Result<(), FenceError> {
        let fence = fence.to_fence()?;
        self.hold_in(transaction, &fence).await
    }

    async fn hold_in(&self, connection: &mut PgConnection, fence: &Fence) -> Result<(), FenceError> {
        let not_held = || NotHeld { lock: fence.lock().clone(), token: fence.token() }.into();
        let error = match self.look(connection, fence).await {
            Ok(true) => return Ok(()),
            // By the server, which has failed the transaction as well.
            Err(Failed::Statement(error)) if is_refusal(&error) => return Err(not_held()),
            Ok(false) => not_held(),
            Err(Failed::Statement(error)) => uncommitted(error, "locks").into(),
            Err(Failed::Answer(error)) => error.into(),
        };
        refuse(connection).await;
        Err(at(error, Some(fence.lock())))
    }

    /// `false` if the lock has no row.
    async fn look(&self, connection: &mut PgConnection, fence: &Fence) -> Result<bool, Failed> {
        let (lock, token) = (hex(fence.lock().as_str()), token(fence));
        let values = [("lock", lock.as_str()), ("token", token.as_str())];
        let rows = self.hold.run(connection, &values).await.map_err(Failed::Statement)?;
        // The first row is the advisory lock's.
        let Some(held) = rows.get(1) else { return Ok(false) };
        if column::<&str>(held, "isolation").map_err(Failed::Answer)?.starts_with("read ") {
            return Ok(true);
        }
        let rows = self.hold_in_snapshot.run(connection, &values).await.map_err(Failed::Statement)?;
        Ok(!rows.is_empty())
    }
}

/// Why a look gave no answer that it is held.
enum Failed {
    Statement(sqlx::Error),
    /// The answer can't be understood.
    Answer(StoreError),
}

/// Whether the server said that the grant holds its lock no more.
fn is_refusal(error: &sqlx::Error) -> bool {
    let refused = |answer: &PgDatabaseError| answer.code() == "22P02" && answer.message().contains(REFUSED);
    answered(error).is_some_and(refused)
}

#[async_trait]
impl Transactions for PostgresTransactions {
    type Transaction = Transaction<'static, Postgres>;

    /// With the isolation that the session has by default. `READ COMMITTED` is enough, since nobody else is at work, and
    /// spares those who are renewed meanwhile an end with [`Contention`](lock_core::ErrorKind::Contention); see
    /// [`hold`](PostgresTransactions::hold).
    async fn begin(&self, fence: &Fence) -> Result<Self::Transaction, FenceError> {
        let begun = self.pool.begin().await;
        let mut transaction = begun.map_err(|error| at(uncommitted(error, "locks").into(), Some(fence.lock())))?;
        self.hold_in(&mut transaction, fence).await?;
        Ok(transaction)
    }

    async fn commit(&self, mut transaction: Self::Transaction, fence: &Fence) -> Result<(), FenceError> {
        self.hold_in(&mut transaction, fence).await?;
        transaction.commit().await.map_err(|error| {
            let applied = crate::error::applied(&error);
            at(of_fence(error, applied, "locks").into(), Some(fence.lock()))
        })
    }

    async fn roll_back(&self, transaction: Self::Transaction) -> Result<(), StoreError> {
        let rolled_back = transaction.rollback().await;
        rolled_back
            .map_err(|error| of_fence(error, Applied::No, "locks").at("postgres", lock_core::Operation::Fence, None))
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
