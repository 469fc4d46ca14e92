//! How a provider is set up.

use std::{sync::Arc, time::Duration};

use lock_core::{Clock, ErrorKind, Operation, StoreError, SystemClock};
use redis::{Client, ConnectionInfo};

use crate::{
    keys::Keys,
    provider::{RedisLocks, STORE},
    source::{Given, Source, Way},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Builds a [`RedisLocks`]. Made by [`RedisLocks::builder`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    source: Source,
    prefix: Option<String>,
    listen_with: Option<Listen>,
    clock: Arc<dyn Clock>,
    grace: Duration,
    retention: Duration,
    operation_timeout: Duration,
    connect_timeout: Duration,
    allow_eviction: bool,
    poll_interval: Duration,
}

/// Where to hear of released locks. Its `Debug` shows no password: the driver's doesn't.
#[derive(Debug)]
struct Listen(ConnectionInfo);

/// What a [`Builder`] came to. Not `Debug`: the way holds the password.
pub(crate) struct Settings {
    pub(crate) way: Way,
    pub(crate) listen_with: Option<ConnectionInfo>,
    pub(crate) keys: Keys,
    pub(crate) limits: Limits,
}

/// The times, and what is put up with.
pub(crate) struct Limits {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) grace: Duration,
    pub(crate) retention: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) allow_eviction: bool,
    pub(crate) poll_interval: Duration,
}

impl Builder {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            prefix: None,
            listen_with: None,
            clock: Arc::new(SystemClock),
            grace: Duration::from_millis(500),
            retention: 7 * DAY,
            operation_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            allow_eviction: false,
            poll_interval: Duration::from_millis(500),
        }
    }

    /// What all keys begin with: 1 to 128 bytes, without braces and control characters. Default: the URL's
    /// `leasehold_prefix`, or `leasehold:`. Programs that are to exclude each other use the same.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// The server at which waiters hear of released locks: one connection while somebody waits.
    ///
    /// Only needed with the application's own connection, which can't be listened on: without it waiters ask every
    /// [`poll_interval`](Self::poll_interval). In a cluster it may be any node. With a URL it isn't needed.
    pub fn listen_with(mut self, client: &Client) -> Self {
        self.listen_with = Some(Listen(client.get_connection_info().clone()));
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

    /// How long the record of an idle lock is kept, counted from the end of its lease. Default 7 days, at least 24 hours.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// How long an operation may take in all. Default 5 s, from 100 ms to an hour.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long making a connection may take. Default 3 s, from 10 ms to an hour.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Whether a server may be used that evicts locks when its memory is full. Default `false`.
    ///
    /// A lock that is evicted while it is held is handed out a second time: only for efficiency, never for correctness.
    pub fn allow_eviction(mut self, allow: bool) -> Self {
        self.allow_eviction = allow;
        self
    }

    /// How often a waiter asks for its lock *where nothing wakes it*, over the application's own connection: after half to
    /// the whole of this. Default 500 ms, from 10 ms to a minute.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Connects, and checks that the server can keep locks.
    ///
    /// Cancel safe: nothing stays behind at the server.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] before anything is sent; [`ErrorKind::Unreachable`] or [`ErrorKind::Denied`] from
    /// the attempt to connect; [`ErrorKind::NotReady`] if the server can't be used, with what to do.
    pub async fn build(self) -> Result<RedisLocks, StoreError> {
        let at_connect = |error: StoreError| error.at(STORE, Operation::Connect, None);
        RedisLocks::start(self.settings().map_err(at_connect)?).await.map_err(at_connect)
    }

    pub(crate) fn settings(self) -> Result<Settings, StoreError> {
        let Given { way, prefix } = self.source.0?;
        let hour = Duration::from_secs(3600);
        within("the grace", self.grace, Duration::ZERO, hour)?;
        within("the retention", self.retention, DAY, 36_500 * DAY)?;
        within("the operation timeout", self.operation_timeout, Duration::from_millis(100), hour)?;
        within("the connect timeout", self.connect_timeout, Duration::from_millis(10), hour)?;
        within("the poll interval", self.poll_interval, Duration::from_millis(10), Duration::from_secs(60))?;
        Ok(Settings {
            way,
            listen_with: self.listen_with.map(|Listen(info)| info),
            keys: Keys::new(self.prefix.or(prefix).as_deref().unwrap_or("leasehold:"))?,
            limits: Limits {
                clock: self.clock,
                grace: self.grace,
                retention: self.retention,
                operation_timeout: self.operation_timeout,
                connect_timeout: self.connect_timeout,
                allow_eviction: self.allow_eviction,
                poll_interval: self.poll_interval,
            },
        })
    }
}

fn within(what: &str, value: Duration, least: Duration, most: Duration) -> Result<(), StoreError> {
    if value < least || value > most {
        let message = format!("{what} must be {least:?} to {most:?}, not {value:?}");
        return Err(StoreError::refused(ErrorKind::InvalidConfig, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_refused() {
        let ok = || Builder::new(Source::from("redis://u:s3cret@localhost/1"));
        assert!(ok().settings().is_ok());
        for bad in [
            Builder::new(Source::from("mysql://u:s3cret@localhost")),
            ok().prefix(""),
            ok().prefix("a{b}"),
            ok().grace(Duration::from_secs(3601)),
            ok().retention(Duration::from_secs(23 * 3600)),
            ok().operation_timeout(Duration::ZERO),
            ok().connect_timeout(Duration::ZERO),
            ok().poll_interval(Duration::ZERO),
        ] {
            let shown = format!("{bad:?}");
            let error = bad.settings().err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{shown} {error} {error:?}").contains("s3cret"), "{shown} {error:?}");
        }
        let listening = ok().listen_with(&Client::open("redis://:s3cret@h").unwrap());
        assert!(!format!("{listening:?}").contains("s3cret"));
    }
}
