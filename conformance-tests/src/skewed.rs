//! A host whose wall clock is wrong.

use async_trait::async_trait;
use lock_core::{Clock, Moment, SystemClock};

/// The host's clock, with its wall clock off and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct SkewedClock {
    micros: i64,
}

impl SkewedClock {
    /// Ahead by so many microseconds; behind, if negative.
    #[must_use]
    pub const fn new(micros: i64) -> Self {
        Self { micros }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Clock for SkewedClock {
    fn now(&self) -> Moment {
        SystemClock.now()
    }

    fn wall_micros(&self) -> u64 {
        SystemClock.wall_micros().saturating_add_signed(self.micros)
    }

    async fn sleep_until(&self, at: Moment) {
        SystemClock.sleep_until(at).await;
    }
}
