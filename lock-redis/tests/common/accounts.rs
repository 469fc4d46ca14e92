//! The accounts that tests of fenced scripts write to.

use lock_core::{Fence, FenceError, Pass, Resource, StoreError};
use lock_redis::RedisFences;
use testbed::{PrivateServer, Server};

use super::{AsServer, Place};

/// The accounts of one test, and the register before them.
pub(crate) struct Accounts<S> {
    pub(crate) place: Place<S>,
    pub(crate) fences: RedisFences,
    pub(crate) resource: Resource,
}

impl<S: AsServer> Accounts<S> {
    pub(crate) async fn at(place: Place<S>) -> Self {
        let fences = RedisFences::builder(place.url()).prefix(&place.prefix).build().await.unwrap();
        Self { place, fences, resource: Resource::new("accounts").unwrap() }
    }

    pub(crate) fn data(&self) -> String {
        format!("{}{{accounts}}:data", self.place.prefix)
    }

    pub(crate) fn register(&self) -> String {
        format!("{}{{accounts}}:fence", self.place.prefix)
    }

    /// Appends an entry to the data, and says how many there are by now.
    pub(crate) async fn append(&self, entry: &str, by: &str, pass: Pass) -> Result<u64, FenceError> {
        let append = self.fences.script("return redis.call('RPUSH', KEYS[1], ARGV[1])");
        append.key(self.data()).arg(entry).run(&self.resource, &fence(by), pass).await
    }

    /// All that is there: the entries, and what the register holds.
    pub(crate) async fn all(&self) -> (Vec<String>, Option<String>) {
        let entries = self.place.command(&["LRANGE", &self.data(), "0", "-1"]).await;
        (entries, self.place.command(&["GET", &self.register()]).await)
    }
}

pub(crate) async fn shared() -> Accounts<Server> {
    Accounts::at(Place::shared().await).await
}

pub(crate) async fn alone() -> Accounts<PrivateServer> {
    Accounts::at(Place::alone().await).await
}

pub(crate) fn fence(text: &str) -> Fence {
    text.parse().unwrap()
}

pub(crate) fn store_error(error: FenceError) -> StoreError {
    match error {
        FenceError::Store(error) => error,
        other => panic!("not the store's: {other}"),
    }
}
