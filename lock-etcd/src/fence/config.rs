//! How a register is set up.

use std::{sync::Arc, time::Duration};

use lock_core::{Clock, Operation, StoreError};

use super::register::EtcdFences;
use crate::{config::Builder, provider::STORE};

/// Builds an [`EtcdFences`]. Made by [`EtcdFences::builder`].
#[derive(Debug)]
#[must_use]
pub struct FencesBuilder(pub(super) Builder);

impl FencesBuilder {
    /// What all keys begin with, as in [`Builder::prefix`]; the registers are below `<prefix>f/`, where no lock is.
    /// Default: the URL's `leasehold_prefix`, or `leasehold/`. Programs that write the same resources use the same.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self(self.0.prefix(prefix))
    }

    /// The clock by which time-outs are counted.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self(self.0.clock(clock))
    }

    /// How long an operation may take in all, as in [`Builder::operation_timeout`]. Default 5 s.
    pub fn operation_timeout(self, timeout: Duration) -> Self {
        Self(self.0.operation_timeout(timeout))
    }

    /// How long making a connection may take, as in [`Builder::connect_timeout`]. Default 2 s.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self(self.0.connect_timeout(timeout))
    }

    /// Connects, and checks that a majority answers and that the registers may be read and written. Nothing is written.
    ///
    /// Cancel safe: nothing stays behind at the server.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn build(self) -> Result<EtcdFences, StoreError> {
        let at_connect = |error: StoreError| error.at(STORE, Operation::Connect, None);
        EtcdFences::start(self.0.settings().map_err(at_connect)?).await.map_err(at_connect)
    }
}
