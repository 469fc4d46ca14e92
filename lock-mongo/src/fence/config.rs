//! How a register is set up.

use std::{sync::Arc, time::Duration};

use lock_core::{Clock, Operation, StoreError};

use super::register::MongoFences;
use crate::{
    config::{Builder, Index, Source},
    provider::STORE,
};

const COLLECTION: &str = "leasehold_fences";

/// Builds a [`MongoFences`]. Made by [`MongoFences::builder`].
#[derive(Debug)]
#[must_use]
pub struct FencesBuilder(Builder);

impl FencesBuilder {
    pub(super) fn new(source: Source) -> Self {
        // The URL's own collection, if it names one, is that of the locks.
        Self(Builder::new(source).collection(COLLECTION))
    }

    /// The database of the register. It must be on the replica set that keeps the data. Default: the URL's, the client's
    /// default database, or `leasehold`.
    pub fn database(self, name: impl Into<String>) -> Self {
        Self(self.0.database(name))
    }

    /// The collection of the register. Default `leasehold_fences`. All who write the same data use the same.
    pub fn collection(self, name: impl Into<String>) -> Self {
        Self(self.0.collection(name))
    }

    /// The clock for time-outs. No fence depends on it.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self(self.0.clock(clock))
    }

    /// How long each operation of the register's own may take. Default 5 s, from 100 ms to an hour.
    pub fn operation_timeout(self, timeout: Duration) -> Self {
        Self(self.0.operation_timeout(timeout))
    }

    /// How long finding a server and connecting to it may take. Default 3 s, from 10 ms to an hour.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self(self.0.connect_timeout(timeout))
    }

    /// Connects, checks that a majority of the servers answers, and creates the collection if need be.
    ///
    /// Cancel safe: at most the collection was created.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn build(self) -> Result<MongoFences, StoreError> {
        let at_connect = |error: StoreError| error.at(STORE, Operation::Connect, None);
        let mut settings = self.0.settings().map_err(at_connect)?;
        // A fence that is forgotten by itself lets the late write through.
        settings.index = Index::No;
        MongoFences::start(settings).await.map_err(at_connect)
    }
}
