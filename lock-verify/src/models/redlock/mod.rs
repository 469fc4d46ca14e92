//! Redlock's two phases: masters that are claimed, and then accept a token; attempts that fail and take back.
//!
//! The rules are those of the `redlock` module of `lock-redis`, its scripts and its ballot, written again: the scripts are Lua.
//! A test notices when they change there. What is modelled:
//!
//! - *Attempts* of one call or of several, for one lock. A call's attempts are made one after the other, until one returns
//!   with a grant. One whose grant came too late to be believed is one that failed and has taken nothing back yet.
//! - *Messages.* A claim, a token to accept, a take-back and a renewal arrive at each master at any time from when they were
//!   sent, in any order, again and again or never, and their answers are heard or not. An attempt hears an answer when it was
//!   given or never: when in between makes no difference to anybody.
//! - *Time* only in what it forbids: see [`RedlockModel::new`]. So stops and crashes are there: nobody has to take a step.
//! - *Clocks* that tokens rise by stand still at all masters, so that they don't hide what the phases do.
//! - What a holder's release does at a master is that its lease ends there.
//!
//! No two calls get one token, whatever comes late, twice or after an early end, because a master accepts a token for one
//! owner only. That it does was found missing here: as long as it accepted any token from its owner, a claim that it ran twice
//! (which happens when it is sent again because its connection died), the second time long after the first, made an
//! owner of somebody whose token another had been granted meanwhile ([`Flaw::AnyTokenAccepted`]). It took tokens that
//! were ahead of the clocks, and delays of the length of whole grants.
//!
//! Left out: jobs' ticks, waking, groups of locks, at-least-for and the grace (a lease's end frees at once), inspection.
//! States that differ only in which master is which, or which of the calls, count once.

mod script;
mod state;
mod step;

use stateright::{Model, Property};

use script::Acceptance;
use state::Attempt;
pub use state::{MOST_ATTEMPTS, MOST_MASTERS, State};
pub use step::Step;

/// A mistake: the model must find that it breaks a law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Each master counts by itself, and the highest of a majority's counts is the token.
    OnePhase,
    /// One master loses its data, and is back before the leases that it knew of have ended.
    ForgetfulMaster,
    /// What a failed attempt claimed is taken back by the owner alone.
    TakenBackByOwner,
    /// A master accepts any token from its owner, also one that it has accepted from another.
    AnyTokenAccepted,
}

impl Flaw {
    /// All of them, with a law that each breaks, the attempts that it takes, and steps of the shortest way there.
    pub const ALL: [(Self, Law, usize, &'static [&'static str]); 5] = [
        (Self::OnePhase, Law::Unique, 3, &["Choose(0)", "Over(0)", "Choose(1)"]),
        (Self::ForgetfulMaster, Law::Unique, 2, &["Return(0)", "LoseData(0)", "Claim(1, 0, true)", "Return(1)"]),
        (Self::ForgetfulMaster, Law::Belief, 2, &["Return(0)", "LoseData(0)", "Claim(1, 0, true)", "Return(1)"]),
        (
            Self::TakenBackByOwner,
            Law::Belief,
            3,
            &["Fail(0)", "Accept(2, 1, true)", "TakeBack(0, 1)", "Return(1)", "Return(2)"],
        ),
        (
            Self::AnyTokenAccepted,
            Law::Unique,
            3,
            &["TakeBack(0, 0)", "Return(1)", "Claim(0, 0, false)", "Accept(0, 0, false)", "Return(2)"],
        ),
    ];

    /// What is wrong, in a few words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::OnePhase => "one phase",
            Self::ForgetfulMaster => "a master lost its data",
            Self::TakenBackByOwner => "taken back by owner alone",
            Self::AnyTokenAccepted => "any token accepted",
        }
    }
}

/// The laws that this model is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// Belief intervals never overlap.
    Belief,
    /// Tokens are unique per grant and rise.
    Fence,
    /// The first half of that by itself: no two calls are granted the lock under one token.
    Unique,
}

/// The model; by itself it is right.
#[derive(Debug)]
pub struct RedlockModel {
    masters: usize,
    attempts: usize,
    claims_repeat: bool,
    ends_early: bool,
    laws: Vec<Law>,
    flaw: Option<Flaw>,
    /// Without the situations that it must reach.
    laws_alone: bool,
}

impl RedlockModel {
    /// So many masters, at most [`MOST_MASTERS`], and so many attempts, at most [`MOST_ATTEMPTS`].
    ///
    /// As far as time goes, a lease at a master doesn't end while an attempt is under way that counted its claim (no phase
    /// may take longer than a quarter of the ttl), nor while a holder believes that counted its acceptance (the lease
    /// arithmetic, which the model of leases is about). Otherwise it may end at any time.
    #[must_use]
    pub fn new(masters: usize, attempts: usize) -> Self {
        Self {
            masters: masters.min(MOST_MASTERS),
            attempts: attempts.min(MOST_ATTEMPTS),
            claims_repeat: true,
            ends_early: false,
            laws: vec![Law::Belief, Law::Fence],
            flaw: None,
            laws_alone: false,
        }
    }

    /// Leases end at any time, as when people take the lock away or a master's clock jumps. Then only tokens matter.
    #[must_use]
    pub fn ends_early(mut self) -> Self {
        (self.ends_early, self.laws) = (true, vec![Law::Fence]);
        self
    }

    /// With a mistake, and only the law that it breaks.
    #[must_use]
    pub fn with_flaw(mut self, flaw: Flaw, law: Law) -> Self {
        (self.flaw, self.laws) = (Some(flaw), vec![law]);
        // What needs no claim to come twice is a mistake by itself. One phase counts by such, and only they bring a token
        // to a master that has it from another.
        self.claims_repeat = matches!(flaw, Flaw::OnePhase | Flaw::AnyTokenAccepted);
        self.laws_alone = true;
        self
    }

    fn acceptance(&self) -> Acceptance {
        let any = self.flaw == Some(Flaw::AnyTokenAccepted);
        if any { Acceptance::OfAnyToken } else { Acceptance::OfHigherTokens }
    }
}

/// Pairs of attempts that returned with a grant, the first of which had when the other began.
fn in_turn(state: &State, wanted: impl Fn(&Attempt, &Attempt) -> bool) -> bool {
    let attempts = &state.attempts;
    attempts.iter().filter(|second| second.has_returned()).any(|second| {
        let before = |at: &usize| second.after & (1 << at) != 0;
        (0..MOST_ATTEMPTS).filter(before).any(|first| wanted(&attempts[first], second))
    })
}

/// Pairs of grants of two owners.
fn of_two(state: &State, wanted: impl Fn(&Attempt, &Attempt) -> bool) -> bool {
    let granted = || state.attempts.iter().filter(|attempt| attempt.has_returned());
    granted().any(|one| granted().any(|other| one.owner < other.owner && wanted(one, other)))
}

impl Law {
    /// How its property's name begins.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Belief => "L1",
            Self::Fence | Self::Unique => "L2",
        }
    }

    fn property(self) -> Property<RedlockModel> {
        match self {
            Self::Belief => Property::always("L1 belief intervals never overlap", |_, state: &State| {
                let believes = |attempt: &Attempt| attempt.phase == state::Phase::Believes;
                !of_two(state, |one, other| believes(one) && believes(other))
            }),
            Self::Unique => Property::always("L2 no two calls get one token", |_, state: &State| {
                !of_two(state, |one, other| one.token == other.token)
            }),
            Self::Fence => Property::always("L2 tokens are unique and rise", |_, state: &State| {
                !of_two(state, |one, other| one.token == other.token)
                    && !in_turn(state, |first, second| first.token >= second.token)
            }),
        }
    }
}

/// Pairs of attempts of one call: one that failed, and one that returned with a grant.
fn again(state: &State, wanted: impl Fn(&Attempt, &Attempt) -> bool) -> bool {
    let failed = |attempt: &&Attempt| attempt.phase == state::Phase::Failed;
    let granted = || state.attempts.iter().filter(|attempt| attempt.has_returned());
    state
        .attempts
        .iter()
        .filter(failed)
        .any(|one| granted().any(|other| one.owner == other.owner && wanted(one, other)))
}

/// A model that can't get there proves nothing.
fn situations(model: &RedlockModel) -> Vec<Property<RedlockModel>> {
    let mut situations = vec![
        Property::sometimes("two calls are granted the lock in turn", |_, state: &State| in_turn(state, |_, _| true)),
        Property::sometimes("who asks again gets the token that was accepted for it", |_, state: &State| {
            again(state, |failed, granted| failed.token == granted.token)
        }),
        Property::sometimes("an attempt fails after its token was accepted somewhere", |_, state: &State| {
            let accepted = |attempt: &Attempt| state.masters.iter().any(|master| master.granted == attempt.token);
            state.attempts.iter().any(|a| a.phase == state::Phase::Failed && a.token > 0 && accepted(a))
        }),
        Property::sometimes("the masters are split among the attempts", |_, state: &State| {
            let owners = state.masters.iter().map(|master| master.owner).filter(|owner| *owner > 0);
            owners.clone().min() < owners.max()
        }),
    ];
    if model.attempts > 2 {
        situations.push(Property::sometimes(
            "who asks again gets a higher token than another got",
            |_, state: &State| {
                of_two(state, |_, _| true)
                    && again(state, |failed, granted| 0 < failed.token && failed.token < granted.token)
            },
        ));
    }
    situations
}

impl Model for RedlockModel {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::BEGINNING]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.possible(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        self.take(&mut next, step);
        Some(next).filter(|next| next != state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let laws = self.laws.iter().map(|law| law.property());
        if self.laws_alone { laws.collect() } else { laws.chain(situations(self)).collect() }
    }
}
