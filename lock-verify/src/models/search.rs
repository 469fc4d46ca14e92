//! Running a model to its end, and what came of it.

use std::{fmt, hash::Hash, time::Duration};

use lock_core::{Clock, SystemClock};
use stateright::{Checker, Expectation, Model};

/// What a search through all states of a model found.
#[derive(Clone, Debug)]
pub struct Search {
    /// Which model, and how much of the world is in it.
    pub model: String,
    /// How many states there are, those counted once that only differ in what doesn't matter (see the models' modules).
    pub states: usize,
    /// How many steps were tried.
    pub steps: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Whether it came to the end, and wasn't broken off.
    pub finished: bool,
    /// The laws that don't hold, each with a way to where it is broken.
    pub broken: Vec<Found>,
    /// The situations that were looked for and seen, each with a way there.
    pub seen: Vec<Found>,
    /// The situations that were looked for in vain: a model without them proves less than it says.
    pub unseen: Vec<&'static str>,
}

/// A law that is broken or a situation that is reached, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The property's name.
    pub property: &'static str,
    /// The steps that lead there from the beginning, in words.
    pub path: Vec<String>,
}

impl Search {
    /// Goes through all states of `model` with so many threads; it stops early only if each property was decided, or when
    /// `within` is over.
    ///
    /// With one thread the ways are shortest ways, and the same each time, for a model with a single property.
    ///
    /// # Panics
    /// If the model panics.
    pub fn run<M>(name: impl Into<String>, model: M, threads: usize, within: Duration) -> Self
    where
        M: Model + Send + Sync + 'static,
        M::State: Hash + Send + Sync + Clone + PartialEq + 'static,
        M::Action: Clone + PartialEq + fmt::Debug,
    {
        let properties = model.properties();
        let begun = SystemClock.now();
        let checker = model.checker().threads(threads).timeout(within).spawn_bfs().join();
        let time = SystemClock.now().since(begun);
        let mut found: Vec<(&'static str, Vec<String>)> = checker
            .discoveries()
            .into_iter()
            .map(|(property, path)| (property, path.into_actions().iter().map(|step| format!("{step:?}")).collect()))
            .collect();
        found.sort();
        let mut search = Self {
            model: name.into(),
            states: checker.unique_state_count(),
            steps: checker.state_count(),
            depth: checker.max_depth(),
            time,
            finished: time < within,
            broken: Vec::new(),
            seen: Vec::new(),
            unseen: Vec::new(),
        };
        for property in properties {
            let path = found.iter().find(|(name, _)| *name == property.name).map(|(_, path)| path.clone());
            let found = path.map(|path| Found { property: property.name, path });
            match (property.expectation, found) {
                (Expectation::Sometimes, None) => search.unseen.push(property.name),
                (Expectation::Sometimes, Some(found)) => search.seen.push(found),
                (_, found) => search.broken.extend(found),
            }
        }
        search
    }

    /// Whether all states were looked at, all laws hold in them, and all that was looked for was seen.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.finished && self.broken.is_empty() && self.unseen.is_empty()
    }
}
