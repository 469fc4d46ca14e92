//! A host whose clocks are wrong, within the bound that leases allow for.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;
use lock_core::{Clock, Moment, SystemClock};

/// The host's clock running at a wrong rate, with a wall clock that can be made to jump.
///
/// The rate is the same for as long as the process lives, so what this clock says can be told in the machine's own time,
/// by which the processes of a run are compared.
#[derive(Clone, Debug)]
pub struct WrongClock {
    origin: Moment,
    /// How much faster than true, in millionths.
    ppm: i32,
    wall: Arc<AtomicI64>,
}

impl WrongClock {
    /// From now on faster than the machine's by so many millionths; slower, if negative.
    #[must_use]
    pub fn new(ppm: i32) -> Self {
        Self { origin: SystemClock.now(), ppm, wall: Arc::default() }
    }

    /// Sets the wall clock apart by so many microseconds more.
    pub fn jump(&self, micros: i64) {
        self.wall.fetch_add(micros, Ordering::SeqCst);
    }

    /// What the machine's clock says when this one says that.
    #[must_use]
    pub fn in_machine_time(&self, moment: Moment) -> Moment {
        self.scaled(moment, MILLION, MILLION + i128::from(self.ppm))
    }

    fn scaled(&self, moment: Moment, by: i128, of: i128) -> Moment {
        let origin = i128::from(self.origin.as_nanos());
        let nanos = origin + (i128::from(moment.as_nanos()) - origin) * by / of;
        Moment::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

const MILLION: i128 = 1_000_000;

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Clock for WrongClock {
    fn now(&self) -> Moment {
        self.scaled(SystemClock.now(), MILLION + i128::from(self.ppm), MILLION)
    }

    fn wall_micros(&self) -> u64 {
        SystemClock.wall_micros().saturating_add_signed(self.wall.load(Ordering::SeqCst))
    }

    async fn sleep_until(&self, at: Moment) {
        loop {
            // The division rounds down, so the machine may be a nanosecond early.
            SystemClock.sleep_until(self.in_machine_time(at)).await;
            if self.now() >= at {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_fast_clock_is_fast_and_can_be_told_in_machine_time() {
        for ppm in [-9_000, 0, 9_000] {
            let clock = WrongClock { origin: Moment::from_nanos(5_000_000_000), ppm, wall: Arc::default() };
            let true_end = Moment::from_nanos(15_000_000_000);
            let said = clock.scaled(true_end, MILLION + i128::from(ppm), MILLION);
            let ahead = i128::from(said.as_nanos()) - i128::from(true_end.as_nanos());
            assert_eq!(ahead, i128::from(ppm) * 10_000, "ten seconds at {ppm} millionths");
            let back = clock.in_machine_time(said);
            assert!(back.since(true_end).max(true_end.since(back)) <= Duration::from_nanos(1), "{back:?}");
        }
    }

    #[tokio::test]
    async fn a_sleeper_on_a_wrong_clock_never_wakes_early() {
        let clock = WrongClock::new(-9_000);
        let at = clock.now() + Duration::from_millis(3);
        clock.sleep_until(at).await;
        assert!(clock.now() >= at);
    }
}
