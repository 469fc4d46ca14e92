//! L9: a writer excludes all, readers exclude only writers, a semaphore never has more than N permits out.
//!
//! Seen in the beliefs of the holders, as in L1. A pair of two exclusive grants is L1's and not told again here. Of permits, the
//! N that counts is that of the grant that comes on top. That readers don't exclude readers is not a matter of safety: where
//! they did, L7 would see them wait.

use std::{cmp::Reverse, collections::BinaryHeap, num::NonZeroU32};

use lock_core::Moment;

use super::{
    belief::BEYOND,
    facts::Facts,
    finding::{Finding, Law},
    grants::Grant,
    terms::Terms,
};
use crate::history::Mode;

/// Those who believe at the moment, by the ends of their beliefs.
#[derive(Default)]
struct Out(BinaryHeap<Reverse<(Moment, usize)>>);

impl Out {
    fn drop_until(&mut self, now: Moment) {
        while self.0.peek().is_some_and(|Reverse((until, _))| *until <= now) {
            self.0.pop();
        }
    }

    fn any(&self) -> Option<usize> {
        self.0.peek().map(|Reverse((_, number))| *number)
    }
}

/// Checks L9.
#[must_use]
pub fn capacity(facts: &Facts<'_>, _: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Capacity, "grants of shared locks and semaphores");
    for of_lock in &facts.by_lock {
        if of_lock.iter().all(|number| facts.grants[*number].is_exclusive()) {
            continue;
        }
        let (mut writers, mut readers, mut permits) = (Out::default(), Out::default(), Out::default());
        for &number in of_lock {
            let grant = &facts.grants[number];
            finding.checked += 1;
            for out in [&mut writers, &mut readers, &mut permits] {
                out.drop_until(grant.got);
            }
            let others = match grant.mode {
                Mode::Exclusive => [&readers, &permits],
                Mode::Shared => [&writers, &permits],
                Mode::Permits(of) => {
                    too_many(facts, &permits, grant, of, &mut finding);
                    [&writers, &readers]
                }
            };
            if let Some(other) = others.iter().find_map(|out| out.any()) {
                excluded(facts, &facts.grants[other], grant, &mut finding);
            }
            let out = match grant.mode {
                Mode::Exclusive => &mut writers,
                Mode::Shared => &mut readers,
                Mode::Permits(_) => &mut permits,
            };
            out.0.push(Reverse((grant.until, number)));
        }
    }
    finding
}

fn excluded(facts: &Facts<'_>, other: &Grant, grant: &Grant, finding: &mut Finding) {
    let excuse = facts.excuse(grant.lock, other.asked, grant.got, &BEYOND);
    finding.note(excuse, &[other.got_at, other.until_at, grant.got_at], || {
        let (this, that) = (facts.name(grant), facts.name(other));
        format!("{this} ({}) was had before {that} ({}) had ended", grant.mode, other.mode)
    });
}

fn too_many(facts: &Facts<'_>, permits: &Out, grant: &Grant, of: NonZeroU32, finding: &mut Finding) {
    if permits.0.len() < of.get() as usize {
        return;
    }
    let out = permits.0.iter().map(|Reverse((_, number))| &facts.grants[*number]);
    let events: Vec<usize> = out.clone().map(|other| other.got_at).chain([grant.got_at]).collect();
    let first = out.map(|other| other.asked).min().unwrap_or(grant.asked);
    let excuse = facts.excuse(grant.lock, first, grant.got, &BEYOND);
    finding
        .note(excuse, &events, || format!("{} came on top of {} permits of {of}", facts.name(grant), permits.0.len()));
}
