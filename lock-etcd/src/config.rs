//! How a provider is set up.

use std::{sync::Arc, time::Duration};

use lock_core::{Clock, ErrorKind, Operation, StoreError, SystemClock};

use crate::{
    keys::Keys,
    provider::{EtcdLocks, STORE},
    source::{Given, Source, Way},
};

/// What a group leaves of a transaction's operations to what is nested in it.
pub(crate) const NESTED: usize = 32;

/// Builds an [`EtcdLocks`]. Made by [`EtcdLocks::builder`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    source: Source,
    prefix: Option<String>,
    clock: Arc<dyn Clock>,
    operation_timeout: Duration,
    connect_timeout: Duration,
    max_txn_ops: usize,
}

/// What a [`Builder`] came to. Not `Debug`: the way holds the password.
pub(crate) struct Settings {
    pub(crate) way: Way,
    pub(crate) keys: Keys,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) operation_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    /// How many requests go together.
    pub(crate) group: usize,
}

impl Builder {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            prefix: None,
            clock: Arc::new(SystemClock),
            operation_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            max_txn_ops: 128,
        }
    }

    /// What all keys begin with: 1 to 128 bytes, without control characters. Default: the URL's `leasehold_prefix`, or
    /// `leasehold/`. Programs that are to exclude each other use the same.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// The clock by which leases are believed, kept and given up: it must tick through suspend.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long an operation may take in all, attempts at other servers included. Default 5 s, from 100 ms to an hour.
    ///
    /// A server has a third of it to answer before the next one is asked.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long making a connection may take. Default 2 s, from 10 ms to an hour.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How many operations the servers take in one transaction: their `--max-txn-ops`. Default 128, as theirs; at least 40.
    pub fn max_txn_ops(mut self, operations: usize) -> Self {
        self.max_txn_ops = operations;
        self
    }

    /// Connects, and checks that a majority answers and that the keys may be read and written. Nothing is written.
    ///
    /// Cancel safe: nothing stays behind at the server.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] before anything is sent; [`ErrorKind::Unreachable`], [`ErrorKind::Timeout`] or
    /// [`ErrorKind::Denied`] from the attempt to connect; [`ErrorKind::NotReady`] if the server can't be used, with what
    /// to do.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn build(self) -> Result<EtcdLocks, StoreError> {
        let at_connect = |error: StoreError| error.at(STORE, Operation::Connect, None);
        EtcdLocks::start(self.settings().map_err(at_connect)?).await.map_err(at_connect)
    }

    pub(crate) fn settings(self) -> Result<Settings, StoreError> {
        let Given { way, prefix } = self.source.0?;
        let hour = Duration::from_secs(3600);
        within("the operation timeout", self.operation_timeout, Duration::from_millis(100), hour)?;
        within("the connect timeout", self.connect_timeout, Duration::from_millis(10), hour)?;
        if self.max_txn_ops < NESTED + 8 {
            let message = format!("max_txn_ops must be at least {}, not {}", NESTED + 8, self.max_txn_ops);
            return Err(StoreError::refused(ErrorKind::InvalidConfig, message));
        }
        Ok(Settings {
            way,
            keys: Keys::new(self.prefix.or(prefix))?,
            clock: self.clock,
            operation_timeout: self.operation_timeout,
            connect_timeout: self.connect_timeout,
            group: self.max_txn_ops - NESTED,
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
        let ok = || Builder::new(Source::from("etcd://u:s3cret@localhost"));
        assert!(ok().settings().is_ok());
        for bad in [
            Builder::new(Source::from("mysql://u:s3cret@localhost")),
            ok().prefix(""),
            ok().operation_timeout(Duration::ZERO),
            ok().connect_timeout(Duration::ZERO),
            ok().max_txn_ops(39),
        ] {
            let shown = format!("{bad:?}");
            let error = bad.settings().err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{shown} {error} {error:?}").contains("s3cret"), "{shown} {error:?}");
        }
    }
}
