//! L7: after the faults have ended, each waiter gets the lock, or its time-out, within ttl + grace + one poll after its turn.
//!
//! A waiter's turn has come when nothing is known that keeps the lock from it: no grant is believed in, none is kept taken after
//! its release, no other call is in doubt. Then somebody must get it within the bound; a longer stretch is a lost wake-up, and
//! is told with the first waiter that sat through it. A waiter that comes back later than its time-out and the bound is told
//! too. Not seen: a waiter that is passed over while others are served (that is L8's, where it is claimed), and a permit that
//! stays free while others are out. The bound has [`Terms::settle`] added, so that a slow machine is not a broken law.

use std::time::Duration;

use lock_core::Moment;

use super::{
    facts::{Facts, Made},
    finding::{Finding, Law},
    terms::Terms,
};
use crate::history::{Event, Kind, Why};

/// Checks L7.
#[must_use]
pub fn liveness(facts: &Facts<'_>, terms: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Liveness, "waiters");
    let healed = facts.healed();
    for lock in 0..facts.by_lock.len() {
        let waiters: Vec<&Made> = facts.acquires[lock]
            .iter()
            .map(|call| &facts.calls[*call])
            .filter(|made| facts.event(made.call.invoke).wait.is_some())
            .collect();
        if waiters.is_empty() {
            continue;
        }
        let ttl = longest_ttl(facts, lock);
        let idle = idle(facts, lock, healed, terms.patience(ttl));
        for made in waiters {
            if made.end <= healed {
                finding.unseen("waiters that were through before the last fault had ended");
                continue;
            }
            finding.checked += 1;
            sat_through(facts, terms.patience(ttl), &idle, made, &mut finding);
            overdue(facts, terms.patience(ttl), healed, made, &mut finding);
        }
    }
    finding
}

/// The longest ttl that anybody had or wanted of the lock.
fn longest_ttl(facts: &Facts<'_>, lock: usize) -> Duration {
    let granted = facts.by_lock[lock].iter().map(|number| facts.grants[*number].ttl);
    let wanted = facts.acquires[lock].iter().filter_map(|call| facts.event(facts.calls[*call].call.invoke).ttl);
    granted.chain(wanted).max().unwrap_or_default()
}

/// A stretch in which nobody had the lock, with the place of what ended the last hold.
struct Idle {
    from: Moment,
    to: Moment,
    after: Option<usize>,
}

/// The stretches longer than `bound` after `healed` in which nobody is known to have kept the lock from anybody.
fn idle(facts: &Facts<'_>, lock: usize, healed: Moment, bound: Duration) -> Vec<Idle> {
    let mut busy: Vec<(Moment, Moment, usize)> = Vec::new();
    for grant in facts.by_lock[lock].iter().map(|number| &facts.grants[*number]) {
        let release = grant.release.map(|call| &facts.calls[call]);
        let to = match release {
            Some(made) if made.outcome == Kind::Ok => made.end + facts.told(made).keep_for.unwrap_or_default(),
            // Nobody gave it back for sure: it lasts as long as it was ever to.
            _ => grant.deadline,
        };
        busy.push((grant.got, to.max(grant.until), grant.until_at));
    }
    for made in facts.acquires[lock].iter().map(|call| &facts.calls[*call]) {
        // One that is in doubt may have got it at any time; one that never ended is only waiting.
        if made.outcome == Kind::Info && (made.call.end.is_some() || made.end < facts.last) {
            busy.push((made.start, made.end, made.call.end.unwrap_or(made.call.invoke)));
        }
    }
    busy.sort_unstable_by_key(|(from, ..)| *from);
    let mut idle = Vec::new();
    let (mut free, mut after) = (healed, None);
    for (from, to, at) in busy.into_iter().chain([(facts.last, facts.last, usize::MAX)]) {
        if from > free && from.since(free) > bound {
            idle.push(Idle { from: free, to: from, after });
        }
        if to > free {
            (free, after) = (to, Some(at));
        }
    }
    idle
}

fn sat_through(facts: &Facts<'_>, bound: Duration, idle: &[Idle], made: &Made, finding: &mut Finding) {
    let first = idle.partition_point(|idle| idle.to <= made.start);
    for stretch in idle[first..].iter().take_while(|idle| idle.from < made.end) {
        let (from, to) = (stretch.from.max(made.start), stretch.to.min(made.end));
        if to.since(from) > bound {
            let mut events = made.events();
            events.extend(stretch.after);
            let lock = facts.event(made.call.invoke).lock.as_deref().unwrap_or_default();
            finding.note(None, &events, || {
                format!("process {} waited for {lock:?}, which nobody had for {:?}", made.call.process, to.since(from))
            });
            return;
        }
    }
}

/// Who is through later than it wanted to wait.
fn overdue(facts: &Facts<'_>, bound: Duration, healed: Moment, made: &Made, finding: &mut Finding) {
    let Some(wait) = facts.event(made.call.invoke).wait.filter(|wait| *wait < Event::FOR_EVER) else { return };
    let due = (made.start + wait).max(healed) + bound;
    if made.end > due {
        finding.note(None, &made.events(), || {
            let came = match facts.told(made).why {
                Some(Why::TimedOut) => "gave up",
                _ if made.call.end.is_none() => "still waits",
                _ => "came back",
            };
            format!(
                "process {} wanted to wait for {wait:?} and {came} {:?} too late",
                made.call.process,
                made.end.since(due)
            )
        });
    }
}
