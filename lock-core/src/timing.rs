//! Lease arithmetic: how long a holder may believe.

use std::time::Duration;

use crate::{clock::Moment, entropy::Entropy};

/// How the holder's own deadline is drawn from what a store granted.
///
/// `deadline = sent + granted_ttl * (1 - drift) - margin`, where `sent` was read *before* the request
/// whose reply is accepted was sent. So the holder's deadline always lies before the moment at which
/// the store may give the lock away, as long as the two clocks' *rates* differ by less than the drift.
/// (Gray & Cheriton, "Leases", SOSP 1989, section 5, is where the drift comes from.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    drift_ppm: u32,
    margin: Option<Duration>,
}

impl Default for Timing {
    /// 1 % of drift, and a margin of a fiftieth of the ttl between 2 ms and 250 ms.
    fn default() -> Self {
        Self { drift_ppm: 10_000, margin: None }
    }
}

impl Timing {
    /// With another bound on how much the rates of two clocks differ, in parts per million; at most half.
    #[must_use]
    pub const fn drift_ppm(mut self, ppm: u32) -> Self {
        self.drift_ppm = if ppm > 500_000 { 500_000 } else { ppm };
        self
    }

    /// With a fixed margin; the store's granularity is the least in any case.
    #[must_use]
    pub const fn margin(mut self, margin: Duration) -> Self {
        self.margin = Some(margin);
        self
    }

    /// Until when the holder may believe, given when the request left and what the store granted.
    ///
    /// It may lie at or before `sent`: then the reply came with nothing to believe in.
    #[must_use]
    pub fn deadline(&self, sent: Moment, granted_ttl: Duration, granularity: Duration) -> Moment {
        let drift = granted_ttl.mul_f64(f64::from(self.drift_ppm) / 1e6) + Duration::from_nanos(1);
        let margin = self.margin.unwrap_or_else(|| default_margin(granted_ttl)).max(granularity);
        sent + granted_ttl.saturating_sub(drift).saturating_sub(margin)
    }

    /// When to renew a lease counted from `sent`: after a third of its ttl, up to a tenth of that earlier.
    #[must_use]
    pub fn renew_at(&self, sent: Moment, granted_ttl: Duration, entropy: &dyn Entropy) -> Moment {
        let third = granted_ttl / 3;
        sent + third.saturating_sub(jitter(third / 10, entropy))
    }

    /// How long one attempt to renew may take before the next is begun: a sixth of the ttl.
    #[must_use]
    pub fn attempt_timeout(ttl: Duration) -> Duration {
        ttl / 6
    }
}

/// A random span from zero to `most`.
pub(crate) fn jitter(most: Duration, entropy: &dyn Entropy) -> Duration {
    most.mul_f64(fraction(entropy.next_u64()))
}

/// 64 random bits as a number from zero to one.
pub(crate) fn fraction(random: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 random bits are plenty")]
    let part = (random >> 11) as f64 / (1_u64 << 53) as f64;
    part
}

fn default_margin(ttl: Duration) -> Duration {
    (ttl / 50).clamp(Duration::from_millis(2), Duration::from_millis(250))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use proptest::prelude::*;

    proptest! {
        /// Law 1, the arithmetic: whatever the delays and rates within the bound, the holder stops believing first.
        #[test]
        fn the_holder_stops_believing_before_the_store_gives_it_away(
            ttl_ms in 1_u64..100_000_000, to_store_ms in 0_u64..100_000, ppm in -9_900_i64..9_900,
        ) {
            let ttl = Duration::from_millis(ttl_ms);
            let sent = Moment::from_nanos(1_000_000_000_000);
            let deadline = Timing::default().deadline(sent, ttl, Duration::from_micros(1));
            // The store stamps when the request arrives; its clock runs `ppm` fast, so its ttl is that much shorter for us.
            let true_ttl = ttl.mul_f64(1.0 - ppm as f64 / 1e6);
            let given_away = sent + Duration::from_millis(to_store_ms) + true_ttl;
            prop_assert!(deadline < given_away || deadline == sent, "{deadline:?} {given_away:?}");
        }

        #[test]
        fn renewal_leaves_room_for_two_more_attempts(ttl_ms in 50_u64..100_000_000, seed: u64) {
            let ttl = Duration::from_millis(ttl_ms);
            let sent = Moment::from_nanos(0);
            let timing = Timing::default();
            let at = timing.renew_at(sent, ttl, &SeededEntropy::new(seed));
            prop_assert!(at + Timing::attempt_timeout(ttl) * 2 < timing.deadline(sent, ttl, Duration::ZERO));
        }
    }

    #[test]
    fn the_granularity_is_the_least_margin() {
        let sent = Moment::from_nanos(0);
        let deadline =
            Timing::default().margin(Duration::ZERO).deadline(sent, Duration::from_secs(10), Duration::from_secs(1));
        assert!(deadline <= Moment::from_nanos(8_900_000_000));
    }

    #[test]
    fn a_ttl_shorter_than_its_margin_leaves_nothing_to_believe() {
        let sent = Moment::from_nanos(5);
        assert_eq!(Timing::default().deadline(sent, Duration::from_millis(1), Duration::ZERO), sent);
    }
}
