//! What of a history is to be drawn.

use std::{collections::BTreeSet, time::Duration};

use lock_core::Moment;

use crate::{
    history::{Event, Process},
    laws::{Facts, Violation},
};

/// A part of a history, and what to point out in it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What the picture shows, for people.
    pub title: String,
    /// From when.
    pub from: Moment,
    /// To when.
    pub to: Moment,
    /// The places of the events to point out.
    pub pointed_out: Vec<usize>,
    /// Only these clients, if any are named; at most [`Shown::ROWS`] of those that did something are drawn.
    pub only: BTreeSet<u32>,
    /// Only this lock and this resource, if one is named.
    pub subject: Option<Subject>,
}

/// What a violation is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The lock.
    pub lock: Option<String>,
    /// The resource.
    pub resource: Option<String>,
}

impl Shown {
    /// So many clients are drawn.
    pub const ROWS: usize = 24;

    /// The beginning of a history: so many events.
    #[must_use]
    pub fn beginning(facts: &Facts<'_>, events: usize) -> Self {
        let all = facts.history.events();
        let time = |at: usize| all.get(at).map_or(Moment::from_nanos(0), |event| event.time);
        let last = events.min(all.len()).saturating_sub(1);
        let title = if last + 1 < all.len() {
            format!("the first {} of {} events", last + 1, all.len())
        } else {
            format!("all {} events", all.len())
        };
        Self { title, from: time(0), to: time(last), pointed_out: Vec::new(), only: BTreeSet::new(), subject: None }
    }

    /// A violation's events, and a third of their time before and after: of its lock or resource alone. The grants that they
    /// speak of are shown from their beginning, unless that is very long before.
    #[must_use]
    pub fn violation(facts: &Facts<'_>, violation: &Violation) -> Self {
        let events: Vec<&Event> = violation.events.iter().map(|at| facts.event(*at)).collect();
        let first = events.first().map_or(Moment::from_nanos(0), |event| event.time);
        let last = events.last().map_or(facts.last, |event| event.time);
        let begun = begun(facts, &events).filter(|begun| first.since(*begun) < last.since(first) * 10);
        let first = begun.unwrap_or(first).min(first);
        let around = (last.since(first) / 3).max(Duration::from_micros(1));
        let subject = Subject {
            lock: events.iter().find_map(|event| event.lock.as_deref()).map(str::to_owned),
            resource: events.iter().find_map(|event| event.resource.as_deref()).map(str::to_owned),
        };
        Self {
            title: format!("{}: {}", violation.law, violation.told),
            from: first - around,
            to: last + around,
            pointed_out: violation.events.clone(),
            only: BTreeSet::new(),
            subject: Some(subject),
        }
    }

    /// Whether this event is to be seen.
    pub(super) fn shows(&self, event: &Event) -> bool {
        let client = match event.process {
            Process::Client(client) => self.only.is_empty() || self.only.contains(&client),
            Process::Nemesis => true,
        };
        let of = |wanted: Option<&str>, is: Option<&str>| wanted.is_none() || is.is_none() || wanted == is;
        let about = self.subject.as_ref().is_none_or(|subject| {
            of(subject.lock.as_deref(), event.lock.as_deref())
                && of(subject.resource.as_deref(), event.resource.as_deref())
        });
        client && about
    }
}

/// When the first of the grants that these events speak of was had.
fn begun(facts: &Facts<'_>, events: &[&Event]) -> Option<Moment> {
    let of = |event: &&Event| {
        let lock = facts.locks.find(event.lock.as_deref()?)?;
        let grants = facts.by_lock[lock].iter().map(|number| &facts.grants[*number]);
        grants
            .filter(|grant| Some(grant.token) == event.token && grant.process == event.process)
            .map(|grant| grant.got)
            .min()
    };
    events.iter().filter_map(of).min()
}
