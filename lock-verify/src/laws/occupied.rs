//! Who may have a lock at its store, at the most.
//!
//! What the holders' own beliefs are to the laws of safety, this is to the laws about a lock that ought to be free: a span in
//! which it *may* have been taken, never shorter than the true one.

use lock_core::{Moment, OwnerId};

use super::{
    facts::{Facts, Made},
    terms::Terms,
};
use crate::history::{Event, F, Kind, Why};

/// The spans of one lock, for asking whether anybody may have had it at some time.
#[derive(Debug)]
pub(super) struct Occupied {
    /// In the order of their beginnings, each with the two latest ends so far, of different owners.
    spans: Vec<(Moment, Latest)>,
}

/// The two latest ends, of different owners.
type Latest = [Option<(Moment, Option<OwnerId>)>; 2];

impl Occupied {
    pub(super) fn of(facts: &Facts<'_>, terms: &Terms, lock: usize) -> Self {
        let mut spans: Vec<(Moment, Moment, Option<OwnerId>)> = Vec::new();
        for grant in facts.by_lock[lock].iter().map(|number| &facts.grants[*number]) {
            let released = grant.release.map(|call| &facts.calls[call]).filter(|made| made.outcome == Kind::Ok);
            let to = released.map_or_else(
                || grant.last_asked(facts) + terms.afterlife(grant.ttl),
                |made| made.end + facts.told(made).keep_for.unwrap_or_default() + terms.grace,
            );
            spans.push((grant.asked, to, Some(grant.owner)));
        }
        for made in facts.acquires[lock].iter().map(|call| &facts.calls[*call]) {
            let asked = facts.event(made.call.invoke);
            let calm = facts.calm_after(made);
            // One in doubt may have got it, and so may the double of one that met a fault, and one that was given up, for a
            // moment; one in line keeps its place for a while after it was last asked for.
            let in_line = asked.fair || asked.wait.is_some();
            if made.outcome == Kind::Info || calm > made.end || in_line || is_given_up(facts.told(made)) {
                let to = calm + terms.afterlife(asked.ttl.unwrap_or_default());
                spans.push((made.start, to, owner(facts, made)));
            }
        }
        spans.sort_by_key(|(from, ..)| *from);
        let mut latest = [None, None];
        let spans = spans.into_iter().map(|(from, to, owner)| {
            latest = later(latest, to, owner);
            (from, latest)
        });
        Self { spans: spans.collect() }
    }

    /// Whether anybody but this owner may have had it at some moment from `from` to `to`.
    pub(super) fn by_another(&self, from: Moment, to: Moment, than: Option<OwnerId>) -> bool {
        let begun = self.spans.partition_point(|(start, _)| *start <= to);
        let Some((_, latest)) = begun.checked_sub(1).map(|last| self.spans[last]) else { return false };
        latest.iter().flatten().any(|(end, owner)| *end >= from && (owner.is_none() || *owner != than))
    }
}

fn later([first, second]: Latest, to: Moment, owner: Option<OwnerId>) -> Latest {
    let new = Some((to, owner));
    match first {
        Some((end, of)) if of == owner => [Some((end.max(to), of)), second],
        Some((end, _)) if end >= to => [first, second.filter(|(end, _)| *end >= to).or(new)],
        _ => [new, first],
    }
}

/// Whose call it is, as far as it is known.
pub(super) fn owner(facts: &Facts<'_>, made: &Made) -> Option<OwnerId> {
    facts.event(made.call.invoke).owner.or(facts.told(made).owner)
}

/// Whether this event refuses a lock because somebody has it.
pub(super) fn is_refused(event: &Event) -> bool {
    event.f == F::Acquire && event.kind == Kind::Fail && event.why == Some(Why::Held)
}

/// Whether this event ends an acquire that the store may have granted for a moment, until its client took that back.
pub(super) fn is_given_up(event: &Event) -> bool {
    let by_client = matches!(event.why, Some(Why::TimedOut | Why::Cancelled | Why::Error));
    event.f == F::Acquire && event.kind == Kind::Fail && by_client
}
