//! The provider: requests become commands, records become answers.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use lock_core::{
    AcquireRequest, Acquired, Capabilities, Durability, ErrorKind, KeptBy, ListRequest, Listener, LockName,
    LockProvider, LockStatus, Operation, OwnerId, ReleaseRequest, Released, RenewRequest, Renewed, StoreError, Wake,
    WakeHub, Watch, in_waves,
};
use mongodb::{
    Client,
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};

use crate::{
    config::{self, Builder, Index, Settings, Source},
    error,
    fence::MongoTransactions,
    group::MOST,
    leases::{Leases, fresh},
    operation::{Change, Query},
    pipelines::page,
    records::{self, Record, millis},
    schema::{self, Kind},
    sweep::Sweeper,
    wake::Changes,
};

/// This store's word in capabilities and errors.
pub(crate) const STORE: &str = "mongo";

/// How many locks a page of a list has at most.
const LONGEST_PAGE: usize = 1000;

/// Locks in a MongoDB collection. Clones share their connections.
#[derive(Clone)]
pub struct MongoLocks {
    inner: Arc<Inner>,
}

struct Inner {
    leases: Leases,
    capabilities: Capabilities,
    releases: Listener<Changes>,
    server: String,
    /// Of transactions, once there were any and the locks' client isn't the application's.
    application: OnceLock<Client>,
}

impl MongoLocks {
    /// Connects by URL, with the defaults of [`Builder`]: `mongodb://user:password@host1,host2/database?replicaSet=set`
    /// or `mongodb+srv://…`.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build().await
    }

    /// What an administrator runs in `mongosh`, in the locks' database, where clients may not create an index;
    /// `collection` if it isn't to be `leasehold_locks`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if no collection can have that name.
    pub fn ddl(collection: Option<&str>) -> Result<String, StoreError> {
        let collection = collection.unwrap_or(config::COLLECTION);
        config::check_collection(collection)?;
        Ok(schema::create_by_hand(collection))
    }

    /// Sets a provider up, from a URL or from the application's own client or database.
    ///
    /// The application's client shares its connections with it: see the [crate] for what its options should be.
    pub fn builder(source: impl Into<Source>) -> Builder {
        Builder::new(source.into())
    }

    /// Transactions in which a grant of these locks holds its lock until they end.
    ///
    /// By the application's own client, if the locks were given one. Otherwise by another client than the locks' own,
    /// which is made once: renewals must not queue behind an application's commands.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] or [`ErrorKind::Other`] if that client can't be made. Nothing is sent here.
    pub fn transactions(&self) -> Result<MongoTransactions, StoreError> {
        let runner = &self.inner.leases.runner;
        let transactions = MongoTransactions::new(self.application()?)
            .database(runner.database.name())
            .collection(runner.collection.name());
        Ok(transactions.operation_timeout(runner.timeout).clock(Arc::clone(&runner.clock)))
    }

    fn application(&self) -> Result<Client, StoreError> {
        let runner = &self.inner.leases.runner;
        let Some(options) = &runner.options else { return Ok(runner.database.client().clone()) };
        if let Some(client) = self.inner.application.get() {
            return Ok(client.clone());
        }
        let mut options = options.clone();
        // Those were the locks' own.
        (options.max_pool_size, options.retry_writes) = (None, None);
        let made = Client::with_options(options).map_err(|error| error::of_reading(error.into()))?;
        Ok(self.inner.application.get_or_init(|| made).clone())
    }

    pub(crate) async fn start(settings: Settings) -> Result<Self, StoreError> {
        let server = settings.server.clone();
        let (grace, retention, poll_interval) = (settings.grace, settings.retention, settings.poll_interval);
        let (clock, create_index) = (Arc::clone(&settings.clock), settings.index == Index::Create);
        let (runner, kind) = schema::open(settings).await?;
        let runner = Arc::new(runner);
        let changes = Changes(Arc::clone(&runner));
        let releases = Listener::new(WakeHub::default(), changes, Arc::clone(&clock));

        let mut capabilities = Capabilities::new(STORE);
        // Every grant is told when a majority has it in its journal; on a standalone, when the one server has.
        capabilities.durability = Durability::Durable;
        capabilities.ttl.granularity = Duration::from_millis(1);
        capabilities.grace = grace;
        capabilities.wake = if kind == Kind::Standalone { Wake::Poll(poll_interval) } else { Wake::Event };
        capabilities.minimum_hold = KeptBy::Store;
        capabilities.ticks = true;
        capabilities.grouping = NonZeroUsize::new(MOST);
        Ok(Self {
            inner: Arc::new(Inner {
                leases: Leases { runner, sweeper: Sweeper::new(clock.now(), create_index), grace, retention },
                capabilities,
                releases,
                server,
                application: OnceLock::new(),
            }),
        })
    }
}

impl Inner {
    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let found =
            self.leases.runner.read(Query { filter: doc! { "_id": name.as_str() }, most: 1, settled: None }).await?;
        found.first().map(|fields| Record::new(fields).status()).transpose()
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        let most = usize::try_from(request.limit).unwrap_or(LONGEST_PAGE).clamp(1, LONGEST_PAGE);
        let (mut statuses, mut after) = (Vec::new(), request.after.as_ref().map(|name| name.as_str().to_owned()));
        loop {
            let wanted = most - statuses.len();
            let filter = page(&request.prefix, after.as_deref());
            let found = self.leases.runner.read(Query { filter, most: wanted, settled: None }).await?;
            statuses.extend(found.iter().filter_map(listed));
            // A page that is short says that nothing follows, so records that are left out are made up for.
            let (is_short, is_full) = (found.len() < wanted, statuses.len() >= most);
            let Some(last) = found.last().and_then(|fields| fields.get_str("_id").ok()) else { return Ok(statuses) };
            if is_short || is_full {
                return Ok(statuses);
            }
            after = Some(last.to_owned());
        }
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let number = fresh();
        let change = Change {
            filter: self.leases.runner.pipelines.taken(name, number),
            pipeline: Arc::clone(&self.leases.runner.pipelines.force_release),
            variables: doc! { "retention": millis(self.leases.retention), "change": number },
            upsert: false,
            // As it was.
            returned: ReturnDocument::Before,
        };
        let done = self.leases.runner.change(change, self.leases.runner.timeout).await?;
        let Some(before) = done.found else {
            return if done.in_doubt { self.leases.was_freed(name, number).await } else { Ok(false) };
        };
        let owned = matches!(before.get("owner"), Some(Bson::String(_)));
        Ok(owned && Record::new(&before).expires_in().map_or(true, |left| !left.is_zero()))
    }
}

#[async_trait]
impl LockProvider for MongoLocks {
    fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        only(self.acquire_many(std::slice::from_ref(request)).await)
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        only(self.renew_many(std::slice::from_ref(request)).await)
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        only(self.release_many(std::slice::from_ref(request)).await)
    }

    async fn watch(&self, name: &LockName, _owner: OwnerId) -> Result<Watch, StoreError> {
        let watch = match self.inner.capabilities.wake {
            Wake::Poll(every) => {
                let message =
                    format!("a standalone server has no change streams to wake a waiter; ask every {every:?}");
                Err(StoreError::refused(ErrorKind::Unsupported, message))
            }
            _ => self.inner.releases.watch(name).await,
        };
        watch.map_err(|error| error.at(STORE, Operation::Watch, Some(name)))
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        self.inner.inspect(name).await.map_err(|error| error.at(STORE, Operation::Inspect, Some(name)))
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.inner.list(request).await.map_err(|error| error.at(STORE, Operation::List, None))
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let done = self.inner.force_release(name).await;
        done.map_err(|error| error.at(STORE, Operation::ForceRelease, Some(name)))
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        let send = |wave: Vec<_>| async move { self.inner.leases.acquire_wave(&wave).await };
        in_waves(requests, self.capabilities(), send).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        let send = |wave: Vec<_>| async move { self.inner.leases.renew_wave(&wave).await };
        in_waves(requests, self.capabilities(), send).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        let send = |wave: Vec<_>| async move { self.inner.leases.release_wave(&wave).await };
        in_waves(requests, self.capabilities(), send).await
    }
}

impl fmt::Debug for MongoLocks {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoLocks")
            .field("server", &self.inner.server)
            .field("collection", &self.inner.leases.runner.collection.namespace().to_string())
            .finish_non_exhaustive()
    }
}

/// A record in a list; one that can't be read is left out, so that it doesn't hide the others.
fn listed(fields: &Document) -> Option<LockStatus> {
    let status = Record::new(fields).status();
    status.inspect_err(|error| tracing::warn!(id = ?fields.get("_id"), %error, "a record is left out of a list")).ok()
}

fn only<A>(answers: Vec<Result<A, StoreError>>) -> Result<A, StoreError> {
    answers.into_iter().next().unwrap_or_else(|| Err(records::corrupt("there was no answer")))
}
