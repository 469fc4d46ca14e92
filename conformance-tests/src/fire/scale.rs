//! How long things last in a run: all in ttls of its locks.

use std::time::Duration;

use super::chance::Chance;

/// The times of a run.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Of the locks.
    pub ttl: Duration,
    /// What the store waits after an expiry before it grants anew.
    pub grace: Duration,
}

impl Scale {
    /// A time from `least` to `most` ttls.
    #[must_use]
    pub fn ttls(&self, least: f64, most: f64, chance: &Chance) -> Duration {
        chance.between(self.ttl.mul_f64(least), self.ttl.mul_f64(most))
    }
}
