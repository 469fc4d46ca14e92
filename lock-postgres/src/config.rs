//! How a provider is set up.

use std::{borrow::Cow, fmt, net::IpAddr, path::Path, str::FromStr, sync::Arc, time::Duration};

use lock_core::{Clock, ErrorKind, Operation, StoreError, SystemClock};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgSslMode},
};
use url::Url;

use crate::{connections::address, provider::PostgresLocks, session::Session, statements::Schema};

/// The parameter of a URL that names the schema.
const SCHEMA_PARAMETER: &str = "leasehold_schema";

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where the connect options come from: an application's pool or a URL.
pub struct Source(Result<Given, StoreError>);

pub(crate) struct Given {
    pub(crate) options: PgConnectOptions,
    pub(crate) schema: Option<String>,
}

impl From<PgPool> for Source {
    fn from(pool: PgPool) -> Self {
        Self::from(&pool)
    }
}

impl From<&PgPool> for Source {
    fn from(pool: &PgPool) -> Self {
        Self::from(PgConnectOptions::clone(&pool.connect_options()))
    }
}

impl From<PgConnectOptions> for Source {
    fn from(options: PgConnectOptions) -> Self {
        Self(Ok(Given { options, schema: None }))
    }
}

impl From<&str> for Source {
    fn from(url: &str) -> Self {
        Self(parse(url))
    }
}

impl From<String> for Source {
    fn from(url: String) -> Self {
        Self(parse(&url))
    }
}

impl fmt::Debug for Source {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(given) => f.debug_tuple("Source").field(&address(&given.options)).finish(),
            Err(error) => f.debug_tuple("Source").field(error).finish(),
        }
    }
}

/// Builds a [`PostgresLocks`]. Made by [`PostgresLocks::builder`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    source: Source,
    schema: Option<String>,
    clock: Arc<dyn Clock>,
    grace: Duration,
    retention: Duration,
    operation_timeout: Duration,
    connect_timeout: Duration,
    connections: usize,
    create_schema: bool,
    poll_interval: Duration,
}

/// What a [`Builder`] came to. Not `Debug`: the options hold the password.
pub(crate) struct Settings {
    pub(crate) session: Session,
    pub(crate) schema: Schema,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) grace: Duration,
    pub(crate) retention: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) create_schema: bool,
    pub(crate) poll_interval: Duration,
}

impl Builder {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            schema: None,
            clock: Arc::new(SystemClock),
            grace: Duration::from_millis(500),
            retention: 7 * DAY,
            operation_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            connections: 4,
            create_schema: true,
            poll_interval: Duration::from_millis(500),
        }
    }

    /// The schema of the table `locks`: 1 to 63 bytes, any characters. Default: the URL's `leasehold_schema`, or
    /// `leasehold`. Programs that are to exclude each other use the same.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = Some(name.into());
        self
    }

    /// The clock for time-outs and pauses. It never decides about a lease: the server's does.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long after a lease's expiry others still wait: it covers steps of the server's wall clock, and the
    /// difference of two servers' clocks at a fail-over. Default 500 ms, at most an hour.
    ///
    /// Each lease has the grace of its own holder.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long the row of an idle lock is kept, counted from the end of its lease. Default 7 days, at least 24 hours.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// How long an operation may take in all. Default 5 s, from 100 ms to an hour.
    ///
    /// The server is told too, so that it gives up a statement that nobody waits for any more.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long making a connection may take. Default 3 s, from 10 ms to an hour.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How many connections may be open for operations; one more listens while somebody waits. Default 4, 1 to 100.
    pub fn connections(mut self, most: usize) -> Self {
        self.connections = most;
        self
    }

    /// Whether a missing schema is created, at the start and when somebody dropped it later. Default `true`.
    pub fn create_schema(mut self, create: bool) -> Self {
        self.create_schema = create;
        self
    }

    /// How often a waiter asks for its lock *behind a pooler*, where nothing wakes it: after half to the whole of this.
    /// Default 500 ms, from 10 ms to a minute.
    ///
    /// By the default a waiter costs 2.7 short transactions a second and finds a released lock after 0.2 s on average.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Connects, checks the server and the schema, and creates the schema if need be.
    ///
    /// Cancel safe: at most the schema was created.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] before anything is sent; [`ErrorKind::Unreachable`] or [`ErrorKind::Denied`] from
    /// the attempt to connect; [`ErrorKind::NotReady`] if the server or the schema can't be used, with what to do.
    pub async fn build(self) -> Result<PostgresLocks, StoreError> {
        let at_connect = |error: StoreError| error.at("postgres", Operation::Connect, None);
        PostgresLocks::start(self.settings().map_err(at_connect)?).await.map_err(at_connect)
    }

    fn settings(self) -> Result<Settings, StoreError> {
        let Given { options, schema } = self.source.0?;
        let hour = Duration::from_secs(3600);
        within("the grace", self.grace, Duration::ZERO, hour)?;
        within("the retention", self.retention, DAY, 36_500 * DAY)?;
        within("the operation timeout", self.operation_timeout, Duration::from_millis(100), hour)?;
        within("the connect timeout", self.connect_timeout, Duration::from_millis(10), hour)?;
        within("the poll interval", self.poll_interval, Duration::from_millis(10), Duration::from_secs(60))?;
        if !(1..=100).contains(&self.connections) {
            return Err(invalid("the number of connections must be 1 to 100"));
        }
        Ok(Settings {
            session: Session::new(options, self.operation_timeout),
            schema: self.schema.or(schema).as_deref().map_or_else(|| Ok(Schema::usual()), Schema::new)?,
            clock: self.clock,
            grace: self.grace,
            retention: self.retention,
            operation_timeout: self.operation_timeout,
            connect_timeout: self.connect_timeout,
            connections: self.connections,
            create_schema: self.create_schema,
            poll_interval: self.poll_interval,
        })
    }
}

pub(crate) fn parse(url: &str) -> Result<Given, StoreError> {
    // The parser's own errors don't quote the URL, which may hold a password; nor may ours.
    let mut url = Url::parse(url).map_err(|error| invalid(format!("the URL can't be understood: {error}")))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(invalid("the URL of a PostgreSQL server begins with postgres://"));
    }
    let (ours, theirs): (Vec<_>, Vec<_>) =
        url.query_pairs().into_owned().partition(|(key, _)| key.as_str() == SCHEMA_PARAMETER);
    if !ours.is_empty() {
        url.set_query(None);
        if !theirs.is_empty() {
            url.query_pairs_mut().extend_pairs(&theirs);
        }
    }
    let options = PgConnectOptions::from_str(url.as_str()).map_err(|error| {
        let reason: Cow<'_, str> = match &error {
            // What it quotes is from the URL, and may be half of a password with an unescaped character.
            sqlx::Error::Configuration(cause) => without_quotations(&cause.to_string()).into(),
            _ => "a parameter is wrong".into(),
        };
        invalid(format!("the URL can't be understood: {reason}"))
    })?;
    let said_how = theirs.iter().any(|(key, _)| matches!(key.as_str(), "sslmode" | "ssl-mode"))
        || std::env::var_os("PGSSLMODE").is_some();
    let options = if said_how || is_local(&options) { options } else { options.ssl_mode(PgSslMode::VerifyFull) };
    Ok(Given { options, schema: ours.into_iter().next_back().map(|(_, name)| name) })
}

/// The text with what stands in quotes left out.
fn without_quotations(text: &str) -> String {
    let pieces = text.split(['"', '`']).enumerate().map(|(at, piece)| if at % 2 == 0 { piece } else { "…" });
    pieces.collect()
}

/// Whether the way to the server stays on this host.
fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host().trim_matches(['[', ']']);
    options.get_socket().is_some()
        || Path::new(host).is_absolute()
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn within(what: &str, value: Duration, least: Duration, most: Duration) -> Result<(), StoreError> {
    if value < least || value > most {
        return Err(invalid(format!("{what} must be {least:?} to {most:?}, not {value:?}")));
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::refused(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_elsewhere_must_prove_who_it_is() {
        for (url, verified) in [
            ("postgres://u:p@localhost/x", false),
            ("postgres://u:p@127.0.0.9/x", false),
            ("postgres://u:p@[::1]/x", false),
            ("postgres://u:p@%2Frun%2Fpostgresql/x", false),
            ("postgres://u:p@db.example/x?host=/run/postgresql", false),
            ("postgres://u:p@db.example/x", true),
            ("postgres://u:p@db.example/x?application_name=y", true),
            ("postgres://u:p@10.0.0.1/x", true),
            ("postgres://u:p@db.example/x?sslmode=prefer", false),
            ("postgres://u:p@localhost.example/x", true),
        ] {
            let mode = parse(url).unwrap().options.get_ssl_mode();
            assert_eq!(matches!(mode, PgSslMode::VerifyFull), verified, "{url}");
        }
    }

    #[test]
    fn our_parameter_is_ours_alone() {
        let given = parse("postgresql://u@h/x?leasehold_schema=a%20b&application_name=c%26d").unwrap();
        assert_eq!(given.schema.as_deref(), Some("a b"));
        assert_eq!(given.options.get_application_name(), Some("c&d"));
        assert_eq!(parse("postgres://u@h/x").unwrap().schema, None);
    }

    #[test]
    fn bad_settings_are_refused() {
        let ok = || Builder::new(Source::from("postgres://u:s3cret@localhost/x"));
        assert!(ok().settings().is_ok());
        for bad in [
            Builder::new(Source::from("mysql://u:s3cret@localhost/x")),
            Builder::new(Source::from("postgres://u:s3cret@localhost:99999/x")),
            Builder::new(Source::from("postgres://u:s3cret@localhost/x?sslmode=s3cret-mode")),
            Builder::new(Source::from("s3cret")),
            ok().schema(""),
            ok().grace(Duration::from_secs(3601)),
            ok().retention(Duration::from_secs(23 * 3600)),
            ok().operation_timeout(Duration::ZERO),
            ok().connect_timeout(Duration::ZERO),
            ok().connections(0),
            ok().poll_interval(Duration::ZERO),
        ] {
            let shown = format!("{bad:?}");
            let error = bad.settings().err().expect(&shown);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
            assert!(!format!("{shown}{error}{error:?}").contains("s3cret"), "{shown} {error}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        let builder = Builder::new(Source::from("postgres://user:s3cret@db.example/x"));
        assert!(!format!("{builder:?}").contains("s3cret"));
        assert!(format!("{builder:?}").contains("db.example:5432"));
    }
}
