//! Fencing tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number that rises with each grant of a lock: the resource refuses a write with a lower one.
///
/// Stores that keep records make it a hybrid logical clock ([`FencingToken::next`]); consensus stores
/// use their own commit position. It stays under 2^53 until the year 2255, so JSON, Lua and
/// JavaScript carry it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingToken(u64);

impl FencingToken {
    /// The highest that a store hands out or a resource takes: 2^63 - 1, which databases keep as a signed number.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The token with this value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The token's value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The token after `last`: `max(last + 1, the server's clock in microseconds since the Unix epoch)`.
    ///
    /// The first half makes it rise whatever the clock does; the second makes it rise even when the
    /// lock's record is gone (swept, deleted, lost in a crash, restored from an old backup). Kulkarni
    /// et al., "Logical Physical Clocks", 2014, is the source of the idea.
    #[must_use]
    pub const fn next(last: Option<Self>, server_micros: u64) -> Self {
        match last {
            Some(Self(last)) if last >= server_micros => Self(last.saturating_add(1)),
            _ => Self(server_micros),
        }
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_rises_whatever_the_clock_does(clocks in prop::collection::vec(0_u64..1 << 52, 1..100)) {
            let mut last = None;
            for clock in clocks {
                let next = FencingToken::next(last, clock);
                prop_assert!(last.is_none_or(|last| next > last));
                prop_assert!(next.get() >= clock);
                last = Some(next);
            }
        }

        #[test]
        fn a_lost_record_does_not_lower_it(before in 1_u64..1 << 52, grants in 1_u64..1000, later in 1_u64..1 << 40) {
            // Grants no faster than one a microsecond, then the record is lost and the clock has gone on.
            let mut last = None;
            for step in 0..grants {
                last = Some(FencingToken::next(last, before + step));
            }
            prop_assert!(Some(FencingToken::next(None, before + grants + later)) > last);
        }
    }

    #[test]
    fn it_stays_exact_in_json_until_2255() {
        let micros_2255 = 285_u64 * 3_652_425 / 10_000 * 24 * 3600 * 1_000_000;
        assert!(micros_2255 < 1 << 53);
    }
}
