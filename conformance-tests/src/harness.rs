//! What the suite has to know of a store.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use lock_core::{LockName, LockProvider};

use crate::{
    failure::{Failure, Lacking},
    faults::Faulty,
};

/// What a hook answers: at once whether it is there or why it isn't, and then a future that does it.
///
/// The runner asks each hook before a property runs and drops the future, so nothing may happen before
/// the future is awaited.
pub type Hook<'a, T = ()> = Result<BoxFuture<'a, Result<T, Failure>>, Lacking>;

/// A store under test. The crate's front page shows a whole one.
///
/// Only [`open`](Self::open), [`store`](Self::store) and [`provider`](Self::provider) have to be written. Every other
/// method is a hook: a way to do to the store what no lock provider can. A hook that isn't written answers
/// with a reason, and the properties that need it show as ignored with that reason.
///
/// # Runtimes
/// Each property runs on a tokio runtime of its own, that ends with it. What a harness keeps across properties must not
/// be bound to one: keep URLs and paths, and connect in each call.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Reaches the store, or starts one; called once per run.
    ///
    /// # Errors
    /// One line that says what is missing and what to do: all properties are then ignored with it, and with `CI` set in
    /// the environment the run fails.
    async fn open() -> Result<Self, Missing>
    where
        Self: Sized;

    /// The store's name in the results: `memory`, `postgres`…
    fn store(&self) -> &'static str;

    /// A fresh client of the store, with connections of its own.
    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure>;

    /// Gives back what [`open`](Self::open) took; called once after the last property.
    async fn close(&self) {}

    /// A client whose wall clock is ahead by so many microseconds (behind, if negative), and nothing else.
    fn skewed_provider(&self, micros: i64) -> Hook<'_, Arc<dyn LockProvider>> {
        let _ = micros;
        lacking("the provider takes no clock")
    }

    /// Deletes the record of one lock, as an operator might.
    fn delete_record<'a>(&'a self, name: &'a LockName) -> Hook<'a> {
        let _ = name;
        lacking("no way to delete a record")
    }

    /// Deletes all that the store keeps, its schema too where it has one. Connected clients must cope.
    fn wipe(&self) -> Hook<'_> {
        lacking("no way to wipe the store")
    }

    /// A server of the property's own that can be restarted.
    fn restartable(&self) -> Hook<'_, Arc<dyn Restartable>> {
        lacking("no server to restart")
    }

    /// A client with faults on its way to the store: [`Proxy`](crate::Proxy) where there is a network,
    /// [`Unreliable`](crate::Unreliable) where there is none.
    fn faulty(&self) -> Hook<'_, Faulty> {
        lacking("no way to inject faults")
    }

    /// How many commands the store has seen so far, by its own count, without those of this hook.
    fn commands(&self) -> Hook<'_, u64> {
        lacking("the store doesn't count commands")
    }

    /// Cuts the connections by which clients hear of released locks.
    fn cut_subscriptions(&self) -> Hook<'_> {
        lacking("no subscription that could be cut")
    }

    /// A text by which a child process finds the store, for [`open_in_child`](Self::open_in_child).
    ///
    /// # Errors
    /// Why no other process can reach the store.
    fn child_spec(&self) -> Result<String, Lacking> {
        Err(Lacking::new("no other process can reach it"))
    }

    /// In a child process: a client of the store that [`child_spec`](Self::child_spec) named.
    async fn open_in_child(spec: &str) -> Result<Arc<dyn LockProvider>, Failure>
    where
        Self: Sized,
    {
        let _ = spec;
        Err(Lacking::new("no other process can reach it").into())
    }
}

/// A server of a property's own that can be restarted.
#[async_trait]
pub trait Restartable: Send + Sync {
    /// A fresh client of it.
    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure>;

    /// Ends the server the hard way where that is possible, starts it again with the data it had, and waits until it serves.
    async fn restart(&self) -> Result<(), Failure>;
}

/// Why there is no store to test, in one line that says what to do.
#[derive(Clone, Debug)]
pub struct Missing(pub String);

fn lacking<T>(reason: &str) -> Hook<'_, T> {
    Err(Lacking::new(reason))
}
