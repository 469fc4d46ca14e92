//! What is searched, in which size, and what is to come of it.

use std::time::Duration;

use super::{
    lease::{self, LeaseModel},
    redlock::{self, RedlockModel},
    search::Search,
};

/// How much of the world is in the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For each change: two calls where the full form has three, two attempts where it has three, three masters where it has
    /// five. All laws and situations are in it, and all mistakes but one.
    Small,
    /// For a release build: what is told in the documentation.
    Full,
}

/// One search, and what is to come of it.
pub struct Case {
    /// Which model, with what in it.
    pub name: String,
    /// What is to be found.
    pub expected: Expected,
    search: Run,
}

/// By the case's name, with so many threads, broken off after so long.
type Run = Box<dyn FnOnce(&str, usize, Duration) -> Search + Send>;

/// What a search is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// All laws hold in so many states at least: a model that has shrunk by mistake proves less than it says.
    Clean {
        /// Somewhat below what is there.
        states: usize,
    },
    /// This law is broken, by a way with these steps in this order.
    Broken {
        /// How the property's name begins.
        law: &'static str,
        /// The steps that it takes.
        by: &'static [&'static str],
    },
}

impl Case {
    /// Runs the search with so many threads, and breaks it off when `within` is over.
    pub fn run(self, threads: usize, within: Duration) -> (Search, Result<(), String>) {
        let search = (self.search)(&self.name, threads, within);
        let judged = self.expected.judge(&search);
        (search, judged)
    }

    fn new<M>(name: String, expected: Expected, model: M) -> Self
    where
        M: stateright::Model + Send + Sync + 'static,
        M::State: std::hash::Hash + Send + Sync + Clone + PartialEq + 'static,
        M::Action: Clone + PartialEq + std::fmt::Debug,
    {
        // One thread finds the shortest way, and the same each time.
        let alone = matches!(expected, Expected::Broken { .. });
        let search = move |name: &str, threads: usize, within: Duration| {
            Search::run(name, model, if alone { 1 } else { threads }, within)
        };
        Self { name, expected, search: Box::new(search) }
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl Expected {
    /// Whether that is what was found.
    ///
    /// # Errors
    /// What else was found, in words.
    pub fn judge(self, search: &Search) -> Result<(), String> {
        match (self, search.broken.first()) {
            (Self::Clean { .. }, Some(found)) => Err(format!("{} is broken by {:?}", found.property, found.path)),
            (Self::Clean { .. }, None) if !search.finished => Err(format!("broken off after {} states", search.states)),
            (Self::Clean { .. }, None) if !search.unseen.is_empty() => Err(format!("never seen: {:?}", search.unseen)),
            (Self::Clean { states }, None) if search.states < states => {
                Err(format!("only {} states, which have to be {states} at least", search.states))
            }
            (Self::Clean { .. }, None) => Ok(()),
            (Self::Broken { law, .. }, None) => Err(format!("{law} was not seen broken in {} states", search.states)),
            (Self::Broken { law, by }, Some(found)) => {
                // A subsequence: the iterator goes on from where each was found.
                let mut path = found.path.iter();
                let shown = by.iter().all(|step| path.any(|taken| taken == step));
                let right = shown && found.property.starts_with(law);
                right.then_some(()).ok_or_else(|| format!("{} is broken by {:?}", found.property, found.path))
            }
        }
    }
}

/// All searches of this size.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let mut cases = lease_cases(size);
    cases.extend(redlock_cases(size));
    cases
}

fn lease_cases(size: Size) -> Vec<Case> {
    let clean = |name: &str, states, model| Case::new(format!("lease: {name}"), Expected::Clean { states }, model);
    let mut cases = match size {
        Size::Small => vec![
            clean("2 calls, 2 locks", 40_000, LeaseModel::new(2, 2)),
            clean("2 calls, 1 lock, nothing forgotten", 40_000, LeaseModel::new(2, 1).remembering()),
            clean("2 calls, 1 lock, a store that loses data", 45_000, LeaseModel::new(2, 1).with_losses()),
        ],
        Size::Full => vec![
            clean("3 calls, 2 locks", 900_000, LeaseModel::new(3, 2)),
            clean("4 calls, 1 lock", 190_000, LeaseModel::new(4, 1)),
            clean("3 calls, 1 lock, nothing forgotten", 1_700_000, LeaseModel::new(3, 1).remembering()),
            clean("2 calls, 1 lock, a store that loses data", 45_000, LeaseModel::new(2, 1).with_losses()),
        ],
    };
    cases.extend(lease::Flaw::ALL.map(|(flaw, law, by)| {
        let name = format!("lease, wrong: {}", flaw.words());
        // Two whose belief overlaps, and in one case a third that lets them.
        let calls = if (flaw, law) == (lease::Flaw::ReleaseByName, lease::Law::Belief) { 3 } else { 2 };
        Case::new(name, Expected::Broken { law: law.name(), by }, LeaseModel::new(calls, 1).with_flaw(flaw, law))
    }));
    cases
}

fn redlock_cases(size: Size) -> Vec<Case> {
    let clean = |name: &str, states, model| Case::new(format!("redlock: {name}"), Expected::Clean { states }, model);
    let mut cases = match size {
        Size::Small => vec![
            clean("3 masters, 2 attempts", 20_000, RedlockModel::new(3, 2)),
            clean("3 masters, 2 attempts, leases end early", 150_000, RedlockModel::new(3, 2).ends_early()),
        ],
        Size::Full => vec![
            clean("3 masters, 3 attempts", 1_450_000, RedlockModel::new(3, 3)),
            clean("5 masters, 2 attempts", 1_000_000, RedlockModel::new(5, 2)),
            clean("3 masters, 2 attempts, leases end early", 150_000, RedlockModel::new(3, 2).ends_early()),
        ],
    };
    // Two take more states than a debug build looks at in seconds.
    let many = [redlock::Flaw::TakenBackByOwner, redlock::Flaw::AnyTokenAccepted];
    let flaws = redlock::Flaw::ALL.into_iter().filter(|(flaw, ..)| size == Size::Full || !many.contains(flaw));
    cases.extend(flaws.map(|(flaw, law, attempts, by)| {
        let name = format!("redlock, wrong: {}", flaw.words());
        Case::new(name, Expected::Broken { law: law.name(), by }, RedlockModel::new(3, attempts).with_flaw(flaw, law))
    }));
    let flaw = redlock::Flaw::AnyTokenAccepted;
    cases.push(Case::new(
        format!("redlock, wrong: {}, a lease ends early", flaw.words()),
        Expected::Broken {
            law: "L2",
            by: &["Claim(0, 1, true)", "End(1)", "Claim(0, 1, false)", "Accept(0, 1, true)"],
        },
        RedlockModel::new(3, 2).ends_early().with_flaw(flaw, redlock::Law::Unique),
    ));
    cases
}
