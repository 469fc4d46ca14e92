//! Time, handed in.
//!
//! A lease must be counted on a clock that ticks through suspend: `std::time::Instant` and tokio's
//! timers stop while a Linux machine sleeps (rust-lang/rust #79462, #87906), so a laptop or a VM that
//! slept would believe in a dead lease.

use std::{fmt, time::Duration};

use async_trait::async_trait;

/// A point on a [`Clock`], in nanoseconds since that clock's own start.
///
/// Moments of different clocks must not be compared. Those of [`SystemClock`] count from the boot of
/// the host, so that processes of one host can exchange them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment so many nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it isn't.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    /// Later by `by`; stays at the end of time (584 years) instead of wrapping.
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Moment {
    type Output = Self;

    /// Earlier by `by`; stays at the clock's start instead of wrapping.
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

/// A source of time: a client is given one at construction, and tests give one that they own.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now, on a clock that never steps and ticks through suspend.
    fn now(&self) -> Moment;

    /// The wall clock, in microseconds since the Unix epoch: for people and for tokens, never for leases.
    fn wall_micros(&self) -> u64;

    /// Returns once [`now`](Self::now) is at or past `at`; never before.
    async fn sleep_until(&self, at: Moment);
}

/// The longest that [`SystemClock::sleep_until`] goes without looking at the clock again.
///
/// tokio's timers stand still while the machine sleeps; this bounds how late after a resume a sleeper
/// learns that its moment has passed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The host's own clock: `CLOCK_BOOTTIME` on Linux and Android, `CLOCK_MONOTONIC` elsewhere.
///
/// On macOS `CLOCK_MONOTONIC` counts sleep (clock_gettime(3)); where a system's doesn't, leases are
/// only safe on machines that are not suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const ID: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const ID: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let time = rustix::time::clock_gettime(Self::ID);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Moment::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    fn wall_micros(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1000)
    }

    async fn sleep_until(&self, at: Moment) {
        sleep_in_slices(self, at).await;
    }
}

async fn sleep_in_slices(clock: &dyn Clock, at: Moment) {
    loop {
        let left = at.since(clock.now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
}

/// A clock for tests: follows tokio's (pausable) time and can be made to jump as in a suspend.
///
/// With `#[tokio::test(start_paused = true)]` hours pass in milliseconds. Its wall clock starts at a
/// fixed date and can be set apart.
#[derive(Debug)]
pub struct TestClock {
    start: tokio::time::Instant,
    slept: std::sync::atomic::AtomicU64,
    wall_offset_micros: std::sync::atomic::AtomicI64,
}

/// 2026-01-01T00:00:00Z: where a [`TestClock`]'s wall clock starts.
const TEST_EPOCH_MICROS: i64 = 1_767_225_600_000_000;

impl TestClock {
    /// A clock that starts now.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this clock is where tokio's time is handed in")]
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now(), slept: 0.into(), wall_offset_micros: 0.into() }
    }

    /// Lets `by` pass as in a suspend of the machine: no timer notices.
    pub fn suspend(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.slept.fetch_add(nanos, std::sync::atomic::Ordering::SeqCst);
    }

    /// Steps the wall clock by so many microseconds; leases must not notice.
    pub fn step_wall(&self, by_micros: i64) {
        self.wall_offset_micros.fetch_add(by_micros, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Moment {
        let slept = Duration::from_nanos(self.slept.load(std::sync::atomic::Ordering::SeqCst));
        // A day after the clock's start, so that subtracting has room as on a real host.
        Moment::from_nanos(86_400_000_000_000) + self.start.elapsed() + slept
    }

    fn wall_micros(&self) -> u64 {
        let passed = i64::try_from(self.now().as_nanos() / 1000).unwrap_or(i64::MAX);
        let offset = self.wall_offset_micros.load(std::sync::atomic::Ordering::SeqCst);
        u64::try_from(TEST_EPOCH_MICROS.saturating_add(passed).saturating_add(offset)).unwrap_or(0)
    }

    async fn sleep_until(&self, at: Moment) {
        sleep_in_slices(self, at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_counts_from_boot() {
        let uptime: f64 = std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
        let ours = Duration::from_nanos(SystemClock.now().as_nanos()).as_secs_f64();
        assert!((ours - uptime).abs() < 5.0, "{ours} and {uptime}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleeper_notices_a_suspend_within_the_slice() {
        let clock = TestClock::new();
        let (start, at) = (clock.now(), clock.now() + Duration::from_secs(3600));
        clock.suspend(Duration::from_secs(3600) - Duration::from_millis(100));
        clock.sleep_until(at).await;
        assert!(clock.now() >= at);
        clock.suspend(Duration::from_secs(10));
        assert!(clock.now().since(start) >= Duration::from_secs(3610));
    }

    #[tokio::test]
    async fn a_sleeper_never_wakes_early() {
        let clock = SystemClock;
        for millis in [1_u64, 3, 7] {
            let at = clock.now() + Duration::from_millis(millis);
            clock.sleep_until(at).await;
            assert!(clock.now() >= at);
        }
    }
}
