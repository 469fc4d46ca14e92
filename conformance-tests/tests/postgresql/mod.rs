//! What the suite has to know of PostgreSQL, whichever way clients come to it: a database of the run's own on the
//! testbed's server.

use std::{io, marker::PhantomData, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use conformance_tests::{Failure, Faults, Faulty, Harness, Hook, Lacking, Missing, Proxy, Restartable, SkewedClock};
use lock_core::{Clock, Entropy, LockName, LockProvider, OsEntropy, SystemClock};
use lock_postgres::Builder;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testbed::{PrivateServer, Server};

/// How clients come to the server.
pub(crate) trait Way: Send + Sync + 'static {
    /// A server that nobody else uses, and what stands before it.
    type Own: Send + Sync + 'static;

    const STORE: &'static str;

    /// The variables that point at servers which aren't the testbed's.
    const GIVEN: &'static [&'static str];

    fn servers() -> Result<Servers, testbed::Missing>;

    fn own() -> Result<Self::Own, testbed::Missing>;

    fn own_server(own: &Self::Own) -> &PrivateServer;

    /// Where clients connect.
    fn own_url(own: &Self::Own) -> &str;

    fn builder(url: &str) -> Builder;

    /// The faults of this way, and where a client meets them: at the proxy or before it.
    fn faults(proxy: Proxy) -> io::Result<(SocketAddr, Arc<dyn Faults>)>;
}

/// The server, and where clients come in.
pub(crate) struct Servers {
    pub(crate) server: Server,
    /// `host:port`
    pub(crate) entrance: String,
}

/// A database of the run's own. What is counted, cut and dropped there is nobody else's.
pub(crate) struct Database<W> {
    servers: Servers,
    name: String,
    counts_statements: bool,
    way: PhantomData<W>,
}

impl<W: Way> Database<W> {
    /// The URL of the run's database at this `host:port`: the server, what stands before it, or a proxy.
    fn url(&self, address: &str) -> String {
        let server = self.servers.server.url();
        let (base, options) = server.split_once('?').unwrap_or((server, ""));
        let (scheme, rest) = base.split_once("://").unwrap_or(("postgres", base));
        let login = rest.split('/').next().unwrap_or_default().rsplit_once('@').map_or("", |(login, _)| login);
        format!("{scheme}://{login}@{address}/{}?{options}", self.name)
    }

    fn for_clients(&self) -> String {
        self.url(&self.servers.entrance)
    }

    /// In the run's database, whatever clients go through.
    async fn operator(&self) -> Result<PgConnection, Failure> {
        Ok(PgConnection::connect(&self.url(self.servers.server.host_port())).await?)
    }

    async fn administrator(&self) -> Result<PgConnection, Failure> {
        Ok(PgConnection::connect(self.servers.server.url()).await?)
    }

    async fn create(servers: Servers) -> Result<Self, Failure> {
        let mut administrator = PgConnection::connect(servers.server.url()).await?;
        let now = SystemClock.wall_micros() / 1_000_000;
        let left_behind: Vec<String> = sqlx::query_scalar(include_str!("../sql/left_behind.sql"))
            .bind(i64::try_from(now)? - 3600)
            .fetch_all(&mut administrator)
            .await?;
        for database in left_behind {
            // Another run may be dropping it as well.
            let _ = drop_database(&mut administrator, &database).await;
        }
        let name = format!("leasehold_conformance_{now}_{:016x}", OsEntropy.next_u64());
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut administrator).await?;
        let counts_statements = sqlx::query_scalar("SELECT to_regclass('pg_stat_statements') IS NOT NULL")
            .fetch_one(&mut administrator)
            .await?;
        Ok(Self { servers, name, counts_statements, way: PhantomData })
    }
}

async fn drop_database(administrator: &mut PgConnection, database: &str) -> Result<(), Failure> {
    // The name is one of ours: letters, digits and underscores.
    let statement = AssertSqlSafe(format!("DROP DATABASE {database} WITH (FORCE)"));
    sqlx::query(statement).execute(administrator).await?;
    Ok(())
}

#[async_trait]
impl<W: Way> Harness for Database<W> {
    async fn open() -> Result<Self, Missing> {
        let found = tokio::task::spawn_blocking(W::servers).await;
        let servers = found
            .map_err(|error| Missing(error.to_string()))?
            .map_err(|missing| Missing(format!("no {} to test: {missing}", W::STORE)))?;
        Self::create(servers).await.map_err(|failure| {
            Missing(format!("no database for the run could be made on the PostgreSQL server: {failure}"))
        })
    }

    fn store(&self) -> &'static str {
        W::STORE
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(W::builder(&self.for_clients()).build().await?))
    }

    async fn close(&self) {
        let dropped = async { drop_database(&mut self.administrator().await?, &self.name).await };
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
            let done = sqlx::query("DELETE FROM leasehold.locks WHERE name = $1")
                .bind(name.as_str())
                .execute(&mut self.operator().await?)
                .await?;
            match done.rows_affected() {
                1 => Ok(()),
                rows => Err(Failure::new(format!("{rows} records of {name:?} were there to be deleted"))),
            }
        }))
    }

    fn wipe(&self) -> Hook<'_> {
        Ok(Box::pin(async move {
            sqlx::query("DROP SCHEMA leasehold CASCADE").execute(&mut self.operator().await?).await?;
            Ok(())
        }))
    }

    fn restartable(&self) -> Hook<'_, Arc<dyn Restartable>> {
        let given = |variable: &&&str| std::env::var_os(variable).is_some_and(|url| !url.is_empty());
        if let Some(given) = W::GIVEN.iter().find(given) {
            return Err(Lacking::new(format!("{given} points at a server that can't be restarted")));
        }
        Ok(Box::pin(async move {
            let server = tokio::task::spawn_blocking(W::own).await??;
            let own: Arc<dyn Restartable> = Arc::new(OwnServer::<W>(Arc::new(server)));
            Ok(own)
        }))
    }

    fn faulty(&self) -> Hook<'_, Faulty> {
        Ok(Box::pin(async move {
            let (address, faults) = W::faults(Proxy::start(&*self.servers.entrance).await?)?;
            // The proxy looks for names in what is sent, which TLS would hide.
            let url = format!("{}&sslmode=disable", self.url(&address.to_string()));
            let provider = Arc::new(W::builder(&url).build().await?);
            Ok(Faulty { provider, faults })
        }))
    }

    fn commands(&self) -> Hook<'_, u64> {
        if !self.counts_statements {
            return Err(Lacking::new("the server lacks pg_stat_statements"));
        }
        Ok(Box::pin(async move {
            let seen: i64 = sqlx::query_scalar(include_str!("../sql/statements_seen.sql"))
                .bind(&self.name)
                .fetch_one(&mut self.administrator().await?)
                .await?;
            Ok(u64::try_from(seen)?)
        }))
    }

    fn cut_subscriptions(&self) -> Hook<'_> {
        Ok(Box::pin(async move {
            let cut: i64 = sqlx::query_scalar(include_str!("../sql/cut_listeners.sql"))
                .bind(&self.name)
                .fetch_one(&mut self.administrator().await?)
                .await?;
            if cut == 0 {
                return Err(Failure::new("nobody listened, so nothing was cut"));
            }
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
struct OwnServer<W: Way>(Arc<W::Own>);

#[async_trait]
impl<W: Way> Restartable for OwnServer<W> {
    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(W::builder(W::own_url(&self.0)).build().await?))
    }

    async fn restart(&self) -> Result<(), Failure> {
        let own = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let server = W::own_server(&own);
            server.kill()?;
            server.start()?;
            server.await_ready(std::time::Duration::from_secs(45))
        })
        .await??;
        Ok(())
    }
}
