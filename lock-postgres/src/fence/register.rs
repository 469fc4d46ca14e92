//! The lock is elsewhere, the data are here: the highest token that each resource has seen stands next to them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use lock_core::{
    Applied, ErrorKind, Fence, FenceError, FenceRegister, FenceReport, LockName, Observer, Pass, Resource, StoreError,
    ToFence, admit,
};
use sqlx::{PgConnection, PgPool, Postgres, Transaction, postgres::PgRow};

use super::{FencesBuilder, Statement, begin::begin, builder, hex, of_fence, refuse, token, uncommitted};
use crate::{
    error,
    rows::{self, column},
    statements::Schema,
};

/// How often a resource's row is looked for that others make and remove meanwhile.
const ATTEMPTS: u32 = 5;

/// A register of fences in the table `<schema>.fences`: for data in PostgreSQL, wherever the lock is kept.
///
/// Each write is admitted in its own transaction:
///
/// ```no_run
/// # async fn example(pool: lock_postgres::sqlx::PgPool, lease: lock_core::Lease) -> Result<(), Box<dyn std::error::Error>> {
/// use lock_core::{FenceRegister, Pass, Resource};
/// use lock_postgres::{PostgresFences, sqlx};
///
/// let fences = PostgresFences::builder(pool.clone()).build().await?;
/// let accounts = Resource::new("accounts")?;
/// // Before the first read: late writes of the holder before are refused from now on.
/// fences.raise(&accounts, &lease.fence()?, Pass::Again).await?;
///
/// let mut tx = pool.begin().await?;
/// fences.admit(&mut tx, &accounts, &lease, Pass::Again).await?;
/// sqlx::query("UPDATE accounts SET balance = 7 WHERE id = 42").execute(&mut *tx).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresFences {
    pool: PgPool,
    schema: Schema,
    look: Statement,
    first: Statement,
    higher: Statement,
    highest: Statement,
    forget: Statement,
    report: FenceReport,
}

impl PostgresFences {
    pub(super) fn new(pool: PgPool, schema: Schema) -> Self {
        let statement = |template| Statement::new(&schema, template);
        Self {
            pool,
            look: statement(concat!(
                include_str!("../sql/fence_in_transaction.sql"),
                include_str!("../sql/fence_look.sql")
            )),
            first: statement(include_str!("../sql/fence_first.sql")),
            higher: statement(include_str!("../sql/fence_raise.sql")),
            highest: statement(include_str!("../sql/fence_highest.sql")),
            forget: statement(include_str!("../sql/fence_forget.sql")),
            schema,
            report: FenceReport::new("postgres"),
        }
    }

    /// Connects by URL, as [`PostgresLocks::connect`](crate::PostgresLocks::connect); `?leasehold_schema=…` names the schema.
    /// Up to four connections, for what is no part of a transaction of the caller's.
    ///
    /// # Errors
    /// As [`FencesBuilder::build`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        FencesBuilder::of_url(url).build().await
    }

    /// A register that uses the application's pool.
    pub fn builder(pool: PgPool) -> FencesBuilder {
        FencesBuilder::of_pool(pool)
    }

    /// The statements that create the register, for the administrator of a database in which clients may not.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the name is empty, longer than 63 bytes or holds a NUL.
    pub fn ddl(schema: &str) -> Result<String, StoreError> {
        Schema::new(schema).map(|schema| builder::ddl(&schema))
    }

    /// Tells refusals to this observer, for metrics. Clones that were made before don't.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// Admits what this transaction writes, if the fence passes; the register is raised with the write, or with it not. One
    /// round trip, two more for a fence that raises.
    ///
    /// The transaction holds the resource's row from here to its end: who raises or admits meanwhile waits, a later
    /// holder as well as this one's own other transactions.
    ///
    /// After a refusal the transaction can only be rolled back; a commit of it keeps nothing. Rolling back to a savepoint
    /// that was set before undoes both.
    ///
    /// Under `REPEATABLE READ` and `SERIALIZABLE`, a register that was raised since the transaction's first statement gives
    /// [`ErrorKind::Contention`] (SQLSTATE 40001): nothing is written, do the transaction again.
    ///
    /// Cancel safe: at most the register is raised with the transaction.
    ///
    /// # Errors
    /// [`FenceError::Stale`], [`FenceError::OtherLock`], [`FenceError::Invalid`] and [`FenceError::Store`]: none has written
    /// anything. One that [may have been applied](Applied::Maybe) says that no transaction is open any more: what was written
    /// since may stand. [`ErrorKind::Corrupt`] if the register holds what no version of this writes.
    pub async fn admit(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        resource: &Resource,
        fence: &impl ToFence,
        pass: Pass,
    ) -> Result<(), FenceError> {
        let fence = self.report.told(None, fence.to_fence())?;
        self.report.told(Some(fence.lock()), self.admit_in(transaction, resource, &fence, pass).await)
    }

    async fn admit_in(
        &self,
        connection: &mut PgConnection,
        resource: &Resource,
        fence: &Fence,
        pass: Pass,
    ) -> Result<(), FenceError> {
        let admitted = self.judge(connection, resource, fence, pass).await;
        if admitted.is_err() {
            refuse(connection).await;
        }
        admitted
    }

    /// Locks the resource's row, judges by what it says, and raises it if that is called for: nobody comes between.
    async fn judge(
        &self,
        connection: &mut PgConnection,
        resource: &Resource,
        fence: &Fence,
        pass: Pass,
    ) -> Result<(), FenceError> {
        let (name, lock, token) = (hex(resource.as_str()), hex(fence.lock().as_str()), token(fence));
        let values = [("resource", name.as_str()), ("lock", lock.as_str()), ("token", token.as_str())];
        for _ in 0..ATTEMPTS {
            let seen = self.look.run(connection, &values).await.map_err(|error| uncommitted(error, "fences"))?;
            let highest = seen.first().map(highest).transpose()?;
            if !admit(highest.as_ref(), resource, fence, pass)? {
                return Ok(());
            }
            let raise = if highest.is_some() { &self.higher } else { &self.first };
            let raised = raise.run(connection, &values).await.map_err(|error| uncommitted(error, "fences"))?;
            if !raised.is_empty() {
                return Ok(());
            }
            // It has a row now that wasn't there when we looked: somebody else's first fence.
        }
        let message = "others fence this resource and forget it again all the time";
        Err(StoreError::refused(ErrorKind::Contention, message).into())
    }

    async fn raise_alone(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        let begun = begin(&self.pool, include_str!("../sql/fence_begin.sql").to_owned()).await;
        let mut transaction = begun.map_err(|error| uncommitted(error, "fences"))?;
        self.admit_in(&mut transaction, resource, fence, pass).await?;
        let committed = transaction.commit().await;
        Ok(committed.map_err(|error| {
            let applied = error::applied(&error);
            of_fence(error, applied, "fences")
        })?)
    }

    /// One statement on one resource, in a transaction of its own.
    async fn alone(&self, resource: &Resource, statement: &Statement) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        statement.run(&mut connection, &[("resource", &hex(resource.as_str()))]).await
    }
}

#[async_trait]
impl FenceRegister for PostgresFences {
    /// Survives a crash of the server, also where its administrator or role turned `synchronous_commit` off.
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        self.report.told(Some(fence.lock()), self.raise_alone(resource, fence, pass).await)
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        let found = self.alone(resource, &self.highest).await;
        let found = found.map_err(|error| of_fence(error, Applied::No, "fences"));
        self.report.told(None, found.and_then(|found| found.first().map(highest).transpose()))
    }

    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        let gone = self.alone(resource, &self.forget).await;
        let gone = gone.map_err(|error| {
            let applied = error::applied(&error);
            of_fence(error, applied, "fences")
        });
        self.report.told(None, gone.map(|rows| !rows.is_empty()))
    }
}

/// What a row says. The database is shared with others: nothing in it is trusted.
fn highest(row: &PgRow) -> Result<Fence, StoreError> {
    let lock = LockName::new(column::<&str>(row, "lock")?)
        .map_err(|error| rows::corrupt("the fence of the resource names no lock").caused_by(error))?;
    let token = rows::token(column(row, "token")?)?;
    Fence::new(lock, token)
        .map_err(|error| rows::corrupt("the fence of the resource holds what is no token").caused_by(error))
}

impl fmt::Debug for PostgresFences {
    /// Without the pool: it knows the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresFences").field("schema", &self.schema.as_str()).finish_non_exhaustive()
    }
}
