//! A state of the world: what each master keeps, and how far each attempt is.

use std::hash::{Hash, Hasher};

/// The most masters that a model has.
pub const MOST_MASTERS: usize = 5;
/// The most attempts that a model has.
pub const MOST_ATTEMPTS: usize = 3;

/// How the masters and the attempts stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) masters: [Master; MOST_MASTERS],
    pub(super) attempts: [Attempt; MOST_ATTEMPTS],
    /// Whether a master has lost its data already.
    pub(super) lost: bool,
}

/// The record of the lock at one master. Only a live lease has an owner: all that the scripts read of one that is over is
/// the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Master {
    /// 0 for nobody.
    pub(super) owner: u8,
    /// The number of the attempt that claimed it; 0 from when no attempt takes it back any more.
    pub(super) attempt: u8,
    /// The last token that was accepted; 0 for none.
    pub(super) token: u8,
    /// The token that was accepted for this very owner; 0 for none.
    pub(super) granted: u8,
}

/// One attempt of one acquire call. Its messages never vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) owner: u8,
    pub(super) phase: Phase,
    /// The token that was chosen; 0 for none.
    pub(super) token: u8,
    /// Which attempts had returned with a grant when it began, a bit each.
    pub(super) after: u8,
    /// Whether a master told of a token accepted for this owner before.
    pub(super) was_granted: bool,
    pub(super) at: [At; MOST_MASTERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Claiming,
    Accepting,
    Failed,
    /// Returned with a grant, and believes in it.
    Believes,
    /// Returned with a grant once.
    Over,
}

/// What an attempt has to do with one master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    /// Whether its claim was delivered, where that is done once only.
    pub(super) spent: bool,
    /// Whether its claim was heard of, and what of: the master's last token and the one granted to this owner, until the
    /// token is chosen.
    pub(super) counted: bool,
    pub(super) last: u8,
    pub(super) granted: u8,
    /// Whether its acceptance was heard of.
    pub(super) accepted: bool,
}

impl Attempt {
    pub(super) const IDLE: Self = Self {
        owner: 0,
        phase: Phase::Idle,
        token: 0,
        after: 0,
        was_granted: false,
        at: [At { spent: false, counted: false, last: 0, granted: 0, accepted: false }; MOST_MASTERS],
    };

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Claiming | Phase::Accepting)
    }

    /// Whether it was told that it has the lock, now or once.
    pub(super) fn has_returned(&self) -> bool {
        matches!(self.phase, Phase::Believes | Phase::Over)
    }

    pub(super) fn count(&self, what: impl Fn(&At) -> bool) -> usize {
        self.at.iter().filter(|at| what(at)).count()
    }

    /// What can't matter any more is forgotten.
    pub(super) fn forget(&mut self) {
        let (chosen, ended) = (self.token > 0, matches!(self.phase, Phase::Failed | Phase::Over));
        // Of those that tell of no token of this owner the highest last token counts.
        let plain = |at: &&mut At| at.counted && at.granted == 0;
        let last = self.at.iter_mut().filter(plain).map(|at| at.last).max().unwrap_or(0);
        self.at.iter_mut().filter(plain).for_each(|at| at.last = last);
        // An attempt that ended hears nothing, and was compared with those before it.
        if ended {
            self.after = 0;
        }
        self.was_granted &= self.is_under_way() || self.phase == Phase::Failed;
        for at in &mut self.at {
            if chosen || ended {
                (at.last, at.granted) = (0, 0);
            }
            if ended {
                at.accepted = false;
                at.counted &= chosen;
            }
        }
    }
}

impl State {
    /// The state with the attempts in another order, as numbers: one for each master and one for each attempt, those of the
    /// masters sorted. `None` if that order isn't one in which they can be: those of one call stay in turn.
    fn packed(&self, order: [usize; MOST_ATTEMPTS]) -> Option<([u64; MOST_MASTERS], [u32; MOST_ATTEMPTS])> {
        // By the places they have now, the places that they get.
        let mut places = [0; MOST_ATTEMPTS];
        order.iter().enumerate().for_each(|(place, attempt)| places[*attempt] = place);
        let mut owners = [0; MOST_ATTEMPTS + 1];
        for (at, attempt) in self.attempts.iter().enumerate() {
            let owner = &mut owners[usize::from(attempt.owner)];
            match attempt.phase {
                Phase::Idle if places[at] != at => return None,
                Phase::Idle => {}
                // As their place rises, the place of the call's first is the lowest.
                _ if *owner == 0 => *owner = places[at] as u8 + 1,
                _ if self.attempts[..at]
                    .iter()
                    .zip(places)
                    .any(|(a, p)| a.owner == attempt.owner && p > places[at]) =>
                {
                    return None;
                }
                _ => {}
            }
        }
        let mut columns = [0; MOST_MASTERS];
        for (column, (at, master)) in columns.iter_mut().zip(self.masters.iter().enumerate()) {
            let number = match master.attempt {
                0 => 0,
                attempt => places[usize::from(attempt) - 1] as u8 + 1,
            };
            let record = [(owners[usize::from(master.owner)], 2), (number, 2), (master.token, 4), (master.granted, 4)];
            *column = pack(0, record);
            for attempt in order {
                let At { spent, counted, last, granted, accepted } = self.attempts[attempt].at[at];
                let flags = u8::from(spent) << 2 | u8::from(counted) << 1 | u8::from(accepted);
                *column = pack(*column, [(flags, 3), (last, 4), (granted, 4)]);
            }
        }
        columns.sort_unstable();
        let attempts = order.map(|attempt| {
            let Attempt { owner, phase, token, after, was_granted, .. } = self.attempts[attempt];
            let after = (0..MOST_ATTEMPTS).filter(|at| after & (1 << at) != 0).fold(0, |all, at| all | 1 << places[at]);
            let rest = [(phase as u8, 3), (token, 4), (after, 3), (u8::from(was_granted), 1)];
            pack(u64::from(owners[usize::from(owner)]), rest) as u32
        });
        Some((columns, attempts))
    }

    pub(super) const BEGINNING: Self = Self {
        masters: [Master { owner: 0, attempt: 0, token: 0, granted: 0 }; MOST_MASTERS],
        attempts: [Attempt::IDLE; MOST_ATTEMPTS],
        lost: false,
    };
}

fn pack<const PARTS: usize>(before: u64, parts: [(u8, u32); PARTS]) -> u64 {
    parts.iter().fold(before, |packed, (part, bits)| packed << bits | u64::from(*part))
}

const ORDERS: [[usize; MOST_ATTEMPTS]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// States that differ only in which master is which, or which of the calls, are one: they have the same future.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        ORDERS.iter().filter_map(|order| self.packed(*order)).min().hash(hasher);
        self.lost.hash(hasher);
    }
}
