//! Transactions in which a grant holds its lock: lock and data in one replica set.
//!
//! A grant is one `findAndModify` of the lock's record, so only a write of that very record makes it wait. A guard in a
//! document of its own would spare renewals the wait, but grants would have to write that one as well, and so be
//! transactions themselves: several commands each, and none of them in groups. Guarded transactions are to be short and
//! grants many, so it is the renewals that wait.
//!
//! Why it is enough: the write conflicts with each change of the record since the transaction's snapshot. So the record was
//! this grant's, live, from the snapshot to the write, and from then on nobody can change it before the end. A release, a
//! forced release and a take-over are changes of it, and so is a deletion. A primary that was deposed and doesn't know it yet
//! may be told to commit, and no majority will ever acknowledge that.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use lock_core::{
    Applied, Clock, ErrorKind, Fence, FenceError, FenceReport, InvalidFence, NotHeld, Observer, Operation, StoreError,
    SystemClock, ToFence, Transactions,
};
use mongodb::{
    Client, ClientSession,
    bson::{Document, doc},
    error::{TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::{Acknowledgment, ReadConcern, ReadPreference, SelectionCriteria, TransactionOptions, WriteConcern},
};

use super::session::{failed, give_back, is_in_transaction, may_succeed_anew, take};
use crate::{
    config::{COLLECTION, DATABASE},
    error,
    leases::fresh,
    operation::doubting,
    pipelines,
    provider::STORE,
};

/// Between two attempts at beginning, while another transaction has the lock's record.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Attempts at a commit of which it isn't known how it ended. The driver itself makes two of each.
const ATTEMPTS_TO_COMMIT: u32 = 3;

/// Transactions on a replica set in which a grant holds its lock until they end, for
/// [`Lock::run_in_transaction`](lock_core::Lock::run_in_transaction) or for the application's own.
///
/// ```no_run
/// # async fn example(client: mongodb::Client, locks: lock_core::Locks) -> Result<(), Box<dyn std::error::Error>> {
/// use lock_mongo::{MongoTransactions, mongodb::{ClientSession, bson::{Document, doc}}};
///
/// let accounts = client.database("prod").collection::<Document>("accounts");
/// let transactions = MongoTransactions::new(client).database("prod");
/// locks.lock("accounts").run_in_transaction(&transactions, async |session: &mut ClientSession, _lease| {
///     let pay = doc! { "$inc": { "balance": -100 } };
///     accounts.update_one(doc! { "_id": 7 }, pay).session(session).await
/// }).await?;
/// # Ok(()) }
/// ```
///
/// # How, and what it costs
///
/// The transaction *writes* the lock's record, so whoever else wants to change that waits at the server until the
/// transaction has ended: who wants to take the lock over, who gives it back, who takes it away by force. And so do the
/// **renewals** of this very lease: while the transaction is open, the lease runs on as it was at its beginning. A
/// transaction that outlasts it is refused its commit by [`run_in_transaction`](lock_core::Lock::run_in_transaction), and
/// nothing is kept.
///
/// So keep transactions short. Under **a sixth of the ttl**, which is what the keeper gives a renewal before it sends the next
/// one, nobody notices. What remains of the lease is the most, about two thirds of the ttl where renewals come in time.
/// Other leases of the same client whose renewals travel with this one's wait with it for a quarter of the locks' operation
/// timeout (1.25 s by default), and then go alone. Who waits to take over asks again after each operation timeout; who asks
/// without waiting is told that one. Work that is stopped because its lease is lost is dropped where it stands: the
/// driver gives up a connection for that.
///
/// The server ends a transaction by itself after `transactionLifetimeLimitSeconds` (60), with nothing kept.
///
/// The work must not end its transaction itself. What it commits so is kept, and whether the lease held was asked only at the
/// beginning; it is told as unknown afterwards. If the work also begins another one in the same session, only that one is
/// known of here.
///
/// Two transactions under one lease follow one another. So one inside the other, as `run_in_transaction` with
/// [`reentrant`](lock_core::Lock::reentrant) within the work of another one, waits for itself until the timeout, and fails. In all a guarded transaction is two commands longer than another
/// one, the write at its beginning and the one before its commit; [`hold`](Self::hold) by itself is one.
#[derive(Clone)]
pub struct MongoTransactions {
    client: Client,
    database: String,
    collection: String,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    report: FenceReport,
}

impl MongoTransactions {
    /// Transactions of the application's own client. The locks are in its default database, or in `leasehold`, unless
    /// [`database`](Self::database) says otherwise; in the collection `leasehold_locks`, unless
    /// [`collection`](Self::collection) does.
    ///
    /// Sends nothing. A database or a collection without the lock is noticed by a refusal.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let database = client.default_database().map_or_else(|| DATABASE.to_owned(), |named| named.name().to_owned());
        Self {
            client,
            database,
            collection: COLLECTION.to_owned(),
            timeout: Duration::from_secs(5),
            clock: Arc::new(SystemClock),
            report: FenceReport::new(STORE),
        }
    }

    /// The database of the locks.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = name.into();
        self
    }

    /// The collection of the locks.
    #[must_use]
    pub fn collection(mut self, name: impl Into<String>) -> Self {
        self.collection = name.into();
        self
    }

    /// How long a beginning, a commit or a roll-back may take in all. Default 5 s. A commit that takes longer is unknown.
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The clock for time-outs and pauses. Of a lease the server's decides.
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

    /// The client, to reach the data with: a session serves its own client alone.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What a guarded transaction is to be started with: it reads one snapshot, and its commit is told once a majority
    /// has it in its journal. With less, a fail-over may undo what was told as kept.
    #[must_use]
    pub fn options(&self) -> TransactionOptions {
        options(self.timeout)
    }

    /// Lets the transaction of this session go on only if the grant holds its lock, live by the server's clock; then nobody
    /// else is granted it until the transaction has ended, even if the lease ends before or is given back.
    ///
    /// Make it the transaction's *first* command, started with [`options`](Self::options): what it reads is as of its first
    /// command, and a renewal between that one and this is a conflict. The session may be of another client
    /// than [`client`](Self::client), of the same servers.
    ///
    /// After any error the transaction is undone: further commands of it fail, and its commit does. If the server couldn't be
    /// told that, the session itself is of no use any more: begin anew in another one.
    ///
    /// Not cancel safe, as no future of the driver is: dropped in the middle, it leaves a transaction that isn't guarded, so
    /// drop the session as well. The lock may stay taken until the server ends the transaction by itself.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`]; [`FenceError::Invalid`] for a lease that isn't exclusive; [`FenceError::Store`], never
    /// applied. Among these [`ErrorKind::Contention`]: the record was changed since the transaction began, or another one has
    /// it; begin anew. The source is the driver's error, with its label `TransientTransactionError`.
    /// [`ErrorKind::Unsupported`] on a standalone server; [`ErrorKind::Other`] if no transaction was started.
    pub async fn hold(&self, session: &mut ClientSession, fence: &impl ToFence) -> Result<(), FenceError> {
        match fence.to_fence() {
            Ok(fence) => self.report.told(Some(fence.lock()), self.held(session, Ok(&fence)).await),
            Err(invalid) => self.report.told(None, self.held(session, Err(invalid)).await),
        }
    }

    /// Whatever the check says, after an error the transaction is undone.
    async fn held(&self, session: &mut ClientSession, fence: Result<&Fence, InvalidFence>) -> Result<(), FenceError> {
        let mut taken = take(session).await?;
        let held = match fence {
            Ok(fence) => self.hold_at_server(&mut taken, fence).await,
            Err(invalid) => Err(invalid.into()),
        };
        give_back(session, taken, held.is_ok()).await;
        held
    }

    async fn hold_at_server(&self, session: &mut ClientSession, fence: &Fence) -> Result<(), FenceError> {
        let records = session.client().database(&self.database).collection::<Document>(&self.collection);
        let filter = pipelines::held(fence.lock(), fence.token_i64())?;
        // Only a change is a write, and only a write is in anybody's way.
        let update = doc! { "$set": { "guarded_by": fresh() } };
        let command = records.find_one_and_update(filter, update).projection(doc! { "_id": 1 }).max_time(self.timeout);
        let found = command.session(session).await.map_err(failed)?;
        found.map(drop).ok_or_else(|| NotHeld { lock: fence.lock().clone(), token: fence.token() }.into())
    }

    /// Until somebody else's transaction has let the record go; not when nobody waits for it any more.
    async fn begun(self, fence: Fence, asker: Weak<()>) -> Result<ClientSession, FenceError> {
        let (give_up, mut pause) = (self.clock.now() + self.timeout, SHORTEST_PAUSE);
        loop {
            let mut session = self.client.start_session().await.map_err(failed)?;
            session.start_transaction().with_options(self.options()).await.map_err(failed)?;
            let error = match self.held(&mut session, Ok(&fence)).await {
                Ok(()) => return Ok(session),
                Err(error) => error,
            };
            let next = self.clock.now() + pause;
            if !may_succeed_anew(&error) || next >= give_up || asker.strong_count() == 0 {
                return Err(error);
            }
            self.clock.sleep_until(next).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn committed(self, mut session: ClientSession, fence: Fence) -> Result<(), FenceError> {
        if !is_in_transaction(&mut session).await? {
            return Err(ended_by_the_work().into());
        }
        self.held(&mut session, Ok(&fence)).await?;
        let (give_up, mut attempts, mut in_doubt) = (self.clock.now() + self.timeout, 1, false);
        loop {
            let Err(cause) = session.commit_transaction().await else { return Ok(()) };
            let is_unknown = cause.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT);
            if is_unknown && attempts < ATTEMPTS_TO_COMMIT && self.clock.now() < give_up {
                (attempts, in_doubt) = (attempts + 1, true);
                continue;
            }
            // The server's word that it was undone.
            let is_undone = !is_unknown && cause.contains_label(TRANSIENT_TRANSACTION_ERROR);
            return Err(if is_undone { doubting(failed(cause), in_doubt) } else { unknown(cause) }.into());
        }
    }

    /// Lets something come to its end in a task of its own, since the driver's futures must not be dropped (its README, and
    /// RUST-937), and waits for that as long as it may take. A transaction that nobody waits for any more is undone.
    async fn in_task<T: Send + 'static>(
        &self,
        late: impl Fn(ErrorKind, String) -> StoreError,
        work: impl Future<Output = Result<T, FenceError>> + Send + 'static,
    ) -> Result<T, FenceError> {
        // Each has its own limit; what is over all the same hangs.
        let limit = self.timeout + self.timeout / 4;
        let give_up = self.clock.now() + limit;
        tokio::select! {
            done = tokio::spawn(work) => done.unwrap_or_else(|error| {
                Err(late(ErrorKind::Other, "the runtime ended the operation".to_owned()).caused_by(error).into())
            }),
            () = self.clock.sleep_until(give_up) => {
                Err(late(ErrorKind::Timeout, format!("the server didn't answer within {limit:?}")).into())
            }
        }
    }
}

#[async_trait]
impl Transactions for MongoTransactions {
    type Transaction = ClientSession;

    /// Waits for another transaction under the same lease, up to the timeout.
    async fn begin(&self, fence: &Fence) -> Result<ClientSession, FenceError> {
        let asks = Arc::new(());
        // What is begun too late is undone: nothing was written, and nobody will commit it.
        let begun = self.in_task(StoreError::refused, self.clone().begun(fence.clone(), Arc::downgrade(&asks))).await;
        self.report.placed(Some(fence.lock()), begun)
    }

    async fn commit(&self, transaction: ClientSession, fence: &Fence) -> Result<(), FenceError> {
        let committed = self.in_task(StoreError::unknown, self.clone().committed(transaction, fence.clone()));
        self.report.placed(Some(fence.lock()), committed.await)
    }

    async fn roll_back(&self, mut transaction: ClientSession) -> Result<(), StoreError> {
        let undo = async move {
            // The driver fails it only where none is open, and doesn't tell what became of what was.
            transaction.abort_transaction().await.map_err(|cause| ended_by_the_work().caused_by(cause).into())
        };
        self.in_task(StoreError::unknown, undo).await.map_err(|error| match error {
            FenceError::Store(error) => error.at(STORE, Operation::Fence, None),
            error => StoreError::unknown(ErrorKind::Other, error.to_string()),
        })
    }
}

impl fmt::Debug for MongoTransactions {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoTransactions")
            .field("collection", &format!("{}.{}", self.database, self.collection))
            .finish_non_exhaustive()
    }
}

/// Of transactions that keep what they were told to have kept, whatever is good for the application's others.
pub(super) fn options(timeout: Duration) -> TransactionOptions {
    TransactionOptions::builder()
        .read_concern(ReadConcern::snapshot())
        .write_concern(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(timeout).build())
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .max_commit_time(timeout)
        .build()
}

/// With its own end of the transaction the work may have kept what it wrote, whatever it wrote after that.
fn ended_by_the_work() -> StoreError {
    StoreError::unknown(ErrorKind::Other, "the work ended its transaction itself; what it wrote may be kept")
}

/// A commit has left: whatever else its error says, it may have been done.
fn unknown(cause: mongodb::error::Error) -> StoreError {
    let error = error::of_command(cause.into());
    if error.applied() == Applied::Maybe {
        return error;
    }
    StoreError::unknown(error.kind(), error.to_string()).caused_by(error)
}
