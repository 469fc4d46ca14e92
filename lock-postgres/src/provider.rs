//! The provider: requests become statements, rows become answers.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use lock_core::{
    AcquireRequest, Acquired, Capabilities, ErrorKind, KeptBy, ListRequest, Listener, LockName, LockProvider,
    LockStatus, Operation, OwnerId, ReleaseRequest, Released, RenewRequest, Renewed, StoreError, Waiting, Wake,
    WakeHub, Watch, in_waves,
};
use sqlx::{
    Arguments, Encode, Postgres, Type,
    postgres::{PgArguments, PgRow},
};

use crate::{
    config::{Builder, Settings, Source},
    connections::{Connections, address},
    group::{MOST, together},
    operation::Runner,
    rows::{self, column},
    schema,
    statements::{Schema, Statements},
    sweep::Sweeper,
    wake::Announcements,
};

/// How many locks a page of a list has at most.
const LONGEST_PAGE: u32 = 1000;

/// The longest that a waiter's wish to be woken is remembered.
const LONGEST_MARK: Duration = Duration::from_secs(24 * 3600);

/// How long waking may take: what it is for has happened already, and its answer is waited for.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Locks in a PostgreSQL database. Clones share their connections.
#[derive(Clone)]
pub struct PostgresLocks {
    inner: Arc<Inner>,
}

struct Inner {
    runner: Arc<Runner>,
    statements: Statements,
    capabilities: Capabilities,
    grace: Duration,
    sweeper: Sweeper,
    releases: Listener<Announcements>,
    server: String,
}

impl PostgresLocks {
    /// Connects by URL, with the defaults of [`Builder`]: `postgres://user:password@host:port/database`.
    ///
    /// `?leasehold_schema=…` names the schema; see the [crate] for `sslmode`.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build().await
    }

    /// Sets a provider up, from the application's own pool or from a URL.
    ///
    /// Of the pool it takes the connect options alone and opens its own few connections: a renewal that
    /// queues behind the application's statements is a lock that gets lost.
    pub fn builder(source: impl Into<Source>) -> Builder {
        Builder::new(source.into())
    }

    /// The statements that create the schema, for the administrator of a database in which clients may not.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the name is empty, longer than 63 bytes or holds a NUL.
    pub fn ddl(schema: &str) -> Result<String, StoreError> {
        Schema::new(schema).map(|schema| schema::ddl(&schema))
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.inner.runner.schema
    }

    pub(crate) async fn start(settings: Settings) -> Result<Self, StoreError> {
        let Settings { session, schema, clock, connect_timeout, .. } = settings;
        let channel = schema.channel();
        let connections = Connections::new(session, settings.connections, connect_timeout, Arc::clone(&clock));
        let statements = Statements::new(&schema);
        let mut runner = Runner {
            connections,
            schema,
            may_create: settings.create_schema,
            timeout: settings.operation_timeout,
            clock: Arc::clone(&clock),
        };
        let durability = runner.prepare().await?;
        let runner = Arc::new(runner);
        let session = &runner.connections.session;
        let server = address(session.options());
        let options = session.options().clone();
        let announcements = Announcements { options, channel, connect_timeout, clock: Arc::clone(&clock) };
        let releases = Listener::new(WakeHub::default(), announcements, Arc::clone(&clock));

        let mut capabilities = Capabilities::new("postgres");
        capabilities.durability = durability;
        capabilities.grace = settings.grace;
        // Who listens is a session of the server's, which a pooler gives to somebody else.
        capabilities.wake = if session.is_pooled() { Wake::Poll(settings.poll_interval) } else { Wake::Event };
        capabilities.minimum_hold = KeptBy::Store;
        capabilities.ticks = true;
        capabilities.grouping = NonZeroUsize::new(MOST);
        Ok(Self {
            inner: Arc::new(Inner {
                sweeper: Sweeper::new(Arc::clone(&statements.sweep), settings.retention, clock.now()),
                runner,
                statements,
                capabilities,
                grace: settings.grace,
                releases,
                server,
            }),
        })
    }
}

impl Inner {
    async fn acquire_wave(&self, asked: &[&AcquireRequest]) -> Result<Vec<Result<Acquired, StoreError>>, StoreError> {
        let mut arguments = PgArguments::default();
        bind(&mut arguments, names(asked.iter().map(|request| &request.name)))?;
        bind(&mut arguments, asked.iter().map(|request| request.owner.to_string()).collect::<Vec<_>>())?;
        bind(&mut arguments, asked.iter().map(|request| rows::micros(request.ttl)).collect::<Vec<_>>())?;
        bind(&mut arguments, asked.iter().map(|request| waiting_micros(request.waiting)).collect::<Vec<_>>())?;
        bind(&mut arguments, asked.iter().map(|request| holder_json(request)).collect::<Result<Vec<_>, _>>()?)?;
        bind(&mut arguments, rows::micros(self.grace))?;
        bind(&mut arguments, ticks_json(asked)?)?;
        bind(
            &mut arguments,
            asked.iter().map(|request| request.used_by_grant().map(rows::tick_value)).collect::<Vec<_>>(),
        )?;
        if let Some(first) = asked.first() {
            self.sweeper.look(&self.runner, first.owner);
        }
        let done = self.runner.run(&self.statements.acquire, arguments).await?;
        let (mut found, mut touched) = (HashMap::new(), HashMap::new());
        for row in &done.rows {
            let rows = if column(row, "touched")? { &mut touched } else { &mut found };
            rows.insert(column::<&str>(row, "name")?, row);
        }
        // What an insert or update returned is newer than what was found before it.
        found.extend(touched);
        let answer = |request: &&AcquireRequest| {
            let row = found.get(request.name.as_str()).ok_or_else(|| rows::corrupt("the answer left a lock out"))?;
            request.after_doubt(rows::acquired(request, row)?, done.in_doubt)
        };
        Ok(asked.iter().map(answer).collect())
    }

    async fn renew_wave(&self, asked: &[&RenewRequest]) -> Result<Vec<Result<Renewed, StoreError>>, StoreError> {
        let mut arguments = PgArguments::default();
        bind(&mut arguments, names(asked.iter().map(|request| &request.name)))?;
        bind(&mut arguments, asked.iter().map(|request| request.owner.to_string()).collect::<Vec<_>>())?;
        bind(&mut arguments, asked.iter().map(|request| rows::token_value(request.token)).collect::<Vec<_>>())?;
        bind(&mut arguments, asked.iter().map(|request| rows::micros(request.ttl)).collect::<Vec<_>>())?;
        bind(&mut arguments, rows::micros(self.grace))?;
        let done = self.runner.run(&self.statements.renew, arguments).await?;
        let held = by_name(&done.rows)?;
        let answer = |request: &&RenewRequest| {
            Ok(if held.contains_key(request.name.as_str()) {
                Renewed::Held(rows::whole_micros(request.ttl))
            } else {
                Renewed::Lost
            })
        };
        Ok(asked.iter().map(answer).collect())
    }

    async fn release_wave(&self, asked: &[&ReleaseRequest]) -> Result<Vec<Result<Released, StoreError>>, StoreError> {
        // Undone by a crash, a lock that was to stay taken beyond its lease could be had too early, and work that is done
        // would be done again.
        let durable = asked.iter().any(|request| !request.keep_for.is_zero() || request.done.is_some());
        let tokens = asked.iter().map(|request| request.token.map(rows::token_value)).collect::<Vec<_>>();
        let mut arguments = PgArguments::default();
        bind(&mut arguments, names(asked.iter().map(|request| &request.name)))?;
        bind(&mut arguments, asked.iter().map(|request| request.owner.to_string()).collect::<Vec<_>>())?;
        bind(&mut arguments, tokens)?;
        bind(&mut arguments, asked.iter().map(|request| rows::micros(request.keep_for)).collect::<Vec<_>>())?;
        bind(&mut arguments, durable)?;
        bind(&mut arguments, asked.iter().map(|request| request.done.map(rows::tick_value)).collect::<Vec<_>>())?;
        let done = self.runner.run(&self.statements.release, arguments).await?;
        let released = by_name(&done.rows)?;
        let mut wanted = HashSet::new();
        for (name, row) in &released {
            if column(row, "wanted")? {
                wanted.insert((*name).to_owned());
            }
        }
        if done.in_doubt {
            // An earlier attempt may have released them, and only its lost answer said who waits.
            wanted.extend(asked.iter().map(|request| request.name.as_str().to_owned()));
        }
        self.notify(wanted).await;
        let answer = |request: &&ReleaseRequest| {
            match (released.contains_key(request.name.as_str()), done.in_doubt) {
                (true, _) => Ok(Released::Released),
                (false, false) => Ok(Released::NotHeld),
                // What an attempt finds whose predecessor did it, too.
                (false, true) => {
                    let message = "the connection broke; it isn't yours any more, by this release or since before";
                    Err(StoreError::unknown(ErrorKind::Unreachable, message))
                }
            }
        };
        Ok(asked.iter().map(answer).collect())
    }

    /// Wakes who waits for these locks; before the release is answered, since a process may end right after it.
    ///
    /// It fails in silence: the release is done, and who isn't woken asks again at the end of the lease.
    async fn notify(&self, wanted: HashSet<String>) {
        if wanted.is_empty() {
            return;
        }
        let mut arguments = PgArguments::default();
        let bound = bind(&mut arguments, &self.releases.source().channel)
            .and_then(|()| bind(&mut arguments, wanted.into_iter().collect::<Vec<_>>()));
        let sent = async {
            bound?;
            self.runner.run(&self.statements.notify, arguments).await
        };
        let give_up = self.runner.clock.now() + NOTIFY_TIMEOUT;
        tokio::select! {
            done = sent => if let Err(error) = done {
                tracing::debug!(%error, "waiters were not woken");
            },
            () = self.runner.clock.sleep_until(give_up) => tracing::debug!("waking waiters takes long; going on"),
        }
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let mut arguments = PgArguments::default();
        bind(&mut arguments, name.as_str())?;
        let found = self.runner.read(&self.statements.inspect, arguments).await?;
        found.first().map(rows::status).transpose()
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        if request.prefix.contains('\0') {
            return Ok(Vec::new());
        }
        let mut arguments = PgArguments::default();
        bind(&mut arguments, request.prefix.as_str())?;
        bind(&mut arguments, request.after.as_ref().map_or("", LockName::as_str))?;
        bind(&mut arguments, i64::from(request.limit.clamp(1, LONGEST_PAGE)))?;
        let found = self.runner.read(&self.statements.list, arguments).await?;
        found.iter().map(rows::status).collect()
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let mut arguments = PgArguments::default();
        bind(&mut arguments, name.as_str())?;
        let done = self.runner.run(&self.statements.force_release, arguments).await?;
        let (mut held, mut wanted) = (false, done.in_doubt);
        if let Some(row) = done.rows.first() {
            held = column(row, "held")?;
            wanted |= column::<bool>(row, "wanted")?;
        }
        if wanted {
            self.notify(HashSet::from([name.as_str().to_owned()])).await;
        }
        Ok(held)
    }
}

#[async_trait]
impl LockProvider for PostgresLocks {
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
                let message = format!("behind a pooler nothing wakes a waiter; ask every {every:?}");
                Err(StoreError::refused(ErrorKind::Unsupported, message))
            }
            _ => self.inner.releases.watch(name).await,
        };
        watch.map_err(|error| error.at("postgres", Operation::Watch, Some(name)))
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        self.inner.inspect(name).await.map_err(|error| error.at("postgres", Operation::Inspect, Some(name)))
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.inner.list(request).await.map_err(|error| error.at("postgres", Operation::List, None))
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let done = self.inner.force_release(name).await;
        done.map_err(|error| error.at("postgres", Operation::ForceRelease, Some(name)))
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        let send = |wave: Vec<_>| async move { self.inner.acquire_wave(&wave).await };
        in_waves(requests, self.capabilities(), |wave| together(wave, send)).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        let send = |wave: Vec<_>| async move { self.inner.renew_wave(&wave).await };
        in_waves(requests, self.capabilities(), |wave| together(wave, send)).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        let send = |wave: Vec<_>| async move { self.inner.release_wave(&wave).await };
        in_waves(requests, self.capabilities(), |wave| together(wave, send)).await
    }
}

impl fmt::Debug for PostgresLocks {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLocks")
            .field("server", &self.inner.server)
            .field("schema", &self.inner.runner.schema.as_str())
            .finish_non_exhaustive()
    }
}

fn bind<'q, T: Encode<'q, Postgres> + Type<Postgres>>(arguments: &mut PgArguments, value: T) -> Result<(), StoreError> {
    arguments.add(value).map_err(|error| {
        StoreError::refused(ErrorKind::Other, "a value can't be written in the server's form").caused_by(error)
    })
}

fn names<'a>(names: impl Iterator<Item = &'a LockName>) -> Vec<&'a str> {
    names.map(LockName::as_str).collect()
}

fn holder_json(request: &AcquireRequest) -> Result<String, StoreError> {
    // Bounded also because jsonb can't hold a NUL.
    serde_json::to_string(&request.holder.clone().bounded())
        .map_err(|error| StoreError::refused(ErrorKind::Other, "the holder can't be written").caused_by(error))
}

/// The ticks that are asked for, by the locks' names; `None` if there are none.
fn ticks_json(asked: &[&AcquireRequest]) -> Result<Option<String>, StoreError> {
    let with = |request: &&AcquireRequest| Some((request.name.as_str().to_owned(), request.tick?.0.into()));
    let ticks: serde_json::Map<_, _> = asked.iter().filter_map(with).collect();
    if ticks.is_empty() {
        return Ok(None);
    }
    let json = serde_json::to_string(&ticks);
    json.map(Some).map_err(|error| StoreError::refused(ErrorKind::Other, "ticks can't be written").caused_by(error))
}

fn waiting_micros(waiting: Waiting) -> i64 {
    match waiting {
        Waiting::Wake(span) => rows::micros(span.min(LONGEST_MARK)),
        // The check of the request has refused those who want to queue.
        _ => 0,
    }
}

fn by_name(rows: &[PgRow]) -> Result<HashMap<&str, &PgRow>, StoreError> {
    rows.iter().map(|row| Ok((column(row, "name")?, row))).collect()
}

fn only<A>(answers: Vec<Result<A, StoreError>>) -> Result<A, StoreError> {
    answers.into_iter().next().unwrap_or_else(|| Err(rows::corrupt("there was no answer")))
}
