//! L6: an acquire whose outcome is unknown leaves the lock free again within ttl + grace, and a retry by the same owner gets
//! the grant if it was made.
//!
//! Seen in who is refused: an acquire that is told "held" at a time when nobody can have the lock any more, all grants, doubtful
//! calls and places in line counted for as long as they may last; a retry that is told "held" when nobody but its own earlier try
//! can have it; and a look from outside that still finds the doubtful owner. A retry that comes back with another token than
//! a look had seen is seen as well. Not seen: a lock that stays taken and that nobody asks for (who waits for it is
//! L7's). The bound is generous by [`Terms::settle`], for messages that were long under way.

use std::collections::HashMap;

use super::{
    facts::{Facts, Made},
    finding::{Finding, Law},
    occupied::{Occupied, is_refused, owner},
    terms::Terms,
};
use crate::history::{Effect, F, Kind};

/// Checks L6.
#[must_use]
pub fn doubt(facts: &Facts<'_>, terms: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Doubt, "doubtful acquires");
    for lock in 0..facts.by_lock.len() {
        let doubts: Vec<&Made> =
            acquires(facts, lock).filter(|made| made.outcome == Kind::Info && made.end < facts.last).collect();
        if !doubts.is_empty() {
            ended(facts, lock, &doubts, &mut finding);
            refusals(facts, terms, lock, &doubts, &mut finding);
        }
    }
    looks(facts, terms, &mut finding);
    finding
}

fn acquires<'f>(facts: &'f Facts<'_>, lock: usize) -> impl Iterator<Item = &'f Made> {
    facts.acquires[lock].iter().map(|call| &facts.calls[*call])
}

/// A doubt was checked if somebody got the lock afterwards: whoever that was, it had come free, or was got by the retry.
fn ended(facts: &Facts<'_>, lock: usize, doubts: &[&Made], finding: &mut Finding) {
    let last_got = facts.by_lock[lock].last().map(|number| facts.grants[*number].got);
    for doubt in doubts {
        if last_got.is_some_and(|got| got > doubt.end) {
            finding.checked += 1;
        } else {
            finding.unseen("doubtful acquires after which nobody got the lock");
        }
    }
}

/// Nobody is refused when nobody, or nobody else, can have it.
fn refusals(facts: &Facts<'_>, terms: &Terms, lock: usize, doubts: &[&Made], finding: &mut Finding) {
    let occupied = Occupied::of(facts, terms, lock);
    let mut by_end = doubts.to_vec();
    by_end.sort_by_key(|doubt| doubt.end);
    for made in acquires(facts, lock).filter(|made| is_refused(facts.told(made))) {
        let asker = owner(facts, made);
        let before = &by_end[..by_end.partition_point(|doubt| doubt.end <= made.start)];
        let Some(latest) = before.last() else { continue };
        let nobody = !occupied.by_another(made.start, made.end, None);
        let only_itself = asker.is_some() && !occupied.by_another(made.start, made.end, asker);
        if !nobody && !only_itself {
            continue;
        }
        // Of a retry the doubt is its owner's own.
        let doubt = if nobody { Some(latest) } else { before.iter().rfind(|doubt| owner(facts, doubt) == asker) };
        let Some(doubt) = doubt else { continue };
        let excuse = facts.excuse(lock, doubt.start, made.end, &[Effect::ClockBeyondBounds]);
        finding.note(excuse, &[doubt.events(), made.events()].concat(), || {
            let (whose, lock) = (doubt.call.process, facts.locks.name(lock));
            let by = if nobody { "though nobody can have it" } else { "though only its own first try can have it" };
            format!(
                "after a doubtful acquire of process {whose}, process {} was refused {lock:?} {by}",
                made.call.process
            )
        });
    }
}

/// What looks from outside saw of doubtful owners.
fn looks(facts: &Facts<'_>, terms: &Terms, finding: &mut Finding) {
    // The last doubtful call of each owner, and what was seen of it since.
    let mut doubts: HashMap<_, &Made> = HashMap::new();
    let mut seen: HashMap<_, (&Made, lock_core::FencingToken)> = HashMap::new();
    for made in &facts.calls {
        let event = facts.told(made);
        let Some(lock) = event.lock.as_deref().and_then(|lock| facts.locks.find(lock)) else { continue };
        let Some(owner) = event.owner else { continue };
        match made.call.f {
            F::Acquire if made.outcome == Kind::Info => {
                doubts.insert((lock, owner), made);
            }
            F::Acquire if made.outcome == Kind::Ok => {
                doubts.remove(&(lock, owner));
                let Some((look, token)) = seen.remove(&(lock, owner)) else { continue };
                if event.token.is_some_and(|got| got != token) && made.end <= look.start + event.ttl.unwrap_or_default()
                {
                    let excuse = facts.excuse(lock, look.start, made.end, &super::belief::BEYOND);
                    finding.note(excuse, &[look.events(), made.events()].concat(), || {
                        format!(
                            "a retry of process {} did not get the grant {token} that had been made",
                            made.call.process
                        )
                    });
                }
            }
            F::Inspect if event.held == Some(true) => {
                let Some(doubt) = doubts.get(&(lock, owner)) else { continue };
                if let Some(token) = event.token {
                    seen.insert((lock, owner), (made, token));
                }
                let ttl = facts.event(doubt.call.invoke).ttl.unwrap_or_default();
                if made.start > doubt.end + terms.afterlife(ttl) {
                    let excuse = facts.excuse(lock, doubt.start, made.end, &[Effect::ClockBeyondBounds]);
                    finding.note(excuse, &[doubt.events(), made.events()].concat(), || {
                        format!("a doubtful acquire of process {} still has the lock", doubt.call.process)
                    });
                }
            }
            _ => {}
        }
    }
}
