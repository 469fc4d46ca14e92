//! A state of the world: what the store keeps, what each call knows, what is on its way.

use std::hash::{Hash, Hasher};

use super::laws::Law;

/// The most calls that a model has.
pub const MOST_CALLS: usize = 4;
/// How many locks there are.
pub(super) const LOCKS: usize = 2;

/// Times are ticks from now on, and tokens are numbered by rank among those that still matter: no state remembers how late
/// it is, so that there is an end of them though time has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) calls: [Call; MOST_CALLS],
    pub(super) locks: [Lock; LOCKS],
    /// Whether the store's clock has gained a tick on the clients' already.
    pub(super) gained: bool,
    /// The law that the last step broke.
    pub(super) broken: Option<Law>,
}

/// A lock at the store, and the resource that it protects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) record: Option<Kept>,
    /// The highest token that was ever granted; the store doesn't know it. 0 for none.
    pub(super) highest: u8,
    /// The token of the last write that the resource accepted; 0 for none.
    pub(super) register: u8,
}

/// A [`Record`](lock_core::Record) in small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) token: u8,
    /// For how many ticks the lock is still taken.
    pub(super) left: u8,
    pub(super) owner: Option<u8>,
}

/// One acquire call of one client, and the hold that comes of it. Its messages never vanish: from when it was sent, each may
/// arrive at any time, any number of times, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) lock: u8,
    pub(super) phase: Phase,
    /// The token that the caller was told; 0 for none.
    pub(super) token: u8,
    pub(super) renewal: Renewal,
    /// Whether a renewal was ever sent, and so may arrive.
    pub(super) renew_out: bool,
    pub(super) release_out: bool,
    pub(super) write: Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Idle,
    /// Asks for the lock: how long ago the last attempt was sent, what answer to it is on its way (0 for none), and which
    /// token an earlier attempt had been granted when it was sent (0 for none, or once a tick has passed).
    Asking {
        age: u8,
        reply: u8,
        made: u8,
    },
    /// Believes for so many ticks more.
    Live {
        left: u8,
    },
    Lost,
    Released,
}

/// The renewal that an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Renewal {
    None,
    Sent {
        age: u8,
    },
    /// The answer is on its way.
    Answered {
        age: u8,
        held: bool,
    },
}

/// The write that the holder has the resource make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Write {
    None,
    /// From when the lease was looked at last before it: held up in the process or on the network, nobody knows.
    Sent,
    Refused,
}

impl Call {
    pub(super) const IDLE: Self = Self {
        lock: 0,
        phase: Phase::Idle,
        token: 0,
        renewal: Renewal::None,
        renew_out: false,
        release_out: false,
        write: Write::None,
    };

    pub(super) fn believes(&self) -> bool {
        matches!(self.phase, Phase::Live { .. })
    }

    /// All tokens that it, or a message of it, has.
    fn tokens(&mut self) -> impl Iterator<Item = &mut u8> {
        let (reply, made) = match &mut self.phase {
            Phase::Asking { reply, made, .. } => (Some(reply), Some(made)),
            _ => (None, None),
        };
        std::iter::once(&mut self.token).chain(reply).chain(made)
    }

    /// As one number, without which call it is: 45 bits.
    fn packed(&self, swapped: bool, owns: bool) -> u64 {
        let (phase, one, two, three) = match self.phase {
            Phase::Idle => return 0,
            Phase::Asking { age, reply, made } => (1, age, reply, made),
            Phase::Live { left } => (2, left, 0, 0),
            Phase::Lost => (3, 0, 0, 0),
            Phase::Released => (4, 0, 0, 0),
        };
        let (renewal, age) = match self.renewal {
            Renewal::None => (0, 0),
            Renewal::Sent { age } => (1, age),
            Renewal::Answered { age, held: false } => (2, age),
            Renewal::Answered { age, held: true } => (3, age),
        };
        let lock = self.lock ^ u8::from(swapped);
        let flags = [self.renew_out, self.release_out, owns].map(u8::from);
        let parts = [
            (phase, 3),
            (one, 4),
            (two, 5),
            (three, 5),
            (renewal, 2),
            (age, 4),
            (lock, 1),
            (self.token, 5),
            (flags[0], 1),
            (flags[1], 1),
            (flags[2], 1),
            (self.write as u8, 2),
        ];
        parts.iter().fold(0, |packed, (part, bits)| packed << bits | u64::from(*part))
    }
}

impl Lock {
    fn packed(&self) -> u32 {
        let record = self.record.map_or(0, |kept| {
            // Whose it is stands with the call.
            1 | u32::from(kept.owner.is_some()) << 1 | u32::from(kept.left) << 2 | u32::from(kept.token) << 8
        });
        record | u32::from(self.highest) << 16 | u32::from(self.register) << 24
    }
}

impl State {
    pub(super) const BEGINNING: Self = Self {
        calls: [Call::IDLE; MOST_CALLS],
        locks: [Lock { record: None, highest: 0, register: 0 }; LOCKS],
        gained: false,
        broken: None,
    };

    /// Numbers the tokens of each lock by rank.
    pub(super) fn rank_tokens(&mut self) {
        for (at, lock) in self.locks.iter_mut().enumerate() {
            let mut present = 0_u64;
            let mut each = |visit: &mut dyn FnMut(&mut u8)| {
                visit(&mut lock.highest);
                visit(&mut lock.register);
                lock.record.iter_mut().for_each(|kept| visit(&mut kept.token));
                let calls = self.calls.iter_mut().filter(|call| usize::from(call.lock) == at);
                calls.for_each(|call| call.tokens().for_each(&mut *visit));
            };
            each(&mut |token| present |= 1 << *token);
            // The others of those up to this one; 0 is no token.
            each(&mut |token| *token = ((present & !1) & ((2_u64 << *token) - 1)).count_ones() as u8);
        }
    }

    fn packed(&self, swapped: bool) -> ([u64; MOST_CALLS], [u32; LOCKS]) {
        let mut calls = [0; MOST_CALLS];
        for (at, call) in self.calls.iter().enumerate() {
            let record = self.locks[usize::from(call.lock)].record;
            let owns = record.is_some_and(|kept| kept.owner == Some(at as u8));
            calls[at] = call.packed(swapped, owns);
        }
        calls.sort_unstable();
        let mut locks = self.locks.map(|lock| lock.packed());
        if swapped {
            locks.reverse();
        }
        (calls, locks)
    }
}

/// States that differ only in which call is which, or which lock is which, are one: they have the same future.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.packed(false).min(self.packed(true)).hash(hasher);
        (self.gained, self.broken).hash(hasher);
    }
}
