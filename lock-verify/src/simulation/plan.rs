//! What a seed stands for: how large a run is, and what goes wrong in it.

use std::{num::NonZeroUsize, time::Duration};

use lock_core::{Capabilities, KeptBy, Wake};

use super::{chance::Chance, faults::Kind};

/// Everything about a run but the dice that fall while it runs.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    /// Locks that all contend for.
    pub(super) locks: usize,
    /// Tasks of each node.
    pub(super) tasks: usize,
    /// Things that each node does.
    pub(super) deeds: u32,
    pub(super) ttls: [Duration; 2],
    /// Clock rates: the store's and the nodes'.
    pub(super) rates: Vec<i64>,
    /// Delays of messages, from and to, in nanoseconds.
    pub(super) delay: (u64, u64),
    /// How many of a million messages are late, and how late.
    pub(super) late: (u64, u64),
    /// How many of a million requests get lost, replies get lost, requests arrive twice.
    pub(super) lost: u64,
    pub(super) reply_lost: u64,
    pub(super) doubled: u64,
    /// How long a node waits for a reply.
    pub(super) patience: Duration,
    /// Looks at the clock between two stops in the midst of a step, and the longest stop.
    pub(super) stops: (u64, u64),
    /// What else goes wrong, and how far apart on average.
    pub(super) mischief: Vec<Kind>,
    pub(super) between_mischief: u64,
    /// How many times in all subscriptions are cut, in a run in which nothing else goes wrong.
    pub(super) cuts: u32,
    /// When all is well again.
    pub(super) heals_at: u64,
    /// In percent: how many holds are long, how much is thought between two steps.
    pub(super) long_holds: u64,
    pub(super) think: Duration,
    grouping: Option<NonZeroUsize>,
    wake: Wake,
    minimum_hold: KeptBy,
}

const MS: u64 = 1_000_000;

impl Plan {
    pub(super) fn of(chance: &mut Chance) -> Self {
        let nodes = chance.pick(&[2, 2, 3, 3, 4]);
        let locks = chance.pick(&[1, 1, 2, 3]);
        let tasks = chance.pick(&[1, 2, 2, 3, 5]);
        let deeds = chance.between(15, 50) as u32;
        let ttl = Duration::from_millis(chance.pick(&[100, 300, 1000, 3000]));
        let ttls = [ttl, ttl * chance.pick(&[1, 1, 2, 4])];
        // One run in four is calm: nothing goes wrong but what always does (delays, rates), and the bounds are strict.
        let calm = chance.percent(25);
        // One in four of those has its subscriptions cut and nothing else: what is missed meanwhile must be made good.
        let cuts = if calm && chance.percent(25) { 2 } else { 0 };
        // Within the bound: no two of them differ by more than 1 %.
        let rate = |chance: &mut Chance| match chance.below(4) {
            0 => -4_950,
            1 => 4_950,
            _ => chance.between(0, 9_900) as i64 - 4_950,
        };
        let rates = (0..=nodes).map(|_| rate(chance)).collect();
        let slow = MS * chance.pick(&[1, 1, 2, 4]);
        let odds = |chance: &mut Chance, of: &[u64]| if calm { 0 } else { chance.pick(of) };
        let ttl_nanos = super::chance::nanos(ttl);
        let mischief = Kind::ALL.into_iter().filter(|_| !calm && chance.percent(40));
        let mut mischief: Vec<Kind> = mischief.collect();
        if mischief.contains(&Kind::StoreClockBack) {
            // A record that is gone and a clock that went back is more than tokens promise to survive.
            mischief.retain(|kind| *kind != Kind::Deleted);
        }
        Self {
            nodes,
            locks,
            tasks,
            deeds,
            ttls,
            rates,
            delay: (slow / 20, slow),
            late: (odds(chance, &[0, 0, 10_000, 50_000]), ttl_nanos * chance.pick(&[1, 2])),
            lost: odds(chance, &[0, 0, 20_000, 100_000]),
            reply_lost: odds(chance, &[0, 20_000, 100_000]),
            doubled: odds(chance, &[0, 0, 50_000]),
            patience: ttl.mul_f64(chance.pick(&[0.2, 0.5, 1.0])),
            stops: (odds(chance, &[0, 0, 100, 500]), ttl_nanos * chance.pick(&[1, 2])),
            between_mischief: ttl_nanos * chance.pick(&[1, 3]) / 3,
            heals_at: if calm { 0 } else { ttl_nanos * chance.between(3, 20) },
            mischief,
            cuts,
            long_holds: chance.pick(&[0, 2, 10]),
            think: Duration::from_nanos(chance.pick(&[MS / 10, MS, 5 * MS])),
            grouping: NonZeroUsize::new(chance.pick(&[0, 0, 2, 100])),
            wake: match chance.below(5) {
                0 => Wake::Poll(Duration::from_millis(chance.between(10, 60))),
                _ => Wake::Event,
            },
            minimum_hold: if chance.percent(30) { KeptBy::Process } else { KeptBy::Store },
        }
    }

    /// A node notices after this time at the latest that its subscription was cut.
    pub(super) const NOTICED_AFTER: u64 = 500 * MS;

    /// The memory store's own, seen through a network.
    pub(super) fn capabilities(&self, of: &Capabilities) -> Capabilities {
        let mut can = of.clone();
        can.grouping = self.grouping;
        can.wake = self.wake;
        can.minimum_hold = self.minimum_hold;
        can
    }

    /// Whether nothing goes wrong.
    pub(super) fn is_calm(&self) -> bool {
        self.heals_at == 0
    }

    pub(super) fn longest_ttl(&self) -> Duration {
        self.ttls[0].max(self.ttls[1])
    }

    /// How long a lock may lie idle after a release while somebody waits for it and all is well: its wake-up, a question
    /// and its answer, and once more for one that crossed it on the way.
    pub(super) fn idle_at_most(&self) -> u64 {
        let polls = if let Wake::Poll(every) = self.wake { super::chance::nanos(every) } else { 0 };
        // Until a cut is noticed, and a subscription tried for again.
        let cut = if self.cuts == 0 { 0 } else { Self::NOTICED_AFTER + 250 * MS };
        10 * self.delay.1 + 10 * MS + polls + cut
    }

    /// How long in any other case, as law 7 has it: the ttl, or the safety net of a second, an answer that doesn't come, and
    /// a pause after that.
    pub(super) fn idle_by_law(&self) -> u64 {
        let net = self.longest_ttl().max(Duration::from_secs(1));
        super::chance::nanos(net + self.patience * 2 + Duration::from_secs(1)) * 102 / 100 + self.idle_at_most()
    }
}
