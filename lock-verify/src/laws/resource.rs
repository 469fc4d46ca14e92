//! L4: of the writes that a resource accepted, the tokens never fall; acknowledged ones are all there, exactly once; nothing
//! is there that nobody attempted; refused ones are not there.
//!
//! Two ways to see it. In real time: a write or a raise that was accepted although one with a higher token had been accepted
//! before it was begun. And in the resource's own order: the last read of each resource, if there is one, is compared with
//! all attempts. Earlier reads are not compared, and what was acknowledged after that read was begun need not be in it. A write
//! with an unknown outcome may be there or not. Nothing excuses anything here, lost locks least of all; only a resource that
//! lost its *own* data would, and those of the runs don't.

use std::collections::HashMap;

use lock_core::FencingToken;

use super::{
    facts::{Facts, Made},
    finding::{Finding, Law},
    terms::Terms,
};
use crate::history::{Entry, F, Kind};

/// What was tried at one resource, and read there last.
#[derive(Default)]
struct Tried<'a> {
    changes: Vec<&'a Made>,
    read: Option<&'a Made>,
}

/// Checks L4.
#[must_use]
pub fn resource(facts: &Facts<'_>, _: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Resource, "writes");
    let mut tried: HashMap<&str, Tried<'_>> = HashMap::new();
    for made in &facts.calls {
        let Some(resource) = facts.event(made.call.invoke).resource.as_deref() else { continue };
        let tried = tried.entry(resource).or_default();
        match made.call.f {
            F::Write | F::Raise => tried.changes.push(made),
            F::Read if made.outcome == Kind::Ok => tried.read = Some(made),
            _ => {}
        }
    }
    let mut tried: Vec<_> = tried.into_iter().collect();
    tried.sort_by_key(|(name, _)| *name);
    for (name, tried) in tried {
        in_time(facts, name, &tried, &mut finding);
        if let Some(read) = tried.read {
            in_order(facts, name, read, &mut finding);
            complete(facts, name, &tried, read, &mut finding);
        } else {
            finding.unseen("resources that were never read");
        }
    }
    finding
}

/// Never lower than what had been accepted before it was begun.
fn in_time(facts: &Facts<'_>, name: &str, tried: &Tried<'_>, finding: &mut Finding) {
    let accepted: Vec<&Made> = tried.changes.iter().copied().filter(|made| made.outcome == Kind::Ok).collect();
    let mut by_end = accepted.clone();
    by_end.sort_by_key(|made| made.end);
    let (mut before, mut highest) = (by_end.into_iter().peekable(), None::<&Made>);
    for made in accepted {
        while let Some(earlier) = before.next_if(|earlier| earlier.end < made.start) {
            if highest.is_none_or(|highest| token(facts, highest) < token(facts, earlier)) {
                highest = Some(earlier);
            }
        }
        finding.checked += 1;
        if let Some(highest) = highest.filter(|highest| token(facts, highest) > token(facts, made)) {
            let events = [highest.events(), made.events()].concat();
            finding.note(None, &events, || {
                let (high, low) = (token(facts, highest), token(facts, made));
                format!("{name:?} accepted a write under {low}, begun after one under {high} had been accepted")
            });
        }
    }
}

/// In the resource's own order the tokens never fall.
fn in_order(facts: &Facts<'_>, name: &str, read: &Made, finding: &mut Finding) {
    let entries = facts.told(read).entries.as_deref().unwrap_or_default();
    finding.checked += entries.len() as u64;
    let mut highest: Option<Entry> = None;
    for entry in entries {
        if let Some(Entry(high, value)) = highest.filter(|highest| highest.0 > entry.0) {
            finding.note(None, &read.events(), || {
                format!("{name:?} has {} under {} after {value} under {high}", entry.1, entry.0)
            });
        }
        if highest.is_none_or(|highest| highest.0 < entry.0) {
            highest = Some(*entry);
        }
    }
}

/// How often an entry was attempted, acknowledged, and found.
#[derive(Default)]
struct Counts<'a> {
    possible: u64,
    acknowledged: u64,
    refused: u64,
    found: u64,
    last: Option<&'a Made>,
}

/// What is there is what was acknowledged, once, and at most what was attempted.
fn complete(facts: &Facts<'_>, name: &str, tried: &Tried<'_>, read: &Made, finding: &mut Finding) {
    let mut counts: HashMap<Entry, Counts<'_>> = HashMap::new();
    let mut order = Vec::new();
    for made in tried.changes.iter().filter(|made| made.call.f == F::Write) {
        let Some(value) = facts.event(made.call.invoke).value else { continue };
        let entry = Entry(token(facts, made), value);
        let counts = counts.entry(entry).or_insert_with(|| {
            order.push(entry);
            Counts::default()
        });
        counts.possible += u64::from(made.outcome != Kind::Fail);
        counts.refused += u64::from(made.outcome == Kind::Fail);
        counts.acknowledged += u64::from(made.outcome == Kind::Ok && made.end <= read.start);
        counts.last = Some(made);
    }
    for entry in facts.told(read).entries.as_deref().unwrap_or_default() {
        match counts.get_mut(entry) {
            Some(counts) => counts.found += 1,
            None => finding.note(None, &read.events(), || {
                format!("{name:?} has {} under {}, which nobody attempted", entry.1, entry.0)
            }),
        }
    }
    for entry in order {
        let Some(Counts { possible, acknowledged, refused, found, last }) = counts.remove(&entry) else { continue };
        let what = if found < acknowledged {
            "was acknowledged and is not there"
        } else if found > possible && refused > 0 {
            "was refused and is there"
        } else if found > possible {
            "is there more often than it was written"
        } else {
            continue;
        };
        let events = [last.map(Made::events).unwrap_or_default(), read.events()].concat();
        finding.note(None, &events, || format!("{} under {} {what}: {name:?}", entry.1, entry.0));
    }
}

fn token(facts: &Facts<'_>, made: &Made) -> FencingToken {
    facts.event(made.call.invoke).token.unwrap_or(FencingToken::new(0))
}
