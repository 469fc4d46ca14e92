//! Chance by a seed, in the words of a run.

use std::time::Duration;

use lock_core::{Entropy, SeededEntropy};

/// A stream of chance that can be drawn again by its seed.
#[derive(Debug)]
pub struct Chance(SeededEntropy);

impl Chance {
    /// The stream of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    /// Another stream, which doesn't depend on what is drawn from this one later.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::new(self.0.next_u64())
    }

    /// A number below this one; zero if that is zero.
    pub fn below(&self, end: usize) -> usize {
        let drawn = self.0.next_u64() % u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(drawn).unwrap_or(0)
    }

    /// Once in so many times.
    pub fn once_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Between two times, the first among them.
    pub fn between(&self, least: Duration, most: Duration) -> Duration {
        let part = f64::from(u32::try_from(self.0.next_u64() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        least + most.saturating_sub(least).mul_f64(part)
    }

    /// One of these, if there are any.
    pub fn one_of<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    /// A seed for somebody else.
    pub fn seed(&self) -> u64 {
        self.0.next_u64()
    }
}
