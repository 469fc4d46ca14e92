//! The steps that the world can take.

use super::{
    LeaseModel,
    flaws::Flaw,
    laws::Law,
    state::{Call, Kept, Phase, Renewal, State, Write},
    store::{Judged, RENEWAL_TTL, Store, TTL},
};

/// A step; calls and locks are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All clocks go on.
    Tick,
    /// The store's clock gains a tick on the clients'.
    StoreGains,
    /// The record of a lock without a lease is swept.
    Sweep(u8),
    /// The store loses the record of a lock.
    Lose(u8),
    /// Somebody takes a lock away from whoever has it.
    Force(u8),
    /// A call asks for a lock.
    Ask(u8, u8),
    /// It asks again, not having heard.
    AskAgain(u8),
    /// It gives up, and has sent a release without a token.
    GiveUp(u8),
    /// An acquire arrives at the store, and is answered or not.
    AcquireArrives(u8, bool),
    /// The grant is heard.
    TakeUp(u8),
    /// A holder sends a renewal.
    Renew(u8),
    /// A renewal arrives at the store, and is answered or not.
    RenewArrives(u8, bool),
    /// The answer to a renewal is heard.
    HearRenewal(u8),
    /// A holder has sent a release.
    Release(u8),
    /// A release arrives at the store.
    ReleaseArrives(u8),
    /// A holder looks whether its lease is valid, and has the resource write.
    Write(u8),
    /// The write arrives at the resource.
    WriteArrives(u8),
}

impl LeaseModel {
    pub(super) fn possible(&self, state: &State, steps: &mut Vec<Step>) {
        steps.push(Step::Tick);
        if !state.gained && state.locks.iter().any(|lock| lock.record.is_some_and(|kept| kept.left > 0)) {
            steps.push(Step::StoreGains);
        }
        for (at, lock) in (0..self.locks).zip(&state.locks) {
            if self.store.may_sweep(*lock) {
                steps.push(Step::Sweep(at));
            }
            if self.losses && lock.record.is_some_and(|kept| kept.left > 0) {
                steps.extend([Step::Lose(at), Step::Force(at)]);
            }
        }
        let mut idle = true;
        for (at, call) in (0_u8..).zip(&state.calls[..self.calls]) {
            // Those that didn't ask yet are all alike.
            if call.phase != Phase::Idle || std::mem::replace(&mut idle, false) {
                self.possible_for(at, call, steps);
            }
        }
    }

    fn possible_for(&self, at: u8, call: &Call, steps: &mut Vec<Step>) {
        match call.phase {
            Phase::Idle => {
                steps.extend((0..self.locks).map(|lock| Step::Ask(at, lock)));
                return;
            }
            Phase::Asking { reply, .. } => {
                steps.extend([Step::AskAgain(at), Step::GiveUp(at), Step::AcquireArrives(at, true)]);
                if reply > 0 {
                    steps.push(Step::TakeUp(at));
                }
            }
            Phase::Live { .. } => {
                steps.extend([Step::Renew(at), Step::Release(at)]);
                if call.write == Write::None {
                    steps.push(Step::Write(at));
                }
            }
            Phase::Lost | Phase::Released => {}
        }
        steps.push(Step::AcquireArrives(at, false));
        if call.renew_out {
            steps.push(Step::RenewArrives(at, false));
        }
        match call.renewal {
            Renewal::None => {}
            Renewal::Sent { .. } => steps.push(Step::RenewArrives(at, true)),
            Renewal::Answered { .. } => steps.push(Step::HearRenewal(at)),
        }
        if call.release_out {
            steps.push(Step::ReleaseArrives(at));
        }
        if call.write == Write::Sent {
            steps.push(Step::WriteArrives(at));
        }
    }

    pub(super) fn take(&self, state: &mut State, step: Step) {
        match step {
            Step::Tick => {
                state.store_ticks();
                state.calls.iter_mut().for_each(tick);
            }
            Step::StoreGains => {
                state.store_ticks();
                state.gained = true;
            }
            Step::Sweep(lock) | Step::Lose(lock) => state.locks[usize::from(lock)].record = None,
            Step::Force(lock) => {
                let lock = &mut state.locks[usize::from(lock)];
                *lock = Store::force_release(*lock);
            }
            Step::Ask(at, lock) => {
                let asking = Phase::Asking { age: 0, reply: 0, made: 0 };
                state.calls[usize::from(at)] = Call { lock, phase: asking, ..Call::IDLE };
            }
            Step::AskAgain(at) => {
                let made = self.made_for(state, at);
                state.calls[usize::from(at)].phase = Phase::Asking { age: 0, reply: 0, made };
            }
            Step::GiveUp(at) | Step::Release(at) => {
                let call = &mut state.calls[usize::from(at)];
                (call.phase, call.renewal, call.release_out) = (Phase::Released, Renewal::None, true);
            }
            Step::TakeUp(at) => self.take_up(&mut state.calls[usize::from(at)]),
            Step::Renew(at) => {
                let call = &mut state.calls[usize::from(at)];
                (call.renewal, call.renew_out) = (Renewal::Sent { age: 0 }, true);
            }
            Step::HearRenewal(at) => self.hear_renewal(state, at),
            Step::Write(at) => state.calls[usize::from(at)].write = Write::Sent,
            Step::AcquireArrives(at, _)
            | Step::RenewArrives(at, _)
            | Step::ReleaseArrives(at)
            | Step::WriteArrives(at) => self.arrive(state, usize::from(at), step),
        }
    }

    fn arrive(&self, state: &mut State, at: usize, step: Step) {
        let call = &mut state.calls[at];
        let lock = &mut state.locks[usize::from(call.lock)];
        let (name, before) = (call.lock, *lock);
        let broken;
        match step {
            Step::AcquireArrives(_, answered) => {
                let again = matches!(call.phase, Phase::Asking { made, .. } if made > 0);
                let judged = self.store.acquire(name, at, before, again);
                (*lock, broken) = (judged.lock, judged.broken);
                if let (Phase::Asking { reply, .. }, Some(token), true) = (&mut call.phase, judged.answer, answered) {
                    *reply = token;
                }
            }
            Step::RenewArrives(_, answered) => {
                let judged = self.store.renew(name, at, call.token, before);
                (*lock, broken) = (judged.lock, judged.broken);
                if let (Renewal::Sent { age }, true) = (call.renewal, answered) {
                    call.renewal = Renewal::Answered { age, held: judged.answer };
                }
            }
            Step::WriteArrives(_) => {
                let Judged { answer: accepted, lock: after, broken: law } = self.store.write(name, call.token, before);
                (*lock, broken) = (after, law);
                // It would be each time it comes, since a register only rises.
                if !accepted && self.flaw.is_none() {
                    call.write = Write::Refused;
                }
            }
            _ => {
                let judged = self.store.release(name, at, call.token, before);
                (*lock, broken) = (judged.lock, judged.broken);
            }
        }
        state.broken = broken.filter(|law| self.laws.contains(law));
    }

    fn take_up(&self, call: &mut Call) {
        let Phase::Asking { age, reply, made } = call.phase else { return };
        call.phase = match self.store.belief(age, TTL) {
            // The answer came after the lease it grants was over: as good as none.
            0 => Phase::Asking { age, reply: 0, made },
            left => {
                call.token = reply;
                Phase::Live { left }
            }
        };
    }

    /// As the core's lease and keeper do: raised and never lowered, and never again once it has ended.
    fn hear_renewal(&self, state: &mut State, at: u8) {
        let call = &mut state.calls[usize::from(at)];
        let Renewal::Answered { age, held } = std::mem::replace(&mut call.renewal, Renewal::None) else { return };
        let was = call.phase;
        let extended = self.store.belief(age, RENEWAL_TTL);
        match call.phase {
            Phase::Live { left } if held => call.phase = Phase::Live { left: left.max(extended) },
            Phase::Live { .. } => call.phase = Phase::Lost,
            // Nobody is to wait for a ttl that nobody believes in.
            Phase::Lost if held => {
                call.release_out = true;
                if self.flaw == Some(Flaw::LateRenewalRevives) && extended > 0 {
                    call.phase = Phase::Live { left: extended };
                }
            }
            _ => {}
        }
        let (revived, at_an_end) = (call.believes(), matches!(was, Phase::Lost | Phase::Released));
        state.broken = (revived && at_an_end).then_some(Law::Finality);
    }

    /// The token that an earlier attempt of this call was granted, if the store has it so now.
    fn made_for(&self, state: &State, at: u8) -> u8 {
        let record = state.locks[usize::from(state.calls[usize::from(at)].lock)].record;
        let its = |kept: &Kept| kept.left > 0 && kept.owner == Some(self.store.owner(usize::from(at)));
        record.filter(its).map_or(0, |kept| kept.token)
    }
}

impl State {
    fn store_ticks(&mut self) {
        let kept = self.locks.iter_mut().filter_map(|lock| lock.record.as_mut());
        kept.for_each(|kept| kept.left = kept.left.saturating_sub(1));
    }
}

fn older(age: u8) -> u8 {
    (age + 1).min(TTL)
}

/// A tick for a client: what is older than any belief can be is just old.
fn tick(call: &mut Call) {
    match &mut call.phase {
        Phase::Asking { age, made, .. } => (*age, *made) = (older(*age), 0),
        Phase::Live { left: 1 } => call.phase = Phase::Lost,
        Phase::Live { left } => *left -= 1,
        _ => {}
    }
    if let Renewal::Sent { age } | Renewal::Answered { age, .. } = &mut call.renewal {
        *age = older(*age);
    }
    // It was seen.
    if call.write == Write::Refused && call.token == 0 {
        call.write = Write::None;
    }
}
