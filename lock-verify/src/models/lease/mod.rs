//! Leases and fences: clients that ask, renew, write, release, fall silent and come back, over a store with a clock.
//!
//! The store's judgement is the core's own ([`Record`](lock_core::Record)), and so are the holder's deadline
//! ([`Timing`](lock_core::Timing)) and the resource's rule ([`admit`](lock_core::admit)). What is modelled around them:
//!
//! - *Calls.* Each acquire call has an owner of its own and shares nothing with the others, so three calls are three clients
//!   with one call each as well as one client that asks three times, or starts again after a crash and has forgotten
//!   everything. Each call picks one of two locks.
//! - *Stops and crashes.* Time goes on in ticks, and nobody has to take a step: who takes none for a while stands still, who
//!   never takes another is dead. (A dead holder is counted as believing until its deadline, which is harder than the law.)
//! - *Messages.* Each request may arrive at any time from when it was sent, again and again, or never; its answer may be
//!   late or lost. So all delays, losses, repetitions and orders are there, and what was applied without an answer.
//! - *Writes.* A holder looks whether its lease is valid and has the resource write. From that look on the write may arrive
//!   at any time: whether the process stood still before it sent it, or the network held it up, makes no difference.
//! - *Clocks.* The clients' go with true time. The store's may gain a tick once, which is what drift and margin allow for.
//!   Its wall clock, for tokens, stands as far back as can be while there is a record.
//! - *Records* without a lease may be swept at any time.
//!
//! States know how long things are from now, and how tokens compare, and nothing absolute, so a search ends though time
//! doesn't: what holds in all states holds for ever. States that differ only in which call, or which lock, is which, count once.
//!
//! Left out: locks that are shared or have permits, queues, ticks of jobs, at-least-for, the grace (the core's record has
//! none), the values that are written, sub-tick times, and how the real guard, keeper and waiter get to these steps; the
//! simulation runs those.

mod flaws;
mod forget;
mod laws;
mod state;
mod step;
mod store;

use stateright::{Model, Property};

pub use flaws::Flaw;
pub use laws::Law;
pub use state::{MOST_CALLS, State};
pub use step::Step;

/// The model; by itself it is right, has all laws as properties, and must reach all situations.
#[derive(Debug)]
pub struct LeaseModel {
    calls: usize,
    locks: u8,
    /// Whether the store may lose its records, and people may take locks away.
    losses: bool,
    laws: Vec<Law>,
    flaw: Option<Flaw>,
    store: store::Store,
    /// Whether what can't matter any more is forgotten.
    forgets: bool,
    /// Whether no request of a stranger changes any record; with a flaw, only what happens is looked at.
    strangers_change_nothing: bool,
}

impl LeaseModel {
    /// So many calls, at most [`MOST_CALLS`], for any of so many locks, at most two.
    #[must_use]
    pub fn new(calls: usize, locks: u8) -> Self {
        let (calls, locks) = (calls.min(MOST_CALLS), locks.clamp(1, 2));
        let store = store::Store::new(None);
        let strangers_change_nothing = store.strangers_change_nothing();
        Self {
            calls,
            locks,
            losses: false,
            laws: Law::ALL.to_vec(),
            flaw: None,
            store,
            forgets: true,
            strangers_change_nothing,
        }
    }

    /// With a mistake, and only the law that it breaks.
    #[must_use]
    pub fn with_flaw(mut self, flaw: Flaw, law: Law) -> Self {
        (self.flaw, self.laws, self.store) = (Some(flaw), vec![law], store::Store::new(Some(flaw)));
        self.remembering()
    }

    /// Without forgetting what can't matter any more: some fifty times the states, and the proof that nothing was forgotten
    /// that does matter.
    #[must_use]
    pub fn remembering(mut self) -> Self {
        self.forgets = false;
        self
    }

    /// With a store that loses what it keeps, and people who take locks away: all laws but the first.
    #[must_use]
    pub fn with_losses(mut self) -> Self {
        self.losses = true;
        self.laws.retain(|law| *law != Law::Belief);
        self
    }
}

impl Model for LeaseModel {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::BEGINNING]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        // What comes after a broken law is of no interest.
        if state.broken.is_none() {
            self.possible(state, steps);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        self.take(&mut next, step);
        if self.forgets {
            next.forget(&self.store);
        }
        next.rank_tokens();
        Some(next).filter(|next| next != state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let laws = self.laws.iter().map(|law| law.property());
        match self.flaw {
            Some(_) => laws.collect(),
            None if self.losses => laws.chain(laws::situations_of_loss()).collect(),
            None => laws.chain(laws::situations(self.calls, self.locks)).collect(),
        }
    }
}
