//! Clocks that drift, jump and stand still.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use lock_core::{Clock, Moment};

use super::{
    chance::{Chance, nanos},
    events::{Entry, Event, Events},
};

/// The clock of a node, or of the store.
///
/// It shows true time at a rate and from a start of its own. A node may stand still in the midst of a step, between any
/// two instructions of which one looks at the clock (SIGSTOP, a busy machine): then its own now moves on, and what it
/// does after that is done later.
pub(super) struct NodeClock {
    node: usize,
    /// True time, as far as this node has come.
    now: AtomicU64,
    rate_ppm: i64,
    start: u64,
    wall_offset: AtomicI64,
    /// Whether the checker looks, who must change nothing by it.
    peeked: AtomicBool,
    /// Looks at the clock until the node stands still next.
    until_stop: AtomicU64,
    stops: Mutex<Stops>,
    events: Arc<Events>,
}

/// How a node stands still in the midst of a step.
pub(super) struct Stops {
    chance: Chance,
    /// Looks at the clock between two stops, on average; zero for none.
    every: u64,
    most: u64,
    /// How often it did.
    pub(super) count: u64,
}

/// 2026-01-01T00:00:00Z.
const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

/// Timers are as coarse as tokio's.
const LATEST: u64 = 1_000_000;

impl NodeClock {
    pub(super) fn new(node: usize, rate_ppm: i64, events: Arc<Events>, mut chance: Chance, stops: (u64, u64)) -> Self {
        let start = chance.between(3_600, 864_000) * 1_000_000_000;
        let (every, most) = stops;
        let clock = Self {
            node,
            now: 0.into(),
            rate_ppm,
            start,
            wall_offset: 0.into(),
            peeked: false.into(),
            until_stop: u64::MAX.into(),
            stops: Mutex::new(Stops { chance, every, most, count: 0 }),
            events,
        };
        clock.set_stops(every);
        clock
    }

    /// From now on the node stands still once in so many looks at its clock; zero for never.
    pub(super) fn set_stops(&self, every: u64) {
        let mut stops = self.stops();
        stops.every = every;
        let next = if every == 0 { u64::MAX } else { stops.chance.between(1, 2 * every) };
        self.until_stop.store(next, Relaxed);
    }

    pub(super) fn stops(&self) -> std::sync::MutexGuard<'_, Stops> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True time, as far as this node has come.
    pub(super) fn true_now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// Brings the node to this moment of true time.
    pub(super) fn bring_to(&self, at: u64) {
        self.now.store(at, Relaxed);
    }

    /// What the clock shows at this moment of true time.
    pub(super) fn shown_at(&self, at: u64) -> u64 {
        // In one division: rounded twice, the clock would step back now and then.
        let drift = at as i64 * self.rate_ppm / 1_000_000;
        self.start + at.saturating_add_signed(drift)
    }

    /// The first moment of true time at which the clock shows this.
    pub(super) fn true_at(&self, shown: Moment) -> u64 {
        let shown = shown.as_nanos();
        let passed = shown.saturating_sub(self.start);
        let mut at = (u128::from(passed) * 1_000_000 / (1_000_000 + i128::from(self.rate_ppm)) as u128) as u64;
        // Rounded twice, so off by a little: the very first is wanted.
        at = at.saturating_sub(2_000);
        while self.shown_at(at) < shown {
            at += (shown - self.shown_at(at)).div_ceil(2).max(1);
        }
        at
    }

    /// Steps the wall clock.
    pub(super) fn step_wall(&self, micros: i64) {
        self.wall_offset.fetch_add(micros, Relaxed);
    }

    /// Looks at something that looks at this clock, without it seeing what time it is: a lease whose deadline has passed
    /// notices that when somebody looks, and the checker must not be the one.
    pub(super) fn peek<T>(&self, look: impl FnOnce() -> T) -> T {
        self.peeked.store(true, Relaxed);
        let seen = look();
        self.peeked.store(false, Relaxed);
        seen
    }

    /// Stands still for a while, before or after the clock is looked at.
    #[cold]
    fn stop(&self) -> u64 {
        let stops = &mut *self.stops();
        let span = stops.chance.below(stops.most) + 1;
        // Most are short; some are longer than any lease.
        let span = if stops.chance.percent(50) { span / 50 } else { span };
        let before = self.now.fetch_add(span, Relaxed);
        stops.count += 1;
        let next = stops.chance.between(1, 2 * stops.every);
        self.until_stop.store(next, Relaxed);
        if stops.chance.percent(50) { before } else { before + span }
    }
}

impl fmt::Debug for NodeClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeClock").field("node", &self.node).finish_non_exhaustive()
    }
}

#[async_trait]
impl Clock for NodeClock {
    fn now(&self) -> Moment {
        if self.peeked.load(Relaxed) {
            return Moment::from_nanos(0);
        }
        let left = self.until_stop.load(Relaxed);
        let at = if left == 0 {
            self.stop()
        } else {
            self.until_stop.store(left - 1, Relaxed);
            self.true_now()
        };
        Moment::from_nanos(self.shown_at(at))
    }

    fn wall_micros(&self) -> u64 {
        let passed = self.shown_at(self.true_now()) / 1000;
        let offset = EPOCH_MICROS + self.wall_offset.load(Relaxed);
        passed.saturating_add_signed(offset)
    }

    async fn sleep_until(&self, at: Moment) {
        Sleep { clock: self, at, entry: None }.await;
    }
}

impl NodeClock {
    /// For the nodes' own work.
    pub(super) async fn pause(&self, span: Duration) {
        let until = Moment::from_nanos(self.shown_at(self.true_now()) + nanos(span));
        Sleep { clock: self, at: until, entry: None }.await;
    }
}

struct Sleep<'a> {
    clock: &'a NodeClock,
    at: Moment,
    entry: Option<Entry>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock;
        if clock.now() >= self.at {
            return Poll::Ready(());
        }
        if let Some(entry) = self.entry
            && clock.events.rewake(entry, context.waker())
        {
            return Poll::Pending;
        }
        // Late by as much as this timer happens to be; not drawn from anything, so that a timer more changes no other.
        let lateness = self.at.as_nanos() % LATEST;
        let due = clock.true_at(self.at).max(clock.true_now()) + lateness;
        let event = Event::Timer { node: clock.node, waker: Some(context.waker().clone()) };
        self.entry = Some(clock.events.push(due, event));
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            self.clock.events.cancel(entry);
        }
    }
}
