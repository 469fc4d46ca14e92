//! How a register is set up.

use std::{sync::Arc, time::Duration};

use lock_core::{Clock, Operation, StoreError};

use super::fences::RedisFences;
use crate::{config::Builder, provider::STORE, source::Source};

/// Builds a [`RedisFences`]. Made by [`RedisFences::builder`].
#[derive(Debug)]
#[must_use]
pub struct FencesBuilder(Builder);

impl FencesBuilder {
    pub(super) fn new(source: Source) -> Self {
        Self(Builder::new(source))
    }

    /// What the keys of the registers begin with: 1 to 128 bytes, without braces and control characters. Default: the URL's
    /// `leasehold_prefix`, or `leasehold:`. All who write to a resource use the same; locks may use it too.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self(self.0.prefix(prefix))
    }

    /// The clock for time-outs. It judges nothing.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self(self.0.clock(clock))
    }

    /// How long a call may take in all. Default 5 s, from 100 ms to an hour.
    pub fn operation_timeout(self, timeout: Duration) -> Self {
        Self(self.0.operation_timeout(timeout))
    }

    /// How long making a connection may take. Default 3 s, from 10 ms to an hour.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self(self.0.connect_timeout(timeout))
    }

    /// Whether a server may be used that evicts registers when its memory is full. Default `false`.
    ///
    /// A register that is evicted has seen nothing, and lets late writes of stale holders pass: never for correctness.
    pub fn allow_eviction(self, allow: bool) -> Self {
        Self(self.0.allow_eviction(allow))
    }

    /// Connects, and checks that the server can keep fences.
    ///
    /// Cancel safe: nothing stays behind at the server.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn build(self) -> Result<RedisFences, StoreError> {
        let at_connect = |error: StoreError| error.at(STORE, Operation::Connect, None);
        RedisFences::start(self.0.settings().map_err(at_connect)?).await.map_err(at_connect)
    }
}
