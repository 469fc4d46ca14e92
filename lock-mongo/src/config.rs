//! How a provider is set up.

use std::{fmt, sync::Arc, time::Duration};

use lock_core::{Clock, ErrorKind, Operation, StoreError, SystemClock};
use mongodb::{Client, Database};

use crate::{
    provider::{MongoLocks, STORE},
    url::{Address, without_ours},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The database and the collection where nobody names one.
pub(crate) const DATABASE: &str = "leasehold";
pub(crate) const COLLECTION: &str = "leasehold_locks";

/// Where the connections come from: the application's client or database, or a URL.
pub struct Source(Result<Given, StoreError>);

/// Not `Debug`: a URL holds the password.
pub(crate) enum Given {
    Url(Address),
    Client(Client),
    Database(Database),
}

impl From<Client> for Source {
    fn from(client: Client) -> Self {
        Self(Ok(Given::Client(client)))
    }
}

impl From<&Client> for Source {
    fn from(client: &Client) -> Self {
        Self::from(client.clone())
    }
}

impl From<Database> for Source {
    fn from(database: Database) -> Self {
        Self(Ok(Given::Database(database)))
    }
}

impl From<&Database> for Source {
    fn from(database: &Database) -> Self {
        Self::from(database.clone())
    }
}

impl From<&str> for Source {
    fn from(url: &str) -> Self {
        Self(without_ours(url).map(Given::Url))
    }
}

impl From<String> for Source {
    fn from(url: String) -> Self {
        Self::from(url.as_str())
    }
}

impl fmt::Debug for Source {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(given) => f.debug_tuple("Source").field(&given.server()).finish(),
            Err(error) => f.debug_tuple("Source").field(error).finish(),
        }
    }
}

impl Given {
    /// Where the servers are, for people; without user and password.
    fn server(&self) -> String {
        match self {
            Self::Url(address) => address.hosts.clone(),
            Self::Client(_) | Self::Database(_) => "the application's client".to_owned(),
        }
    }
}

/// Builds a [`MongoLocks`]. Made by [`MongoLocks::builder`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    source: Source,
    database: Option<String>,
    collection: Option<String>,
    clock: Arc<dyn Clock>,
    grace: Duration,
    retention: Duration,
    operation_timeout: Duration,
    connect_timeout: Duration,
    connections: u32,
    create_index: bool,
    poll_interval: Duration,
}

/// What is to be done about the index that sweeps idle records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    /// It is created where it is missing.
    Create,
    /// It must be there.
    Need,
    /// Nothing is ever swept here.
    No,
}

/// What a [`Builder`] came to.
pub(crate) struct Settings {
    pub(crate) given: Given,
    pub(crate) server: String,
    pub(crate) database: Option<String>,
    pub(crate) collection: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) grace: Duration,
    pub(crate) retention: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) connections: u32,
    pub(crate) index: Index,
    pub(crate) poll_interval: Duration,
}

impl Builder {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            database: None,
            collection: None,
            clock: Arc::new(SystemClock),
            grace: Duration::from_millis(500),
            retention: 7 * DAY,
            operation_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            connections: 4,
            create_index: true,
            poll_interval: Duration::from_millis(500),
        }
    }

    /// The database of the collection. Default: the URL's, the client's default database, or `leasehold`.
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = Some(name.into());
        self
    }

    /// The collection of the records. Default: the URL's `leasehold_collection`, or `leasehold_locks`. Programs that are
    /// to exclude each other use the same.
    pub fn collection(mut self, name: impl Into<String>) -> Self {
        self.collection = Some(name.into());
        self
    }

    /// The clock for time-outs and pauses. It never decides about a lease: the server's does.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long after a lease's expiry others still wait: it covers steps of the server's wall clock, and the
    /// difference of two servers' clocks at a fail-over. Default 500 ms, at most an hour; in whole milliseconds.
    ///
    /// Each lease has the grace of its own holder.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long the record of an idle lock is kept, and its last tick with it, counted from the end of its lease. Default 7
    /// days, at least 24 hours.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// How long each command of an operation may take. Default 5 s, from 100 ms to an hour.
    ///
    /// Most operations are one command. A waiter's acquire looks with a `find` first, and requests in a group, or after a
    /// broken connection, may need a look and one more attempt alone: then an operation takes up to a few times as long.
    /// The server is told too, so that it gives up a command that nobody waits for any more; a group after a quarter of
    /// the time, to leave the rest for sending its requests alone.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long finding a server and connecting to it may take. Default 3 s, from 10 ms to an hour.
    ///
    /// [`build`](Self::build) takes a quarter more in all. For an application's own client its options count as well.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How many commands may be under way at once, each on a connection; one more is open for wake-ups while somebody
    /// waits. Default 4, 1 to 100.
    pub fn connections(mut self, most: u32) -> Self {
        self.connections = most;
        self
    }

    /// Whether the index that sweeps idle records is created where it is missing. Default `true`.
    pub fn create_index(mut self, create: bool) -> Self {
        self.create_index = create;
        self
    }

    /// How often a waiter asks for its lock *on a standalone server*, where nothing wakes it: after half to the whole of
    /// this. Default 500 ms, from 10 ms to a minute.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Connects, checks that the servers can keep locks and that a majority of them answers, and creates the index if
    /// need be.
    ///
    /// Cancel safe: at most the index was created.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] before anything is sent; [`ErrorKind::Unreachable`] or [`ErrorKind::Denied`] from
    /// the attempt to connect; [`ErrorKind::NotReady`] if the servers or the collection can't be used, with what to do.
    pub async fn build(self) -> Result<MongoLocks, StoreError> {
        let at_connect = |error: StoreError| error.at(STORE, Operation::Connect, None);
        MongoLocks::start(self.settings().map_err(at_connect)?).await.map_err(at_connect)
    }

    pub(crate) fn settings(self) -> Result<Settings, StoreError> {
        let given = self.source.0?;
        let hour = Duration::from_secs(3600);
        within("the grace", self.grace, Duration::ZERO, hour)?;
        within("the retention", self.retention, DAY, 36_500 * DAY)?;
        within("the operation timeout", self.operation_timeout, Duration::from_millis(100), hour)?;
        within("the connect timeout", self.connect_timeout, Duration::from_millis(10), hour)?;
        within("the poll interval", self.poll_interval, Duration::from_millis(10), Duration::from_secs(60))?;
        if !(1..=100).contains(&self.connections) {
            return Err(invalid("the number of connections must be 1 to 100"));
        }
        let of_url = if let Given::Url(address) = &given { address.collection.clone() } else { None };
        let collection = self.collection.or(of_url).unwrap_or_else(|| COLLECTION.to_owned());
        if let Some(database) = &self.database {
            check_database(database)?;
        }
        check_collection(&collection)?;
        Ok(Settings {
            server: given.server(),
            given,
            database: self.database,
            collection,
            clock: self.clock,
            grace: self.grace,
            retention: self.retention,
            operation_timeout: self.operation_timeout,
            connect_timeout: self.connect_timeout,
            connections: self.connections,
            index: if self.create_index { Index::Create } else { Index::Need },
            poll_interval: self.poll_interval,
        })
    }
}

/// By the server's rules (MongoDB manual, "Naming Restrictions"), the stricter ones of Windows included.
pub(crate) fn check_database(name: &str) -> Result<(), StoreError> {
    if name.is_empty()
        || name.len() > 63
        || name.contains(['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?', '\0'])
    {
        return Err(invalid("a database's name has 1 to 63 bytes, without spaces and none of / \\ . \" $ * < > : | ?"));
    }
    Ok(())
}

pub(crate) fn check_collection(name: &str) -> Result<(), StoreError> {
    // With the database's name and a dot before it, the server takes 255 bytes.
    if name.is_empty() || name.len() > 190 || name.contains(['$', '\0']) || name.starts_with("system.") {
        return Err(invalid("a collection's name has 1 to 190 bytes, no $ in it, and doesn't begin with system."));
    }
    Ok(())
}

fn within(what: &str, value: Duration, least: Duration, most: Duration) -> Result<(), StoreError> {
    if value < least || value > most {
        return Err(invalid(format!("{what} must be {least:?} to {most:?}, not {value:?}")));
    }
    Ok(())
}

pub(crate) fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::refused(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_refused() {
        let ok = || Builder::new(Source::from("mongodb://u:s3cret@localhost/x"));
        assert!(ok().settings().is_ok());
        for bad in [
            Builder::new(Source::from("mysql://u:s3cret@localhost/x")),
            Builder::new(Source::from("s3cret")),
            Builder::new(Source::from("mongodb://u:s3cret@localhost/x?leasehold_colection=y")),
            Builder::new(Source::from("mongodb://u:s3cret@localhost/x?leasehold_collection=")),
            ok().database("a b"),
            ok().database(""),
            ok().collection("system.locks"),
            ok().collection("a$b"),
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
        let builder = Builder::new(Source::from("mongodb://user:s3cret@db.example:6000,b.example/x?tls=true"));
        assert!(!format!("{builder:?}").contains("s3cret"));
        assert!(format!("{builder:?}").contains("db.example:6000,b.example"), "{builder:?}");
    }
}
