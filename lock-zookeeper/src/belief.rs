//! How long a session may be believed in.
//!
//! A session lives as long as the leader hears of it at least once per timeout `T`. What a client may conclude from an
//! answer is less than it seems:
//!
//! - Pings and reads are answered by the connected server alone. A follower that is cut off from its leader goes on
//!   answering until `syncLimit` ticks have passed, and so does a leader that was cut off, while the others already count
//!   the session as gone. So an acknowledged ping proves nothing; **only an acknowledged write proves** that a quorum was
//!   in touch (ZooKeeper's `FollowerRequestProcessor` hands on writes, and no reads).
//! - A follower doesn't hand on each sign of life either: it collects them, and tells the leader when that pings it, every
//!   half tick (`Leader.lead`, `Learner.ping`, `LearnerHandler.run`). What a write proves is that the leader heard what the
//!   follower had collected until its last ping before that write: everything that the follower had received half a tick
//!   before.
//!
//! So the proof takes two writes: when the second was sent at least half a tick after the first was acknowledged, and is
//! acknowledged in turn, then the leader has heard of the session since the *first was sent*, and keeps it for `T` from
//! then. Opening a session is a write at the leader itself and counts for both.
//!
//! How long that is to be: see [`apart`].
//!
//! A leader rounds up when a session ends (`ExpiryQueue.roundToNextInterval`), and a new leader begins with a whole `T` for
//! every session; neither makes one shorter.

use std::{collections::VecDeque, time::Duration};

use lock_core::Moment;

/// How long after the answer to one write the next must be sent to prove it, for a session of this timeout: half a tick,
/// and something for the leader, which is late now and then, and for its ping's way.
///
/// The tick is known only if it was told. What the servers grant doesn't show it, since each limit can be set by itself. But
/// a session is at least two ticks long (`minSessionTimeout`, as long as that wasn't lowered; then the tick has to be told).
pub(crate) fn apart(timeout: Duration, tick: Option<Duration>) -> Duration {
    match tick {
        Some(tick) => tick / 2 + tick / 8 + Duration::from_millis(20),
        None => timeout / 4 + timeout / 32,
    }
}

/// What one session's acknowledged writes prove.
#[derive(Debug)]
pub(crate) struct Belief {
    timeout: Duration,
    /// How long after the answer to one write the next must be sent to prove it.
    apart: Duration,
    /// The leader heard of the session at or after this moment.
    heard: Moment,
    /// Writes that a later one can prove: when each was sent, and when its answer came.
    writes: VecDeque<(Moment, Moment)>,
}

impl Belief {
    /// Of a session that was asked for at `asked`. `apart` is how late the leader may hear what its follower knows.
    pub(crate) fn new(timeout: Duration, apart: Duration, asked: Moment, opened: Moment) -> Self {
        Self { timeout, apart, heard: asked, writes: VecDeque::from([(asked, opened)]) }
    }

    /// How long after the answer to one heartbeat the next is sent, if nobody wants it sooner: so that a lease begins with
    /// more than half of the session, and mostly three quarters.
    pub(crate) fn rhythm(&self) -> Duration {
        if self.is_quick() {
            return self.timeout / 5;
        }
        let part = self.timeout / 10;
        let parts = u32::try_from(self.apart.as_nanos().div_ceil(part.as_nanos().max(1))).unwrap_or(1);
        self.apart.max(part) / parts.max(1)
    }

    /// Whether two writes prove nearly the whole session soon.
    fn is_quick(&self) -> bool {
        self.apart <= self.timeout / 16
    }

    /// What a renewal asks for: nearly all, if that is to be had soon, or what the rhythm leaves if all is well.
    pub(crate) fn fresh(&self) -> Duration {
        if self.is_quick() { self.timeout - self.timeout / 16 - self.apart } else { self.timeout * 2 / 5 }
    }

    /// When a write would prove one before it, or could be the one to be proved.
    pub(crate) fn next_useful(&self, now: Moment) -> Moment {
        self.writes.front().map_or(now, |(_, acknowledged)| *acknowledged + self.apart)
    }

    /// Takes in an acknowledged write.
    pub(crate) fn wrote(&mut self, sent: Moment, acknowledged: Moment) {
        while let Some((first_sent, first_acknowledged)) = self.writes.front().copied() {
            if first_acknowledged + self.apart > sent {
                break;
            }
            self.heard = self.heard.max(first_sent);
            self.writes.pop_front();
        }
        // Under load one of many is enough.
        let dense = self.writes.back().is_some_and(|(last, _)| *last + self.apart / 8 > sent);
        if !dense {
            self.writes.push_back((sent, acknowledged));
        }
    }

    /// Until when the session lives for certain, on the client's clock.
    pub(crate) fn safe_until(&self) -> Moment {
        self.heard + self.timeout
    }

    /// What is left of it at `from`. The drift of the part that has passed is taken off; that of the rest is the core's.
    pub(crate) fn left(&self, from: Moment) -> Duration {
        let left = self.safe_until().since(from).min(self.timeout);
        left.saturating_sub((self.timeout - left) / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_write_proves_only_what_was_received_half_a_tick_before_it() {
        let mut belief = Belief::new(Duration::from_millis(4000), Duration::from_millis(1000), at(10_000), at(10_010));
        assert_eq!(belief.safe_until(), at(14_000));
        // Too soon after the opening to prove more than that.
        belief.wrote(at(10_500), at(10_510));
        assert_eq!(belief.safe_until(), at(14_000));
        // Proves neither itself nor what was acknowledged less than a quarter before.
        belief.wrote(at(11_505), at(11_520));
        assert_eq!(belief.safe_until(), at(14_000));
        belief.wrote(at(12_520), at(19_000));
        assert_eq!(belief.safe_until(), at(15_505));
        assert_eq!(belief.left(at(15_505)), Duration::ZERO);
        assert_eq!(belief.left(at(13_505)), Duration::from_millis(2000 - 20));
    }

    #[test]
    fn many_writes_are_kept_as_a_few_and_the_belief_follows() {
        let mut belief = Belief::new(Duration::from_millis(4000), Duration::from_millis(1000), at(0), at(1));
        for millis in 0..100_000 {
            belief.wrote(at(millis), at(millis + 1));
            assert!(belief.writes.len() < 20);
        }
        let behind = at(99_999 + 4000).since(belief.safe_until());
        assert!((1000..1300).contains(&behind.as_millis()), "{behind:?}");
    }

    #[test]
    fn the_rhythm_leaves_more_than_half() {
        let timeout = Duration::from_secs(10);
        for apart in [2, 50, 400, 700, 1000, 1700, 2500, 2813].map(Duration::from_millis) {
            let mut belief = Belief::new(timeout, apart, at(0), at(1));
            let mut now = at(1);
            for _ in 0..100 {
                let sent = now + belief.rhythm();
                now = sent + Duration::from_millis(1);
                assert!(belief.left(now) > timeout * 59 / 100, "{apart:?}: {:?}", belief.left(now));
                belief.wrote(sent, now);
                assert!(belief.left(now) > timeout * 2 / 3, "{apart:?}: {:?}", belief.left(now));
            }
            // Whoever wants it fresh has it after a few writes, where that is soon.
            for _ in 0..4 {
                let sent = belief.next_useful(now).max(now);
                now = sent + Duration::from_millis(1);
                belief.wrote(sent, now);
            }
            assert!(belief.left(now) >= belief.fresh(), "{apart:?}");
        }
    }

    #[test]
    fn half_a_tick_is_told_or_bounded_by_the_session_and_never_taken_exactly() {
        let millis = Duration::from_millis;
        assert_eq!(apart(millis(32_000), None), millis(9000));
        assert_eq!(apart(millis(32_000), Some(millis(4000))), millis(2520));
        // The shortest that servers grant, with ticks of 2 s.
        assert!(apart(millis(4000), None) > millis(1000) + millis(20));
    }
}
