//! How a register is set up.

use std::{sync::Arc, time::Duration};

use lock_core::{Clock, Operation, StoreError};

use crate::{config::Builder, fence::ZooKeeperFences, provider::STORE};

/// Builds a [`ZooKeeperFences`]. Made by [`ZooKeeperFences::builder`].
#[derive(Debug)]
#[must_use]
pub struct FencesBuilder(Builder);

impl FencesBuilder {
    pub(super) fn new(builder: Builder) -> Self {
        Self(builder)
    }

    /// The node under which the fences are kept (in its `fences`), below the URL's chroot; it is created if need be. Default:
    /// the URL's `leasehold_path`, or `/leasehold`. Programs that write the same resources use the same.
    pub fn path(self, path: impl Into<String>) -> Self {
        Self(self.0.path(path))
    }

    /// Whether everybody may do everything with the nodes that are made, or their maker alone. Default: everybody without
    /// user and password, their maker with them.
    pub fn open_acl(self, open: bool) -> Self {
        Self(self.0.open_acl(open))
    }

    /// The clock for time-outs.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self(self.0.clock(clock))
    }

    /// How long an operation may take in all. Default 5 s, from 100 ms to an hour.
    pub fn operation_timeout(self, timeout: Duration) -> Self {
        Self(self.0.operation_timeout(timeout))
    }

    /// How long opening a session may take. Default 3 s, from 10 ms to an hour.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self(self.0.connect_timeout(timeout))
    }

    /// Connects, and creates the node under which the fences are kept.
    ///
    /// Cancel safe: at most that node was created.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn build(self) -> Result<ZooKeeperFences, StoreError> {
        let at_connect = |error: StoreError| error.at(STORE, Operation::Connect, None);
        ZooKeeperFences::start(self.0.settings().map_err(at_connect)?).await.map_err(at_connect)
    }
}
