//! Which process stands in which row.

use std::collections::{BTreeMap, BTreeSet};

use super::shown::Shown;
use crate::{history::Process, laws::Facts};

/// The rows, from above.
#[derive(Debug)]
pub(super) struct Rows {
    rows: BTreeMap<Process, usize>,
    left_out: usize,
}

impl Rows {
    /// Of those that did something in the time that is shown; the ones that are pointed out come before the others get a place.
    pub(super) fn of(facts: &Facts<'_>, shown: &Shown) -> Self {
        let events = facts.history.events();
        let mut wanted: BTreeSet<Process> = shown.pointed_out.iter().map(|at| events[*at].process).collect();
        let first = events.partition_point(|event| event.time < shown.from);
        let seen = events[first..].iter().take_while(|event| event.time <= shown.to);
        let seen: BTreeSet<Process> = seen.filter(|event| shown.shows(event)).map(|event| event.process).collect();
        let holding = facts.grants.iter().filter(|grant| grant.got <= shown.to && grant.until >= shown.from);
        let holding = holding.filter(|grant| shown.shows(facts.event(grant.got_at))).map(|grant| grant.process);
        let mut left_out = 0;
        for process in holding.collect::<BTreeSet<_>>().into_iter().chain(seen) {
            if wanted.len() < Shown::ROWS || wanted.contains(&process) {
                wanted.insert(process);
            } else {
                left_out += 1;
            }
        }
        wanted.remove(&Process::Nemesis);
        Self { rows: wanted.into_iter().zip(0..).collect(), left_out }
    }

    pub(super) fn of_process(&self, process: Process) -> Option<usize> {
        self.rows.get(&process).copied()
    }

    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    pub(super) fn names(&self) -> impl Iterator<Item = String> + use<> {
        self.rows.keys().map(|process| format!("process {process}")).collect::<Vec<_>>().into_iter()
    }
}
