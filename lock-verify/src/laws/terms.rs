//! Under which conditions a history was recorded.

use std::time::Duration;

use lock_core::{Capabilities, Fairness, Moment, Wake};

use crate::history::Effect;

/// What a store promised, and what the run did to it.
#[derive(Clone, Debug)]
pub struct Terms {
    /// By how much the rates of two clocks may differ, in parts per million. Only used where a client's own deadline isn't recorded.
    pub drift_ppm: u32,
    /// How long after an expiry others still wait (lock-delay).
    pub grace: Duration,
    /// How often a waiter asks where nothing tells it, or in case it wasn't told.
    pub poll: Duration,
    /// How long a message may be under way and a client may be busy with something else, faults aside: what a slow machine
    /// costs. It is only ever added to bounds of liveness.
    pub settle: Duration,
    /// Whether waiters are granted in the order in which they queued.
    pub fair: bool,
    /// Whether waiters are woken by events, so that waiting costs the store nothing.
    pub silent: bool,
    /// Whether the network may run a request twice. What comes back may then be the answer to the second run: that a lock is
    /// not the asker's, which the first run had given back.
    pub repeats: bool,
    /// How many requests a count may hold beyond what waiting costs, such as the beginning of a subscription.
    pub spare_requests: u64,
    /// Times in which more than the laws' conditions was done, besides those that the history's own faults tell.
    pub windows: Vec<Window>,
}

/// A stretch of time in which a law's condition was out of force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From then.
    pub from: Moment,
    /// To then, included.
    pub to: Moment,
    /// What it may excuse.
    pub effect: Effect,
}

impl Default for Terms {
    /// 1 % of drift, no grace, a poll every second, 5 s to settle; neither fairness nor silence is claimed.
    fn default() -> Self {
        Self {
            drift_ppm: 10_000,
            grace: Duration::ZERO,
            poll: Duration::from_secs(1),
            settle: Duration::from_secs(5),
            fair: false,
            silent: false,
            repeats: false,
            spare_requests: 0,
            windows: Vec::new(),
        }
    }
}

impl Terms {
    /// What this store claims, and otherwise the default.
    #[must_use]
    pub fn of(can: &Capabilities) -> Self {
        let default = Self::default();
        let (silent, poll) = match can.wake {
            Wake::Poll(every) => (false, every),
            _ => (true, default.poll),
        };
        Self { grace: can.grace, poll, fair: can.fairness == Fairness::Fifo, silent, ..default }
    }

    /// How long after its turn a waiter may still wait for a lock of this ttl.
    pub(super) fn patience(&self, ttl: Duration) -> Duration {
        ttl + self.grace + self.poll + self.settle
    }

    /// How long after the last message of a holder that vanished its lock may be taken.
    pub(super) fn afterlife(&self, ttl: Duration) -> Duration {
        ttl.saturating_add(self.grace).saturating_add(self.settle)
    }

    /// What is left of a ttl when the clocks differ as much as they may.
    pub(super) fn shortened(&self, ttl: Duration) -> Duration {
        ttl.saturating_sub(ttl.mul_f64(f64::from(self.drift_ppm) / 1e6))
    }
}
