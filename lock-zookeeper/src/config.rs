//! How a provider is set up.

use std::{fmt, sync::Arc, time::Duration};

use lock_core::{Clock, ErrorKind, Operation, StoreError, SystemClock};

use crate::{
    names::Paths,
    provider::{STORE, ZooKeeperLocks},
    url::{Address, checked_path},
};

/// Where the locks are kept if nobody says otherwise.
const BASE: &str = "/leasehold";

/// Where the servers are: a URL.
pub struct Source(Result<Address, StoreError>);

impl From<&str> for Source {
    fn from(url: &str) -> Self {
        Self(Address::read(url))
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
            Ok(address) => f.debug_tuple("Source").field(&address.hosts).finish(),
            Err(error) => f.debug_tuple("Source").field(error).finish(),
        }
    }
}

/// Builds a [`ZooKeeperLocks`]. Made by [`ZooKeeperLocks::builder`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    source: Source,
    path: Option<String>,
    open_acl: Option<bool>,
    tick: Option<Duration>,
    clock: Arc<dyn Clock>,
    operation_timeout: Duration,
    connect_timeout: Duration,
}

/// What a [`Builder`] came to.
pub(crate) struct Settings {
    pub(crate) address: Address,
    pub(crate) paths: Paths,
    pub(crate) open_acl: bool,
    pub(crate) tick: Option<Duration>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) operation_timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

impl Builder {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            path: None,
            open_acl: None,
            tick: None,
            clock: Arc::new(SystemClock),
            operation_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
        }
    }

    /// The node under which everything is kept, below the URL's chroot; it is created if need be. Default: the URL's
    /// `leasehold_path`, or `/leasehold`. Programs that are to exclude each other use the same.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Whether everybody may do everything with the nodes that are made, or their maker alone. Default: everybody without
    /// user and password, their maker with them.
    pub fn open_acl(mut self, open: bool) -> Self {
        self.open_acl = Some(open);
        self
    }

    /// The servers' `tickTime`. Default: the URL's `leasehold_tick_ms`; without it, half of a session at most is assumed.
    ///
    /// For leases that outlast longer outages, and fewer heartbeats. Needed for safety where `minSessionTimeout` was lowered to
    /// less than two ticks, and, twice as long as it is, for clients of servers behind an `observerMasterPort`.
    pub fn tick_time(mut self, tick: Duration) -> Self {
        self.tick = Some(tick);
        self
    }

    /// The clock for leases, time-outs and heartbeats.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long an operation may take in all. Default 5 s, from 100 ms to an hour.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long opening a session may take. Default 3 s, from 10 ms to an hour.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Connects, learns which sessions the servers grant, checks that a majority of them answers, and creates the nodes
    /// under which the locks are kept.
    ///
    /// Cancel safe: at most those nodes were created.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] before anything is sent; [`ErrorKind::Unreachable`] or [`ErrorKind::Denied`] from
    /// the attempt to connect; [`ErrorKind::NotReady`] if the servers can't be used, with what to do.
    pub async fn build(self) -> Result<ZooKeeperLocks, StoreError> {
        let at_connect = |error: StoreError| error.at(STORE, Operation::Connect, None);
        ZooKeeperLocks::start(self.settings().map_err(at_connect)?).await.map_err(at_connect)
    }

    pub(crate) fn settings(self) -> Result<Settings, StoreError> {
        let address = self.source.0?;
        let hour = Duration::from_secs(3600);
        within("the operation timeout", self.operation_timeout, Duration::from_millis(100), hour)?;
        within("the connect timeout", self.connect_timeout, Duration::from_millis(10), hour)?;
        let tick = self.tick.or(address.tick);
        if let Some(tick) = tick {
            within("the tick", tick, Duration::from_millis(1), hour)?;
        }
        let path = self.path.or_else(|| address.path.clone()).unwrap_or_else(|| BASE.to_owned());
        let path = checked_path("the locks' path", &path)?;
        let base = format!("{}{path}", address.chroot);
        if base.is_empty() || base == "/zookeeper" || base.starts_with("/zookeeper/") {
            return Err(invalid("the locks can't be kept in the root, nor in what is ZooKeeper's own"));
        }
        Ok(Settings {
            open_acl: self.open_acl.unwrap_or(address.login.is_none()),
            paths: Paths::new(base),
            tick,
            address,
            clock: self.clock,
            operation_timeout: self.operation_timeout,
            connect_timeout: self.connect_timeout,
        })
    }
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
        let ok = || Builder::new(Source::from("zookeeper://u:s3cret@localhost/x"));
        let settings = ok().settings().unwrap();
        assert_eq!((settings.paths.base(), settings.open_acl), ("/x/leasehold", false));
        let settings = Builder::new(Source::from("zookeeper://localhost?leasehold_path=/y/")).settings().unwrap();
        assert_eq!((settings.paths.base(), settings.open_acl), ("/y", true));
        for bad in [
            Builder::new(Source::from("mysql://u:s3cret@localhost/x")),
            Builder::new(Source::from("zookeeper://u:s3cret@localhost?leasehold_path=")),
            Builder::new(Source::from("zookeeper://u:s3cret@localhost?leasehold_path=/zookeeper/x")),
            ok().path("x"),
            ok().path("/x//y"),
            ok().path("/x/."),
            ok().tick_time(Duration::ZERO),
            ok().operation_timeout(Duration::ZERO),
            ok().connect_timeout(Duration::ZERO),
        ] {
            let shown = format!("{bad:?}");
            let error = bad.settings().err().unwrap_or_else(|| panic!("{shown}"));
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{shown} {error} {error:?}").contains("s3cret"), "{shown} {error:?}");
        }
    }
}
