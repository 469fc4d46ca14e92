//! What a history says, put together once for all laws.

use std::{collections::HashMap, sync::Arc};

use lock_core::Moment;

use super::{
    grants::{self, Grant},
    terms::{Terms, Window},
};
use crate::history::{Call, Effect, Event, F, History, Kind, Process};

/// A history's calls, grants and faults, by lock.
#[derive(Debug)]
pub struct Facts<'h> {
    pub(super) history: &'h History,
    /// One per call of the history, in its order.
    pub(super) calls: Vec<Made>,
    pub(super) locks: Locks,
    pub(super) grants: Vec<Grant>,
    /// The grants of each lock, in the order in which they were got.
    pub(super) by_lock: Vec<Vec<usize>>,
    /// The acquire calls of each lock, in the order in which they began.
    pub(super) acquires: Vec<Vec<usize>>,
    pub(super) faults: Vec<Fault>,
    /// When there was any fault: stretches apart from each other, in order.
    trouble: Vec<(Moment, Moment)>,
    windows: Vec<Window>,
    forced: Vec<Vec<Moment>>,
    /// The last event's time.
    pub(super) last: Moment,
}

/// A call as it came out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) call: Call,
    pub(super) start: Moment,
    /// When it returned; else when its process ended, or the history.
    pub(super) end: Moment,
    /// `Info` for calls that never returned.
    pub(super) outcome: Kind,
}

/// A fault's time.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) from: Moment,
    pub(super) to: Moment,
    /// Its place in the history.
    pub(super) at: usize,
}

/// The locks' names, numbered.
#[derive(Debug, Default)]
pub(super) struct Locks {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, usize>,
}

impl Locks {
    pub(super) fn number(&mut self, name: &Arc<str>) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        self.names.push(name.clone());
        self.numbers.insert(name.clone(), self.names.len() - 1);
        self.names.len() - 1
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name(&self, number: usize) -> &str {
        &self.names[number]
    }

    pub(super) fn count(&self) -> usize {
        self.names.len()
    }
}

impl<'h> Facts<'h> {
    /// Puts them together.
    #[must_use]
    pub fn new(history: &'h History, terms: &Terms) -> Self {
        let events = history.events();
        let last = events.last().map_or(Moment::from_nanos(0), |event| event.time);
        let mut exits = HashMap::new();
        let mut locks = Locks::default();
        for (at, event) in events.iter().enumerate() {
            if event.f == F::Exit {
                exits.entry(event.process).or_insert((event.time, at));
            }
            event.lock.as_ref().map(|lock| locks.number(lock));
        }
        let calls: Vec<Made> = history.calls().iter().map(|call| made(events, *call, &exits, last)).collect();
        let grants = grants::grants(history, &calls, &mut locks, &exits, terms);
        let mut by_lock = vec![Vec::new(); locks.count()];
        for (number, grant) in grants.iter().enumerate() {
            by_lock[grant.lock].push(number);
        }
        let mut acquires = vec![Vec::new(); locks.count()];
        let mut forced = vec![Vec::new(); locks.count()];
        for (number, made) in calls.iter().enumerate() {
            let lock = events[made.call.invoke].lock.as_deref().and_then(|lock| locks.find(lock));
            match (lock, made.call.f) {
                (Some(lock), F::Acquire) => acquires[lock].push(number),
                // It may be applied at any time from its beginning on.
                (Some(lock), F::ForceRelease) if made.outcome != Kind::Fail => {
                    forced[lock].extend([made.start, made.end]);
                }
                _ => {}
            }
        }
        let faults = faults(history, &calls);
        let told = faults.iter().filter_map(|fault| {
            let end = history.call_of(fault.at).and_then(|call| call.end);
            let effect = events[fault.at].effect.or_else(|| events[end?].effect)?;
            Some(Window { from: fault.from, to: fault.to, effect })
        });
        let trouble = merged(&faults);
        let windows = terms.windows.iter().copied().chain(told).collect();
        Self { history, calls, locks, grants, by_lock, acquires, faults, trouble, windows, forced, last }
    }

    /// All grants, in the order in which they were had.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Why what happened to a lock between two moments may be outside the laws' conditions, if one of these effects was at work.
    pub(super) fn excuse(&self, lock: usize, from: Moment, to: Moment, by: &[Effect]) -> Option<&'static str> {
        let met = |effect| self.met(effect, from, to);
        if by.contains(&Effect::DataLoss) && met(Effect::DataLoss) {
            return Some("the store may have lost data");
        }
        if by.contains(&Effect::ClockBeyondBounds) && met(Effect::ClockBeyondBounds) {
            return Some("a clock was beyond its bounds");
        }
        if by.contains(&Effect::TakesLeases) {
            if met(Effect::TakesLeases) {
                return Some("leases were ended from outside");
            }
            // Forced releases of a lock are recorded in pairs: when it began and when it had returned.
            if self.forced[lock].chunks(2).any(|span| span[0] <= to && from <= span[1]) {
                return Some("it was released by force");
            }
        }
        None
    }

    /// Whether this effect was at work between two moments.
    pub(super) fn met(&self, effect: Effect, from: Moment, to: Moment) -> bool {
        self.windows.iter().any(|window| window.effect == effect && window.from <= to && from <= window.to)
    }

    /// When nothing of a call is under way any more for sure: messages that met a fault may be held up, and doubled, until it ends.
    pub(super) fn calm_after(&self, made: &Made) -> Moment {
        let begun = self.trouble.partition_point(|(from, _)| *from <= made.end);
        let last = begun.checked_sub(1).map(|last| self.trouble[last]);
        last.filter(|(_, to)| *to >= made.start).map_or(made.end, |(_, to)| to.max(made.end))
    }

    /// Whether there was a fault at some moment from `from` to `to`.
    pub(super) fn is_troubled(&self, from: Moment, to: Moment) -> bool {
        let begun = self.trouble.partition_point(|(start, _)| *start <= to);
        begun.checked_sub(1).is_some_and(|last| self.trouble[last].1 >= from)
    }

    /// When the last fault had ended; the history's beginning if there was none.
    pub(super) fn healed(&self) -> Moment {
        self.faults.iter().map(|fault| fault.to).max().unwrap_or(Moment::from_nanos(0))
    }

    pub(super) fn event(&self, at: usize) -> &'h Event {
        &self.history.events()[at]
    }

    /// The event that tells most of a call: its end, or its beginning if it never ended.
    pub(super) fn told(&self, made: &Made) -> &'h Event {
        self.event(made.call.end.unwrap_or(made.call.invoke))
    }

    /// `lock`, `token` and holder of a grant, for people.
    pub(super) fn name(&self, grant: &Grant) -> String {
        format!("the grant {} of {:?} to process {}", grant.token, self.locks.name(grant.lock), grant.process)
    }
}

impl Made {
    /// The places of its events.
    pub(super) fn events(&self) -> Vec<usize> {
        std::iter::once(self.call.invoke).chain(self.call.end).collect()
    }
}

fn made(events: &[Event], call: Call, exits: &HashMap<Process, (Moment, usize)>, last: Moment) -> Made {
    let start = events[call.invoke].time;
    let (end, outcome) = match call.end {
        Some(end) => (events[end].time, events[end].kind),
        None => (exits.get(&call.process).map_or(last, |(time, _)| *time).max(start), Kind::Info),
    };
    Made { call, start, end, outcome }
}

fn merged(faults: &[Fault]) -> Vec<(Moment, Moment)> {
    let mut spans: Vec<(Moment, Moment)> = faults.iter().map(|fault| (fault.from, fault.to)).collect();
    spans.sort_unstable();
    let mut merged: Vec<(Moment, Moment)> = Vec::new();
    for (from, to) in spans {
        match merged.last_mut().filter(|(_, end)| *end >= from) {
            Some((_, end)) => *end = to.max(*end),
            None => merged.push((from, to)),
        }
    }
    merged
}

fn faults(history: &History, calls: &[Made]) -> Vec<Fault> {
    let lasting = calls.iter().filter(|made| made.call.f == F::Fault);
    let lasting = lasting.map(|made| Fault { from: made.start, to: made.end, at: made.call.invoke });
    let events = history.events().iter().enumerate();
    let single = events.filter(|(at, event)| event.f == F::Fault && history.call_of(*at).is_none());
    lasting.chain(single.map(|(at, event)| Fault { from: event.time, to: event.time, at })).collect()
}
