//! What the suite has to know of MongoDB, a replica set or a single server: a database of the run's own on the testbed's
//! servers.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::Lacking;
use conformance_tests::{Failure, Faulty, Harness, Hook, Missing, Proxy, Restartable, SkewedClock};
use lock_core::{Clock, Entropy, LockName, LockProvider, OsEntropy, SystemClock};
use lock_mongo::Builder;
use mongodb::{
    Client, Collection,
    bson::{Bson, Document, doc},
    options::ClientOptions,
};
use testbed::{MongoMembers, PrivateServer, Server};

const COLLECTION: &str = "leasehold_locks";
const PREFIX: &str = "leasehold_conformance_";

/// Which servers.
pub(crate) trait Way: Send + Sync + 'static {
    const STORE: &'static str;

    /// The variable that points at servers which aren't the testbed's.
    const GIVEN: &'static str;

    fn server() -> Result<Server, testbed::Missing>;

    fn own() -> Result<PrivateServer, testbed::Missing>;

    fn builder(url: &str) -> Builder;
}

/// A database of the run's own. What is counted, cut and dropped there is nobody else's.
pub(crate) struct Database<W> {
    server: Arc<Server>,
    name: String,
    way: PhantomData<W>,
}

/// The server's URL, with another database and other hosts if any are named.
fn url(server: &Server, hosts: Option<&str>, database: &str) -> String {
    let (base, options) = server.url().split_once('?').unwrap_or((server.url(), ""));
    let (scheme, rest) = base.split_once("://").unwrap_or(("mongodb", base));
    let authority = rest.split('/').next().unwrap_or_default();
    let (login, own_hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let options = options.split('&').filter(|option| hosts.is_none() || !option.starts_with("replicaSet="));
    let options = options.collect::<Vec<_>>().join("&");
    format!("{scheme}://{login}@{}/{database}?{options}", hosts.unwrap_or(own_hosts))
}

impl<W: Way> Database<W> {
    fn for_clients(&self) -> String {
        url(&self.server, None, &self.name)
    }

    async fn operator(&self) -> Result<Client, Failure> {
        operator(&self.server).await
    }

    async fn locks(&self) -> Result<Collection<Document>, Failure> {
        Ok(self.operator().await?.database(&self.name).collection(COLLECTION))
    }

    /// `host:port` of the member that clients write to.
    async fn primary(&self) -> Result<String, Failure> {
        let server = Arc::clone(&self.server);
        let found = tokio::task::spawn_blocking(move || match server.host_ports() {
            [only] => Some(only.clone()),
            members => MongoMembers::of(&server).primary().and_then(|member| members.get(member).cloned()),
        });
        found.await?.ok_or_else(|| Failure::new("the replica set has no primary"))
    }

    async fn create(server: Server) -> Result<Self, Failure> {
        let operator = operator(&server).await?;
        let now = SystemClock.wall_micros() / 1_000_000;
        for database in operator.list_database_names().await? {
            let made = database.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next()?.parse::<u64>().ok());
            if made.is_some_and(|made| made + 3600 < now) {
                // Another run may be dropping it as well.
                let _ = operator.database(&database).drop().await;
            }
        }
        let name = format!("{PREFIX}{now}_{:016x}", OsEntropy.next_u64());
        Ok(Self { server: Arc::new(server), name, way: PhantomData })
    }
}

async fn operator(server: &Server) -> Result<Client, Failure> {
    let mut options = ClientOptions::parse(server.url()).await?;
    options.server_selection_timeout = Some(Duration::from_secs(10));
    Ok(Client::with_options(options)?)
}

#[async_trait]
impl<W: Way> Harness for Database<W> {
    async fn open() -> Result<Self, Missing> {
        let found = tokio::task::spawn_blocking(W::server).await;
        let server = found
            .map_err(|error| Missing(error.to_string()))?
            .map_err(|missing| Missing(format!("no {} to test: {missing}", W::STORE)))?;
        let created = Self::create(server).await;
        created.map_err(|failure| Missing(format!("no database for the run on the MongoDB server: {failure}")))
    }

    fn store(&self) -> &'static str {
        W::STORE
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(W::builder(&self.for_clients()).build().await?))
    }

    async fn close(&self) {
        let dropped = async { Ok::<_, Failure>(self.operator().await?.database(&self.name).drop().await?) };
        if let Err(failure) = dropped.await {
            eprintln!("the database {} stays behind: {failure}", self.name);
        }
    }

    fn skewed_provider(&self, micros: i64) -> Hook<'_, Arc<dyn LockProvider>> {
        Ok(Box::pin(async move {
            let clock = Arc::new(SkewedClock::new(micros));
            let provider: Arc<dyn LockProvider> = Arc::new(W::builder(&self.for_clients()).clock(clock).build().await?);
            Ok(provider)
        }))
    }

    fn delete_record<'a>(&'a self, name: &'a LockName) -> Hook<'a> {
        Ok(Box::pin(async move {
            let done = self.locks().await?.delete_one(doc! { "_id": name.as_str() }).await?;
            match done.deleted_count {
                1 => Ok(()),
                records => Err(Failure::new(format!("{records} records of {name:?} were there to be deleted"))),
            }
        }))
    }

    fn wipe(&self) -> Hook<'_> {
        Ok(Box::pin(async move { Ok(self.operator().await?.database(&self.name).drop().await?) }))
    }

    fn restartable(&self) -> Hook<'_, Arc<dyn Restartable>> {
        if std::env::var_os(W::GIVEN).is_some_and(|url| !url.is_empty()) {
            return Err(Lacking::new(format!("{} points at a server that can't be restarted", W::GIVEN)));
        }
        Ok(Box::pin(async move {
            let server = tokio::task::spawn_blocking(W::own).await??;
            let own: Arc<dyn Restartable> = Arc::new(OwnServer::<W>(Arc::new(server), PhantomData));
            Ok(own)
        }))
    }

    fn faulty(&self) -> Hook<'_, Faulty> {
        Ok(Box::pin(async move {
            let proxy = Proxy::start(self.primary().await?).await?;
            // The members of a set tell clients their own addresses, which would lead around the proxy.
            let through = url(&self.server, Some(&proxy.address().to_string()), &self.name);
            let provider = Arc::new(W::builder(&format!("{through}&directConnection=true")).build().await?);
            Ok(Faulty { provider, faults: Arc::new(proxy) })
        }))
    }

    fn commands(&self) -> Hook<'_, u64> {
        Ok(Box::pin(async move {
            // Of this collection alone, when they end; a heartbeat is about none.
            let top = self.operator().await?.database("admin").run_command(doc! { "top": 1 }).await?;
            let of_locks = top.get_document("totals")?.get_document(format!("{}.{COLLECTION}", self.name));
            let Ok(counts) = of_locks else { return Ok(0) };
            let kinds = ["queries", "getmore", "insert", "update", "remove", "commands"];
            let count = |kind| match counts.get_document(kind).ok()?.get("count")? {
                Bson::Int32(count) => u64::try_from(*count).ok(),
                Bson::Int64(count) => u64::try_from(*count).ok(),
                _ => None,
            };
            Ok(kinds.into_iter().filter_map(count).sum())
        }))
    }

    fn cut_subscriptions(&self) -> Hook<'_> {
        Ok(Box::pin(async move {
            let operator = self.operator().await?;
            let namespace = format!("{}.{COLLECTION}", self.name);
            let streams = [
                doc! { "$currentOp": { "allUsers": true, "idleCursors": true } },
                doc! { "$match": { "ns": namespace, "cursor.tailable": true } },
            ];
            let mut found = operator.database("admin").aggregate(streams).await?;
            let mut cursors = Vec::new();
            while found.advance().await? {
                let operation = found.deserialize_current()?;
                cursors.push(operation.get_document("cursor")?.get_i64("cursorId")?);
            }
            if cursors.is_empty() {
                return Err(Failure::new("nobody listened, so nothing was cut"));
            }
            let kill = doc! { "killCursors": COLLECTION, "cursors": cursors };
            operator.database(&self.name).run_command(kill).await?;
            Ok(())
        }))
    }

    fn child_spec(&self) -> Result<String, Lacking> {
        Ok(self.for_clients())
    }

    async fn open_in_child(spec: &str) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(W::builder(spec).build().await?))
    }
}

/// A server that nobody else uses.
struct OwnServer<W>(Arc<PrivateServer>, PhantomData<W>);

#[async_trait]
impl<W: Way> Restartable for OwnServer<W> {
    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(W::builder(self.0.url()).build().await?))
    }

    async fn restart(&self) -> Result<(), Failure> {
        let server = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            server.kill()?;
            server.start()?;
            server.await_ready(Duration::from_secs(45))
        })
        .await??;
        Ok(())
    }
}
