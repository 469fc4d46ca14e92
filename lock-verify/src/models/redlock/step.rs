//! The steps that the world can take.

use super::{
    Flaw, RedlockModel,
    script::choose,
    state::{At, Attempt, Master, Phase, State},
};

/// A step; attempts and masters are counted from 0, owners from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An attempt begins, for this owner.
    Begin(u8, u8),
    /// Its claim arrives at a master, and is heard of or not.
    Claim(u8, u8, bool),
    /// It has a majority, and chooses a token.
    Choose(u8),
    /// Its token arrives at a master, and the acceptance is heard of or not.
    Accept(u8, u8, bool),
    /// It returns with a grant.
    Return(u8),
    /// It gives up, and has sent word to take back what it claimed.
    Fail(u8),
    /// That word arrives at a master.
    TakeBack(u8, u8),
    /// A renewal of its grant arrives at a master.
    Renew(u8, u8),
    /// Its holder doesn't believe any more: released, or at its deadline.
    Over(u8),
    /// The lease ends at a master.
    End(u8),
    /// A master loses its data, and is back at once.
    LoseData(u8),
}

impl RedlockModel {
    fn quorum(&self) -> usize {
        self.masters / 2 + 1
    }

    pub(super) fn possible(&self, state: &State, steps: &mut Vec<Step>) {
        let masters = 0..self.masters as u8;
        for (a, attempt) in (0_u8..).zip(&state.attempts[..self.attempts]) {
            match attempt.phase {
                Phase::Idle => {
                    self.possible_owners(state, a, steps);
                    // They begin in order.
                    break;
                }
                Phase::Claiming => {
                    if attempt.count(|at| at.counted) >= self.quorum() {
                        steps.push(Step::Choose(a));
                    }
                    steps.push(Step::Fail(a));
                }
                Phase::Accepting => {
                    if attempt.count(|at| at.accepted) >= self.quorum() {
                        steps.push(Step::Return(a));
                    }
                    steps.push(Step::Fail(a));
                }
                Phase::Believes => steps.push(Step::Over(a)),
                Phase::Failed | Phase::Over => {}
            }
            for m in masters.clone() {
                self.possible_at(attempt, a, m, steps);
            }
        }
        for m in masters {
            if self.may_end(state, usize::from(m)) {
                steps.push(Step::End(m));
            }
            if self.flaw == Some(Flaw::ForgetfulMaster) && !state.lost {
                steps.push(Step::LoseData(m));
            }
        }
    }

    /// A new call's, or that of a call whose attempts have all failed; one that had a grant and found it too late is among these.
    fn possible_owners(&self, state: &State, a: u8, steps: &mut Vec<Step>) {
        steps.push(Step::Begin(a, a + 1));
        for owner in 1..=a {
            let mut its = state.attempts.iter().filter(|attempt| attempt.owner == owner).peekable();
            if its.peek().is_some() && its.all(|attempt| attempt.phase == Phase::Failed) {
                steps.push(Step::Begin(a, owner));
            }
        }
    }

    fn possible_at(&self, attempt: &Attempt, a: u8, m: u8, steps: &mut Vec<Step>) {
        let At { spent, counted, accepted, .. } = attempt.at[usize::from(m)];
        if attempt.phase == Phase::Claiming && !spent && !counted {
            steps.push(Step::Claim(a, m, true));
        }
        // One that isn't heard of makes the call the owner where its token may be accepted late, or noted by a renewal.
        // Anywhere else it is as if it hadn't arrived: it only keeps others out until the lease ends there.
        let counts = self.flaw == Some(Flaw::OnePhase);
        if !spent && (attempt.token > 0 && counted || attempt.has_returned() || counts) {
            steps.push(Step::Claim(a, m, false));
        }
        if attempt.token > 0 && counted {
            steps.push(Step::Accept(a, m, false));
            if attempt.phase == Phase::Accepting && !accepted {
                steps.push(Step::Accept(a, m, true));
            }
        }
        match attempt.phase {
            // What an earlier attempt of the same owner was granted isn't touched.
            Phase::Failed if !attempt.was_granted => steps.push(Step::TakeBack(a, m)),
            Phase::Believes | Phase::Over => steps.push(Step::Renew(a, m)),
            _ => {}
        }
    }

    /// Whether the lease may end at this master: no phase lasts longer than a quarter of the ttl, so not while an attempt
    /// that counts on it is under way; and a holder's belief ends before its majority's leases do.
    fn may_end(&self, state: &State, m: usize) -> bool {
        let owner = state.masters[m].owner;
        let counts_on_it = |attempt: &Attempt| {
            let At { counted, accepted, .. } = attempt.at[m];
            attempt.owner == owner
                && (attempt.is_under_way() && counted || attempt.phase == Phase::Believes && accepted)
        };
        owner > 0 && (self.ends_early || !state.attempts.iter().any(counts_on_it))
    }

    pub(super) fn take(&self, state: &mut State, step: Step) {
        let (masters, attempts) = (&mut state.masters, &mut state.attempts);
        match step {
            Step::Begin(a, owner) => {
                let after = (0..MAX).filter(|b| attempts[*b].has_returned()).fold(0, |after, b| after | 1 << b);
                attempts[usize::from(a)] = Attempt { owner, phase: Phase::Claiming, after, ..Attempt::IDLE };
            }
            Step::Claim(a, m, heard) => {
                self.claim(&mut attempts[usize::from(a)], a, usize::from(m), &mut masters[usize::from(m)], heard);
            }
            Step::Choose(a) => {
                let attempt = &mut attempts[usize::from(a)];
                let counted = attempt.at.iter().filter(|at| at.counted);
                if self.flaw == Some(Flaw::OnePhase) {
                    attempt.token = counted.map(|at| at.last).max().unwrap_or(0);
                    attempt.at.iter_mut().for_each(|at| at.accepted = at.counted);
                    attempt.phase = Phase::Believes;
                } else {
                    attempt.token = choose(counted);
                    attempt.phase = Phase::Accepting;
                }
            }
            Step::Accept(a, m, heard) => {
                let attempt = &mut attempts[usize::from(a)];
                let (owner, token) = (attempt.owner, attempt.token);
                let yes = masters[usize::from(m)].accept(owner, a + 1, token, self.acceptance());
                attempt.at[usize::from(m)].accepted |= yes && heard;
            }
            Step::Return(a) => attempts[usize::from(a)].phase = Phase::Believes,
            Step::Fail(a) => attempts[usize::from(a)].phase = Phase::Failed,
            Step::TakeBack(a, m) => {
                let number = Some(a + 1).filter(|_| self.flaw != Some(Flaw::TakenBackByOwner));
                masters[usize::from(m)].take_back(attempts[usize::from(a)].owner, number);
            }
            Step::Renew(a, m) => {
                let Attempt { owner, token, .. } = attempts[usize::from(a)];
                masters[usize::from(m)].renew(owner, token);
            }
            Step::Over(a) => attempts[usize::from(a)].phase = Phase::Over,
            Step::End(m) => masters[usize::from(m)].end(),
            Step::LoseData(m) => {
                masters[usize::from(m)] = Master::FREE;
                state.lost = true;
            }
        }
        state.attempts.iter_mut().for_each(Attempt::forget);
    }

    fn claim(&self, attempt: &mut Attempt, a: u8, m: usize, master: &mut Master, heard: bool) {
        attempt.at[m].spent = !self.claims_repeat;
        let new = master.owner != attempt.owner;
        let Some((mut last, granted)) = master.claim(attempt.owner, a + 1) else { return };
        if self.flaw == Some(Flaw::OnePhase) {
            master.token += u8::from(new);
            last = master.token;
        }
        if heard {
            let at = &mut attempt.at[m];
            (at.counted, at.last, at.granted) = (true, last, granted);
            attempt.was_granted |= granted > 0;
        }
    }
}

const MAX: usize = super::state::MOST_ATTEMPTS;
