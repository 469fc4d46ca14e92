//! The register: the highest fence of each resource, in a collection next to the data.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use lock_core::{
    Applied, ErrorKind, Fence, FenceError, FenceRegister, FenceReport, Moment, Observer, Pass, Resource, StoreError,
    ToFence,
};
use mongodb::{
    ClientSession, Collection,
    bson::{Document, doc},
    error::Error,
    options::{ReadConcern, ReadPreference, SelectionCriteria},
};

use super::{
    config::FencesBuilder,
    session::{failed, give_back, take},
    step::{Step, id, seen},
};
use crate::{
    config::{Settings, Source},
    error::{DUPLICATE_KEY, Failure},
    operation::{Runner, doubting},
    provider::STORE,
    schema,
};

/// Attempts at raising a fence that others make, change or forget at the same time.
const ATTEMPTS: u32 = 5;

/// What an attempt is given of the time even if that is over. The server takes no shorter limit than a millisecond.
const LEAST: Duration = Duration::from_millis(10);

/// The highest fence that each resource has seen, in a collection next to the data; the lock may be kept anywhere. Clones
/// share their connections.
///
/// ```no_run
/// # async fn example(client: mongodb::Client, lease: lock_core::Lease) -> Result<(), Box<dyn std::error::Error>> {
/// use lock_core::{FenceRegister, Pass, Resource};
/// use lock_mongo::{MongoFences, mongodb::bson::{Document, doc}};
///
/// let fences = MongoFences::builder(&client).database("prod").build().await?;
/// let (resource, accounts) = (Resource::new("accounts")?, client.database("prod").collection::<Document>("accounts"));
/// // Before the first read: from here on the holder before this one is refused.
/// fences.raise(&resource, &lease.fence()?, Pass::Again).await?;
///
/// let mut session = client.start_session().await?;
/// session.start_transaction().with_options(fences.options()).await?;
/// fences.admit(&mut session, &resource, &lease, Pass::Again).await?;
/// accounts.update_one(doc! { "_id": 7 }, doc! { "$inc": { "balance": -100 } }).session(&mut session).await?;
/// session.commit_transaction().await?;
/// # Ok(()) }
/// ```
///
/// Each resource is a document: `_id` its name (in which `%` and all but ASCII is percent-encoded), `lock` whose tokens fence it, `token` the highest of them. Nothing sweeps
/// them.
#[derive(Clone)]
pub struct MongoFences {
    runner: Arc<Runner>,
    server: String,
    report: FenceReport,
}

impl MongoFences {
    /// Connects by URL, as [`MongoLocks::connect`](crate::MongoLocks::connect) does, with the defaults of
    /// [`FencesBuilder`].
    ///
    /// # Errors
    /// As [`FencesBuilder::build`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build().await
    }

    /// Sets a register up, from a URL or from the application's own client or database.
    pub fn builder(source: impl Into<Source>) -> FencesBuilder {
        FencesBuilder::new(source.into())
    }

    pub(super) async fn start(settings: Settings) -> Result<Self, StoreError> {
        let server = settings.server.clone();
        let (runner, _) = schema::open(settings).await?;
        Ok(Self { runner: Arc::new(runner), server, report: FenceReport::new(STORE) })
    }

    /// Tells refusals to this observer, for metrics. Clones that were made before don't.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// What a fenced transaction is to be started with: its commit is told once a majority has it in its journal. With
    /// less, a fail-over may undo what was told as kept.
    #[must_use]
    pub fn options(&self) -> mongodb::options::TransactionOptions {
        super::transactions::options(self.runner.timeout)
    }

    /// Lets the transaction of this session go on only if the fence passes, and raises the register with its commit. Of
    /// two transactions that write the same resource at the same time, one meets a conflict.
    ///
    /// Make it the transaction's *first* command, started with [`options`](Self::options). The session may be of another
    /// client than the register's, of the same servers.
    ///
    /// After any error the transaction is undone: further commands of it fail, and its commit does. If the server couldn't be
    /// told that, the session itself is of no use any more: begin anew in another one.
    ///
    /// Not cancel safe, as no future of the driver is: dropped in the middle, it leaves a transaction that isn't guarded, so
    /// drop the session as well. The resource may stay blocked until the server ends the transaction by itself, after a
    /// minute by default.
    ///
    /// # Errors
    /// [`FenceError::Stale`], [`FenceError::OtherLock`]; [`FenceError::Invalid`] for a lease that isn't exclusive;
    /// [`FenceError::Store`], never applied. Among these [`ErrorKind::Contention`]: another one writes the resource; begin
    /// anew, as the driver's error does say where it is the source (`TransientTransactionError`). [`ErrorKind::Corrupt`] where
    /// the register holds what no version writes; [`ErrorKind::Unsupported`] on a standalone server;
    /// [`ErrorKind::Other`] if no transaction was started.
    pub async fn admit(
        &self,
        session: &mut ClientSession,
        resource: &Resource,
        fence: &impl ToFence,
        pass: Pass,
    ) -> Result<(), FenceError> {
        let mut taken = self.report.told(None, take(session).await)?;
        let admitted = match fence.to_fence() {
            Ok(fence) => {
                let step = Step::new(resource, fence, pass);
                self.report.told(Some(step.lock()), self.admit_at_server(&mut taken, &step).await)
            }
            Err(invalid) => self.report.told(None, Err(invalid)),
        };
        give_back(session, taken, admitted.is_ok()).await;
        admitted
    }

    async fn admit_at_server(&self, session: &mut ClientSession, step: &Step) -> Result<(), FenceError> {
        let database = session.client().database(self.runner.database.name());
        let fences = database.collection::<Document>(self.runner.collection.name());
        let command = fences.find_one_and_update(step.filter(), step.update()).upsert(true);
        let command = command.projection(doc! { "_id": 1 }).max_time(self.runner.timeout);
        match command.session(session).await {
            Ok(_) => return Ok(()),
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(failed(error).into()),
        }
        // The transaction is over with that. What stands there is looked up outside of it.
        let found = find(&fences, &step.resource, ReadConcern::local()).await.map_err(failed)?;
        step.refused(found.as_ref())?;
        Err(StoreError::refused(ErrorKind::Other, "the transaction was undone").into())
    }

    /// One attempt; `in_doubt` is whether one was left unanswered so far.
    async fn try_to_raise(&self, step: &Step, give_up: Moment, in_doubt: &mut bool) -> Result<(), FenceError> {
        let (sent, limit) = (step.clone(), self.left(give_up));
        let raise = move |runner: Arc<Runner>| {
            let step = sent.clone();
            async move {
                let command = runner.collection.find_one_and_update(step.filter(), step.update()).upsert(true);
                let command = command.projection(doc! { "_id": 1 }).write_concern(runner.write_concern());
                match command.max_time(limit).await {
                    Ok(_) => Ok(true),
                    Err(error) if is_duplicate(&error) => Ok(false),
                    Err(error) => Err(Failure::from(error)),
                }
            }
        };
        let raised = match self.runner.run(limit, raise).await {
            Ok(raised) => raised,
            Err(error) => {
                let error = doubting(error, *in_doubt);
                *in_doubt |= error.applied() == Applied::Maybe;
                return Err(error.into());
            }
        };
        if raised.found {
            return Ok(());
        }
        *in_doubt |= raised.in_doubt;
        // Its own number says that it is raised only where no fail-over can undo that.
        let concern = if *in_doubt { ReadConcern::majority() } else { ReadConcern::local() };
        let resource = step.resource.clone();
        let look = move |runner: Arc<Runner>| {
            let (resource, concern) = (resource.clone(), concern.clone());
            async move { Ok(find(&runner.collection, &resource, concern).await?) }
        };
        let found = self.runner.run(self.left(give_up), look).await.map_err(|error| doubting(error, *in_doubt))?.found;
        step.judged(found.as_ref(), *in_doubt)
    }

    fn left(&self, give_up: Moment) -> Duration {
        give_up.since(self.runner.clock.now()).max(LEAST)
    }
}

#[async_trait]
impl FenceRegister for MongoFences {
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        let step = Step::new(resource, fence.clone(), pass);
        let clock = &self.runner.clock;
        let (give_up, mut in_doubt, mut attempts) = (clock.now() + self.runner.timeout, false, 1);
        loop {
            match self.try_to_raise(&step, give_up, &mut in_doubt).await {
                Err(FenceError::Store(error))
                    if error.kind() == ErrorKind::Contention && attempts < ATTEMPTS && clock.now() < give_up =>
                {
                    attempts += 1;
                }
                raised => return self.report.told(Some(step.lock()), raised),
            }
        }
    }

    /// As a majority of the set has it, so that no fail-over undoes what is told.
    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        let name = resource.clone();
        let look = move |runner: Arc<Runner>| {
            let filter = doc! { "_id": id(&name) };
            async move { Ok(runner.collection.find_one(filter).max_time(runner.timeout).await?) }
        };
        let found = self.runner.run(self.runner.timeout, look).await;
        self.report.told(None, found.and_then(|done| done.found.as_ref().map(seen).transpose()))
    }

    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        let name = resource.clone();
        let delete = move |runner: Arc<Runner>| {
            let filter = doc! { "_id": id(&name) };
            async move {
                let command = runner.collection.find_one_and_delete(filter).write_concern(runner.write_concern());
                Ok(command.max_time(runner.timeout).await?.is_some())
            }
        };
        let done = self.runner.run(self.runner.timeout, delete).await;
        let forgotten = done.and_then(|done| {
            if done.in_doubt && !done.found {
                let message = "an attempt was left unanswered; the fence is forgotten, by this or since before";
                return Err(StoreError::unknown(ErrorKind::Unreachable, message));
            }
            Ok(done.found)
        });
        self.report.told(None, forgotten)
    }
}

impl fmt::Debug for MongoFences {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoFences")
            .field("server", &self.server)
            .field("collection", &self.runner.collection.namespace().to_string())
            .finish_non_exhaustive()
    }
}

/// The document by which a step was just refused, whether a majority has it yet or not, or as a majority has it.
async fn find(
    fences: &Collection<Document>,
    resource: &Resource,
    concern: ReadConcern,
) -> Result<Option<Document>, Error> {
    let look = fences.find_one(doc! { "_id": id(resource) }).read_concern(concern);
    look.selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary)).await
}

fn is_duplicate(error: &Error) -> bool {
    Failure::from(error.clone()).code() == Some(DUPLICATE_KEY)
}
