//! L1: the beliefs of two grants of one exclusive lock never overlap.
//!
//! A grant's belief runs from its acquire's return to the earliest of: its release was called, its last recorded deadline, its
//! loss was told, its process ended. Seen is every pair of which the later one was had while the earlier one was still believed
//! in. Not seen is an overlap within a recorder's own delay, and one through an extension that nobody recorded. Where data was
//! lost, leases were ended from outside or a clock ran wild between the two grants, an overlap is counted as expected. That
//! readers, writers and permits get along is L9's.

use super::{
    facts::Facts,
    finding::{Finding, Law},
    terms::Terms,
};
use crate::history::Effect;

/// Checks L1.
#[must_use]
pub fn belief(facts: &Facts<'_>, _: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Belief, "grants after another of their lock");
    for of_lock in &facts.by_lock {
        let mut longest: Option<usize> = None;
        for &number in of_lock.iter().filter(|number| facts.grants[**number].is_exclusive()) {
            let grant = &facts.grants[number];
            if let Some(before) = longest.map(|longest| &facts.grants[longest]) {
                finding.checked += 1;
                if before.until > grant.got {
                    let excuse = facts.excuse(grant.lock, before.asked, grant.got, &BEYOND);
                    finding.note(excuse, &[before.got_at, before.until_at, grant.got_at], || {
                        let (one, other) = (facts.name(before), facts.name(grant));
                        format!("{other} was had {:?} before {one} had ended", before.until.since(grant.got))
                    });
                }
            }
            if longest.is_none_or(|longest| facts.grants[longest].until < grant.until) {
                longest = Some(number);
            }
        }
    }
    finding
}

/// What can make two grants overlap without anybody's fault.
pub(super) const BEYOND: [Effect; 3] = [Effect::DataLoss, Effect::ClockBeyondBounds, Effect::TakesLeases];
