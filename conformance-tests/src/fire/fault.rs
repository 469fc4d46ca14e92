//! What is done to clients, networks and servers.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use lock_verify::history::Effect;

use super::{chance::Chance, scale::Scale};
use crate::{Failure, asker::Outcome};

/// What a fault is done to. Of each of these one goes on at a time, beside those of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// A client's process or its clocks.
    Client,
    /// The way between a client and the servers.
    Network,
    /// A server, or several.
    Server,
    /// The wall clocks of servers. What is done to them and what loses data is kept apart, by a grace at least: together
    /// they may excuse more than either (law 2).
    Clock,
    /// What people do, and what servers do at times by themselves.
    People,
}

/// A kind of fault.
#[derive(Clone)]
pub struct Fault {
    /// What `--faults` calls it.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// What it is done to.
    pub lane: Lane,
    /// What it may excuse.
    pub effect: Effect,
    strike: Arc<Strike>,
}

type Strike = dyn Fn(&Chance, &Scale) -> Option<Stroke> + Send + Sync;

/// One fault, about to happen. Nothing has until its beginning is awaited.
pub struct Stroke {
    /// What it befalls, for people.
    pub target: String,
    /// Which clients it befalls, if it is not all of them.
    pub clients: Vec<u32>,
    /// From its beginning to its end.
    pub lasts: Duration,
    /// Does it.
    pub begin: BoxFuture<'static, Outcome>,
    /// Undoes it, and returns when that is done: when servers serve again.
    pub end: BoxFuture<'static, Outcome>,
}

impl Fault {
    /// A fault under which all laws hold; `strike` draws whom it befalls, and gives `None` if there is nobody just now.
    pub fn new(
        lane: Lane,
        name: &'static str,
        about: &'static str,
        strike: impl Fn(&Chance, &Scale) -> Option<Stroke> + Send + Sync + 'static,
    ) -> Self {
        Self { name, about, lane, effect: Effect::Harmless, strike: Arc::new(strike) }
    }

    /// One that excuses something.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// Draws one.
    #[must_use]
    pub fn strike(&self, chance: &Chance, scale: &Scale) -> Option<Stroke> {
        (self.strike)(chance, scale)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Stroke {
    /// A fault that lasts, and is then undone.
    pub fn new(
        target: impl Into<String>,
        lasts: Duration,
        begin: impl Future<Output = Outcome> + Send + 'static,
        end: impl Future<Output = Outcome> + Send + 'static,
    ) -> Self {
        Self { target: target.into(), clients: Vec::new(), lasts, begin: Box::pin(begin), end: Box::pin(end) }
    }

    /// A fault that is over when it has happened.
    pub fn at_once(target: impl Into<String>, begin: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Self::new(target, Duration::ZERO, begin, async { Ok(()) })
    }

    /// Befalling these clients only.
    #[must_use]
    pub fn of_clients(mut self, clients: Vec<u32>) -> Self {
        self.clients = clients;
        self
    }
}

impl fmt::Debug for Stroke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stroke").field("target", &self.target).field("lasts", &self.lasts).finish_non_exhaustive()
    }
}

/// Does what blocks its thread, as commands of containers do, on a thread for that.
///
/// # Errors
/// Its own, and that it panicked.
pub async fn blocking<T, E>(act: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    tokio::task::spawn_blocking(act).await?.map_err(Into::into)
}
