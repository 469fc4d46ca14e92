//! L8: where fairness is asked for and claimed, live waiters are granted in the order in which they queued.
//!
//! Somebody is certainly before another if it was told to stand in line ([`F::Queued`]) before the other one asked. The order of
//! grants is that of their tokens. Seen is whoever was granted before somebody that had certainly queued before it and was
//! granted later, or had to give up later. A waiter that a fault befell may not have been alive all the while, and is left out.
//! Without events of kind `Queued` there is nothing to see.

use std::collections::HashMap;

use lock_core::{FencingToken, Moment};

use super::{
    facts::{Facts, Made},
    finding::{Finding, Law},
    terms::Terms,
};
use crate::history::{Effect, F, Kind, Process, Why};

/// A fair acquire that certainly stood in line.
struct InLine<'f> {
    made: &'f Made,
    queued: Moment,
    token: Option<FencingToken>,
}

/// Checks L8.
#[must_use]
pub fn order(facts: &Facts<'_>, terms: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Order, "fair waiters");
    if !terms.fair {
        return finding;
    }
    let queued = queued(facts);
    for lock in 0..facts.by_lock.len() {
        of_lock(facts, lock, &queued, &mut finding);
    }
    finding
}

/// When each call was first told to stand in line.
fn queued(facts: &Facts<'_>) -> HashMap<usize, Moment> {
    let mut queued = HashMap::new();
    for (at, event) in facts.history.events().iter().enumerate().filter(|(_, event)| event.f == F::Queued) {
        if let Some(call) = facts.history.call_of(at) {
            queued.entry(call.invoke).or_insert(event.time);
        }
    }
    queued
}

fn of_lock(facts: &Facts<'_>, lock: usize, queued: &HashMap<usize, Moment>, finding: &mut Finding) {
    let fair = facts.acquires[lock].iter().map(|call| &facts.calls[*call]);
    let fair: Vec<&Made> = fair.filter(|made| facts.event(made.call.invoke).fair).collect();
    let mut line = Vec::new();
    for made in &fair {
        let Some(queued) = queued.get(&made.call.invoke) else { continue };
        if befallen(facts, made) {
            finding.unseen("fair waiters that a fault befell");
            continue;
        }
        let token = facts.told(made).token.filter(|_| made.outcome == Kind::Ok);
        let gave_up = facts.told(made).why == Some(Why::TimedOut);
        if token.is_some() || gave_up {
            line.push(InLine { made, queued: *queued, token });
        }
    }
    line.sort_by_key(|waiter| waiter.queued);
    let (mut before, mut last_granted, mut last_gone) =
        (line.iter().peekable(), None::<&InLine<'_>>, None::<&InLine<'_>>);
    for made in fair.iter().filter(|made| made.outcome == Kind::Ok) {
        while let Some(earlier) = before.next_if(|earlier| earlier.queued < made.start) {
            if earlier.token.is_none() {
                if last_gone.is_none_or(|last| last.made.end < earlier.made.end) {
                    last_gone = Some(earlier);
                }
            } else if last_granted.is_none_or(|last| last.token < earlier.token) {
                last_granted = Some(earlier);
            }
        }
        if last_granted.is_none() && last_gone.is_none() {
            continue;
        }
        finding.checked += 1;
        let token = facts.told(made).token;
        let passed = last_granted.filter(|earlier| earlier.token > token);
        let passed = passed.or_else(|| last_gone.filter(|earlier| earlier.made.end > made.end));
        if let Some(passed) = passed {
            let excuse = facts.excuse(lock, passed.made.start, made.end, &[Effect::DataLoss]);
            finding.note(excuse, &[passed.made.events(), made.events()].concat(), || {
                let (lock, first) = (facts.locks.name(lock), passed.made.call.process);
                format!("process {} got {lock:?} before process {first}, which had queued before", made.call.process)
            });
        }
    }
}

/// Whether a fault befell the waiter's process, or everybody, while it waited.
fn befallen(facts: &Facts<'_>, made: &Made) -> bool {
    facts.faults.iter().any(|fault| {
        let clients = &facts.event(fault.at).clients;
        let hit = clients.is_empty() || clients.iter().any(|client| made.call.process == Process::Client(*client));
        hit && fault.from <= made.end && made.start <= fault.to
    })
}
