//! What can't matter any more is forgotten, so that states which differ only in that are one.
//!
//! It rests on the model being right (a stranger's message changes nothing), so it is not done where there is a flaw; that
//! strangers change nothing is checked for all records and all requests apart ([`Store::strangers_change_nothing`]).

use super::{
    state::{Call, Lock, Phase, Renewal, State, Write},
    store::{RENEWAL_TTL, Store, TTL},
};

impl State {
    pub(super) fn forget(&mut self, store: &Store) {
        for at in 0..self.calls.len() {
            let lock = self.locks[usize::from(self.calls[at].lock)];
            self.calls[at].forget(lock, store);
        }
        for (at, lock) in self.locks.iter_mut().enumerate() {
            let calls = self.calls.iter().filter(|call| usize::from(call.lock) == at);
            let writers = calls.clone().filter(|call| call.may_write());
            let lowest = writers.map(|call| call.lowest_to_come(lock)).min().unwrap_or(u8::MAX);
            // Refuses nobody that is still to come.
            if lowest >= lock.register {
                lock.register = 0;
            }
            // The wall clock has gone beyond it.
            if lock.record.is_none() {
                lock.highest = calls.map(Call::highest).max().unwrap_or(0).max(lock.register);
            }
        }
    }
}

impl Call {
    fn forget(&mut self, lock: Lock, store: &Store) {
        // A grant that is over at the store stays so: nothing that is said of it will be heard.
        let over = !lock.record.is_some_and(|kept| kept.left > 0 && kept.token == self.token);
        if self.token > 0 && over {
            (self.renew_out, self.release_out) = (false, false);
            if matches!(self.phase, Phase::Lost | Phase::Released) {
                self.renewal = Renewal::None;
                if self.write != Write::Sent {
                    (self.phase, self.token) = (Phase::Released, 0);
                }
            }
        }
        // That a renewal raises nothing is all there is to know of it.
        let left = match self.phase {
            Phase::Live { left } => left,
            _ => u8::MAX,
        };
        if let Renewal::Sent { age } | Renewal::Answered { age, .. } = &mut self.renewal
            && store.belief(*age, RENEWAL_TTL) <= left
        {
            *age = TTL;
        }
        if let Phase::Asking { age, .. } = &mut self.phase
            && store.belief(*age, TTL) == 0
        {
            *age = TTL;
        }
    }

    fn may_write(&self) -> bool {
        match self.phase {
            Phase::Idle => false,
            Phase::Asking { .. } => true,
            Phase::Live { .. } => self.write != Write::Refused,
            Phase::Lost | Phase::Released => self.write == Write::Sent,
        }
    }

    /// The lowest token that it may still write with.
    fn lowest_to_come(&self, lock: &Lock) -> u8 {
        match self.phase {
            // What it is told next is the record's token at least.
            Phase::Asking { reply: 0, .. } => lock.record.map_or(u8::MAX, |kept| kept.token),
            Phase::Asking { reply, .. } => reply,
            _ => self.token,
        }
    }

    fn highest(&self) -> u8 {
        match self.phase {
            Phase::Asking { reply, made, .. } => reply.max(made),
            _ => self.token,
        }
    }
}
