//! What a check came to.

use std::{collections::BTreeMap, fmt};

/// Which law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    /// L1: beliefs of two grants never overlap.
    Belief,
    /// L2: tokens rise.
    Fence,
    /// L3: a grant keeps its token.
    Stability,
    /// L4: what a resource accepted.
    Resource,
    /// L5: a stale owner changes nothing.
    Strangers,
    /// L6: an unknown outcome ends by itself.
    Doubt,
    /// L7: who waits gets its turn.
    Liveness,
    /// L8: in the order of the queue.
    Order,
    /// L9: never more holders than the mode allows.
    Capacity,
    /// L10: lost is lost.
    Finality,
    /// L11: waiting costs nothing.
    Silence,
    /// All answers together can have come from one lock that served one call after the other.
    Linear,
}

impl Law {
    /// Its number and name, as in `L1 belief`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Belief => "L1 belief",
            Self::Fence => "L2 fence",
            Self::Stability => "L3 stability",
            Self::Resource => "L4 at the resource",
            Self::Strangers => "L5 strangers",
            Self::Doubt => "L6 doubt",
            Self::Liveness => "L7 liveness",
            Self::Order => "L8 order",
            Self::Capacity => "L9 capacity",
            Self::Finality => "L10 finality",
            Self::Silence => "L11 silence",
            Self::Linear => "linearizable",
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which law.
    pub law: Law,
    /// What happened, for people.
    pub told: String,
    /// The fewest events that show it, as places in the history, in order.
    pub events: Vec<usize>,
    /// Why it was to be expected, if it was.
    pub excuse: Option<&'static str>,
}

/// What one law's check came to.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which law.
    pub law: Law,
    /// How many things were checked that could have broken it.
    pub checked: u64,
    /// What kind of things those are.
    pub things: &'static str,
    /// What broke it: the first [`Finding::KEPT`] of [`broken`](Self::broken).
    pub violations: Vec<Violation>,
    /// How often it was broken.
    pub broken: u64,
    /// What broke it where that was to be expected: the first [`Finding::KEPT`] of [`excused`](Self::excused).
    pub expected: Vec<Violation>,
    /// How often that was.
    pub excused: u64,
    /// What couldn't be checked, and how often.
    pub unseen: BTreeMap<&'static str, u64>,
}

impl Finding {
    /// So many violations are kept with their events; beyond them they are counted.
    pub const KEPT: usize = 1_000;

    pub(super) fn new(law: Law, things: &'static str) -> Self {
        Self {
            law,
            checked: 0,
            things,
            violations: Vec::new(),
            broken: 0,
            expected: Vec::new(),
            excused: 0,
            unseen: BTreeMap::new(),
        }
    }

    /// Notes a violation; the text is only made while they are kept.
    pub(super) fn note(&mut self, excuse: Option<&'static str>, events: &[usize], told: impl FnOnce() -> String) {
        let (kept, count) = match excuse {
            Some(_) => (&mut self.expected, &mut self.excused),
            None => (&mut self.violations, &mut self.broken),
        };
        *count += 1;
        if kept.len() < Self::KEPT {
            let mut events = events.to_vec();
            events.sort_unstable();
            events.dedup();
            kept.push(Violation { law: self.law, told: told(), events, excuse });
        }
    }

    pub(super) fn unseen(&mut self, what: &'static str) {
        *self.unseen.entry(what).or_default() += 1;
    }

    /// Whether it was checked, and never broken but where that was to be expected.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.checked > 0 && self.broken == 0
    }
}
