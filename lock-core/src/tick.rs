//! Ticks: the scheduled fire times of jobs, of which each is to be run at most once.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// A scheduled fire time, in microseconds since the Unix epoch: what a job is keyed by, so that it runs at most once per
/// tick over all processes, however short it is and however far their clocks differ.
///
/// All nodes must come to the same number for the same fire time. A scheduler that hands out the *planned* time does
/// (`SystemTime` converts into a tick); one that hands out the time at which it woke up doesn't: cut that with
/// [`Tick::slot`].
///
/// ```
/// # use std::time::{Duration, SystemTime};
/// # use lock_core::Tick;
/// let hour = Duration::from_secs(3600);
/// let planned = SystemTime::UNIX_EPOCH + 20 * hour;
/// assert_eq!(Tick::from(planned), Tick::slot(planned + Duration::from_millis(250), hour));
/// assert_eq!(SystemTime::from(Tick::from(planned)), planned);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

/// What uses a tick up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TickUse {
    /// The grant, in the same atomic step: it runs **at most once**, and not at all if its holder dies before it began.
    #[default]
    AtGrant,
    /// The release that says [`done`](crate::ReleaseRequest::done): a run that failed, was lost or died may be repeated
    /// by whoever asks next, so it runs **at least once** while somebody asks.
    AtRelease,
}

impl Tick {
    /// The last one that stores can keep: 2^53 - 1 microseconds, in the year 2255.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The start of the period of this length that `time` lies in, counted from the Unix epoch: the same for all nodes
    /// that look within one period.
    ///
    /// A time before the epoch counts as the epoch, and a period under a microsecond as one.
    #[must_use]
    pub fn slot(time: SystemTime, period: Duration) -> Self {
        let Self(micros) = Self::from(time);
        let period = u64::try_from(period.as_micros()).unwrap_or(u64::MAX).max(1);
        Self(micros - micros % period)
    }
}

impl From<SystemTime> for Tick {
    /// Cuts to microseconds; a time before the epoch counts as the epoch.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Tick> for SystemTime {
    fn from(Tick(micros): Tick) -> Self {
        Self::UNIX_EPOCH + Duration::from_micros(micros.min(Tick::MAX.0))
    }
}

impl fmt::Display for Tick {
    /// Seconds since the epoch: `1767225600.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        match micros {
            0 => write!(f, "{seconds}"),
            _ => write!(f, "{seconds}.{}", format!("{micros:06}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_the_same_for_all_who_look_within_it() {
        let at = |micros| SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
        let second = Duration::from_secs(1);
        for micros in [5_000_000, 5_000_001, 5_999_999] {
            assert_eq!(Tick::slot(at(micros), second), Tick(5_000_000));
        }
        assert_eq!(Tick::slot(at(6_000_000), second), Tick(6_000_000));
        assert_eq!(Tick::slot(at(7), Duration::ZERO), Tick(7));
        assert_eq!(Tick::slot(SystemTime::UNIX_EPOCH - second, second), Tick(0));
        assert_eq!(Tick::slot(at(7), Duration::MAX), Tick(0));
    }

    #[test]
    fn it_reads_as_seconds() {
        assert_eq!(Tick(1_767_225_600_500_000).to_string(), "1767225600.5");
        assert_eq!(Tick(7_000_000).to_string(), "7");
    }
}
