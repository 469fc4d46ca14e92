//! L5: a stale owner's renew or release changes nothing.
//!
//! Seen in what it is answered: once a later exclusive grant of the lock was had, no earlier grant may be renewed or told that it
//! was released. Seen in what it does: a grant that its store no longer had as its holder's before the holder's deadline, or
//! that somebody else got meanwhile, with a stranger's release under way in between. Not seen is a stranger that shortened a
//! lease which nobody then missed. Lost data excuses it, as it may bring an older holder back; so does whatever ends leases
//! from outside.

use super::{
    belief::BEYOND,
    facts::{Facts, Made},
    finding::{Finding, Law},
    grants::Grant,
    terms::Terms,
};
use crate::history::{F, Kind, Why};

/// Checks L5.
#[must_use]
pub fn strangers(facts: &Facts<'_>, _: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Strangers, "calls of stale owners and grants lost to the store");
    let mut by_lock: Vec<Vec<&Made>> = vec![Vec::new(); facts.by_lock.len()];
    for made in facts.calls.iter().filter(|made| matches!(made.call.f, F::Renew | F::Release)) {
        let lock = facts.event(made.call.invoke).lock.as_deref().and_then(|lock| facts.locks.find(lock));
        if let Some(lock) = lock {
            by_lock[lock].push(made);
        }
    }
    for (lock, calls) in by_lock.iter().enumerate() {
        answers(facts, lock, calls, &mut finding);
        effects(facts, lock, calls, &mut finding);
    }
    finding
}

/// `calls` come in the order in which they began.
fn answers(facts: &Facts<'_>, lock: usize, calls: &[&Made], finding: &mut Finding) {
    let exclusive =
        facts.by_lock[lock].iter().map(|number| &facts.grants[*number]).filter(|grant| grant.is_exclusive());
    let (mut before, mut newest) = (exclusive.peekable(), None::<&Grant>);
    for made in calls {
        while let Some(earlier) = before.next_if(|earlier| earlier.got < made.start) {
            if newest.is_none_or(|newest| newest.token < earlier.token) {
                newest = Some(earlier);
            }
        }
        let asked = facts.event(made.call.invoke);
        let stale = newest.filter(|newest| asked.token.is_some_and(|token| token < newest.token));
        let Some(newest) = stale else { continue };
        finding.checked += 1;
        if made.outcome == Kind::Ok {
            let excuse = facts.excuse(lock, newest.asked, made.end, &BEYOND);
            let events = [made.events(), vec![newest.got_at]].concat();
            finding.note(excuse, &events, || {
                let what = if made.call.f == F::Renew { "renewed" } else { "given back" };
                format!(
                    "a grant of process {} was {what} after {} had been made",
                    made.call.process,
                    facts.name(newest)
                )
            });
        }
    }
}

fn effects(facts: &Facts<'_>, lock: usize, calls: &[&Made], finding: &mut Finding) {
    let mut releases: Vec<&Made> = calls.iter().copied().filter(|made| made.call.f == F::Release).collect();
    releases.sort_by_key(|made| made.end);
    let mut taken: Option<&Grant> = None;
    for grant in facts.by_lock[lock].iter().map(|number| &facts.grants[*number]).filter(|grant| grant.is_exclusive()) {
        if let Some(before) = taken.filter(|before| before.until > grant.got) {
            gone(facts, before, grant.got_at, &releases, finding);
        }
        if taken.is_none_or(|taken| taken.until < grant.until) {
            taken = Some(grant);
        }
        if let Some(lost) = grant.lost.filter(|lost| facts.event(*lost).why == Some(Why::NotOurs)) {
            finding.checked += 1;
            gone(facts, grant, lost, &releases, finding);
        }
    }
}

/// `grant` was gone before its time, as the event at `seen_at` shows: had a stranger released it? `releases` come in the order of
/// their ends.
fn gone(facts: &Facts<'_>, grant: &Grant, seen_at: usize, releases: &[&Made], finding: &mut Finding) {
    let seen = facts.event(seen_at).time;
    if seen >= grant.deadline {
        return;
    }
    let first = releases.partition_point(|made| made.end <= grant.got);
    let by_stranger = releases[first..].iter().take_while(|made| made.end <= seen).find(|made| {
        let asked = facts.event(made.call.invoke);
        asked.owner != Some(grant.owner) && asked.token.is_none_or(|token| token < grant.token)
    });
    if let Some(made) = by_stranger {
        let excuse = facts.excuse(grant.lock, grant.asked, seen, &BEYOND);
        let events = [made.events(), vec![grant.got_at, seen_at]].concat();
        finding.note(excuse, &events, || {
            format!("{} was gone before its time, after a release by process {}", facts.name(grant), made.call.process)
        });
    }
}
