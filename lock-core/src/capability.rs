//! What a store can do, as it is configured now.

use std::{fmt, num::NonZeroUsize, time::Duration};

/// What a store, *as configured now*, can do. Each claim is tied to properties of the conformance suite.
///
/// Make one with [`Capabilities::new`] and set what the store can do beyond it: the default claims nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The store's kind in a word: `memory`, `sqlite`, `postgres`…
    pub store: &'static str,
    /// What tokens survive.
    pub durability: Durability,
    /// Which ttls it can keep.
    pub ttl: TtlRange,
    /// How long after an expiry others still wait, on the store's clock (lock-delay). It covers steps of
    /// a server's wall clock; zero where the store doesn't keep time by one.
    pub grace: Duration,
    /// Whether waiters can be granted in the order in which they queued.
    pub fairness: Fairness,
    /// How a waiter learns that a lock may be free.
    pub wake: Wake,
    /// Who keeps a lock taken after an early release (at-least-for).
    pub minimum_hold: KeptBy,
    /// Whether it can keep shared (reader) locks.
    pub shared: bool,
    /// Whether it can keep semaphores of several permits.
    pub permits: bool,
    /// Whether it can record finished ticks.
    pub ticks: bool,
    /// Whether a lease can be renewed by whoever knows its owner and token. Otherwise it lives off the session of the
    /// client that acquired it, and only that one can.
    pub portable_leases: bool,
    /// How many operations one request can carry; `None` if sending them together gains nothing.
    pub grouping: Option<NonZeroUsize>,
}

impl Capabilities {
    /// The least a store can do: exclusive leases of 100 ms to a day, polled for, tokens kept as long as it runs.
    #[must_use]
    pub const fn new(store: &'static str) -> Self {
        Self {
            store,
            durability: Durability::Process,
            ttl: TtlRange {
                min: Duration::from_millis(100),
                max: Duration::from_secs(24 * 3600),
                granularity: Duration::from_millis(1),
            },
            grace: Duration::ZERO,
            fairness: Fairness::None,
            wake: Wake::Poll(Duration::from_millis(250)),
            minimum_hold: KeptBy::Process,
            shared: false,
            permits: false,
            ticks: false,
            portable_leases: true,
            grouping: None,
        }
    }
}

/// What the record of a lock's last token survives. Tokens rise over its loss all the same, as long as the server's clock goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// It ends with the process.
    Process,
    /// It may be lost when the server crashes or fails over.
    Volatile,
    /// An acknowledged grant survives a crash of the server.
    Durable,
}

/// The ttls that a store can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlRange {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// How exactly it keeps what it says it granted; the holder's margin is at least this.
    pub granularity: Duration,
}

impl fmt::Display for TtlRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {:?}", self.min, self.max)
    }
}

/// In which order waiters get a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fairness {
    /// In any order across processes (within one client they queue in order).
    None,
    /// In the order in which they queued at the store.
    Fifo,
}

/// How a waiter learns that a lock may be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wake {
    /// By an event; waiting costs the server nothing.
    Event,
    /// By asking, about this often.
    Poll(Duration),
}

/// Who keeps the lock taken after an early release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptBy {
    /// The store: it holds even if the process ends.
    Store,
    /// The process: it holds as long as the process lives.
    Process,
}
