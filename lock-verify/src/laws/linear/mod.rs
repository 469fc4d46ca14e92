//! Linearizability: all answers together can have come from one lock that served one call after the other, each at some moment
//! between its beginning and its end.
//!
//! What the laws look at one by one is looked at here all at once, against a small [`Model`]. The search is exponential, so a
//! lock's history is cut where it was certainly free and nothing was under way; a stretch that is still too big is told as not
//! checked. An unanswered call may have happened at any time, or never; so may the expiry of a grant that nobody gave back, from
//! its holder's deadline on. Not looked at are: readers and permits, how long a lock stays taken after a release, and refusals
//! while somebody waits, who may have been kept a place, or while there is a fault. Stretches in which a fault may have changed
//! a lock from outside are told as not checked.

mod model;
mod search;

use lock_core::{FencingToken, Moment};

pub use self::{
    model::{Answer, Ask, Model},
    search::{Searched, Step, search},
};
use super::{
    belief::BEYOND,
    facts::{Facts, Made},
    finding::{Finding, Law},
    grants::Grant,
    occupied::{is_given_up, owner},
    terms::Terms,
};
use crate::history::{F, Kind, Why};

/// Checks each exclusive lock against the contract's own model.
#[must_use]
pub fn linear(facts: &Facts<'_>, terms: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Linear, "stretches of calls");
    let mut calls: Vec<Vec<&Made>> = vec![Vec::new(); facts.by_lock.len()];
    for made in &facts.calls {
        let lock = facts.event(made.call.invoke).lock.as_deref().and_then(|lock| facts.locks.find(lock));
        if let Some(lock) = lock.filter(|_| matches!(made.call.f, F::Acquire | F::Renew | F::Release | F::ForceRelease))
        {
            calls[lock].push(made);
        }
    }
    for (lock, calls) in calls.into_iter().enumerate() {
        if facts.by_lock[lock].iter().any(|number| !facts.grants[*number].is_exclusive()) {
            finding.unseen("shared locks and semaphores");
            continue;
        }
        of_lock(facts, terms, lock, &calls, &mut finding);
    }
    finding
}

/// A call with the time until which it may keep the lock from being certainly free.
struct Placed<'f> {
    made: &'f Made,
    quiet: Moment,
    grant: Option<&'f Grant>,
}

fn of_lock(facts: &Facts<'_>, terms: &Terms, lock: usize, calls: &[&Made], finding: &mut Finding) {
    let grants = facts.by_lock[lock].iter().map(|number| &facts.grants[*number]);
    let by_got: std::collections::HashMap<usize, &Grant> = grants.map(|grant| (grant.got_at, grant)).collect();
    let mut stretch: Vec<Placed<'_>> = Vec::new();
    let (mut quiet, mut last) = (Moment::from_nanos(0), None);
    for made in calls {
        if made.start > quiet && !stretch.is_empty() {
            judge(facts, terms, lock, last, &stretch, finding);
            let tokens = stretch.iter().filter_map(|placed| placed.grant.map(|grant| grant.token));
            last = tokens.max().max(last);
            stretch.clear();
        }
        let grant = made.call.end.and_then(|end| by_got.get(&end).copied());
        let placed = Placed { made, quiet: quiet_after(facts, terms, made, grant), grant };
        quiet = quiet.max(placed.quiet);
        stretch.push(placed);
    }
    if !stretch.is_empty() {
        judge(facts, terms, lock, last, &stretch, finding);
    }
}

/// When nothing of this call, nor of the grant that it got, can be left any more.
fn quiet_after(facts: &Facts<'_>, terms: &Terms, made: &Made, grant: Option<&Grant>) -> Moment {
    let calm = facts.calm_after(made);
    let ttl = facts.event(made.call.invoke).ttl.unwrap_or_default();
    let of_call = match made.outcome {
        Kind::Info => calm + terms.afterlife(ttl),
        // A fault may have doubled the request.
        _ if calm > made.end && made.call.f == F::Acquire => calm + terms.afterlife(ttl),
        _ => made.end,
    };
    let of_grant = grant.map(|grant| {
        let release = grant.release.map(|call| &facts.calls[call]).filter(|made| made.outcome == Kind::Ok);
        let freed = |made: &Made| made.end + facts.told(made).keep_for.unwrap_or_default() + terms.grace;
        let asked = grant.last_asked(facts);
        release.map_or_else(|| asked + terms.afterlife(grant.ttl), |made| freed(made).max(asked))
    });
    of_call.max(of_grant.unwrap_or(of_call))
}

fn judge(
    facts: &Facts<'_>,
    terms: &Terms,
    lock: usize,
    last: Option<FencingToken>,
    stretch: &[Placed<'_>],
    finding: &mut Finding,
) {
    if stretch.len() > search::CALLS {
        return finding.unseen(TOO_BIG);
    }
    let (Some(first), Some(end)) = (stretch.first(), stretch.iter().map(|placed| placed.quiet).max()) else { return };
    if BEYOND.iter().any(|effect| facts.met(*effect, first.made.start, end)) {
        return finding.unseen("stretches in which a fault was beyond the laws");
    }
    let (steps, events) = steps(facts, terms, stretch, end);
    if steps.is_empty() {
        return;
    }
    match search(Model::FencedReentrant, last, &steps) {
        Searched::TooBig => finding.unseen(TOO_BIG),
        Searched::Linearizable => finding.checked += 1,
        Searched::Impossible => {
            finding.checked += 1;
            let few = search::fewest(Model::FencedReentrant, last, &steps);
            let shown: Vec<usize> = few.iter().flat_map(|number| events[*number].iter().copied()).collect();
            finding.note(None, &shown, || {
                let lock = facts.locks.name(lock);
                format!("no lock that serves one call after the other gives these {} answers: {lock:?}", few.len())
            });
        }
    }
}

const TOO_BIG: &str = "stretches too big to be searched";

/// The stretch as the search wants it, and the events of each step.
fn steps(facts: &Facts<'_>, terms: &Terms, stretch: &[Placed<'_>], end: Moment) -> (Vec<Step>, Vec<Vec<usize>>) {
    // In line somebody may be kept a place, a lock may stay taken after its release, and a fault may have doubled a request: a
    // refusal says nothing then.
    let troubled = stretch.first().is_some_and(|first| facts.is_troubled(first.made.start, end));
    let kept = troubled
        || stretch.iter().any(|placed| {
            let asked = facts.event(placed.made.call.invoke);
            let in_line = asked.fair || asked.wait.is_some();
            in_line || asked.keep_for.is_some() || is_given_up(facts.told(placed.made))
        });
    let mut steps = Vec::new();
    for Placed { made, grant, .. } in stretch {
        let Some((ask, answer)) = asked(facts, terms, made, kept) else { continue };
        steps.push((Step { start: made.start, ask, answer: answer.map(|answer| (made.end, answer)) }, made.events()));
        if let Some(expiry) = expiry(facts, terms, made, *grant) {
            steps.push(expiry);
        }
    }
    steps.sort_by_key(|(step, _)| step.start);
    steps.into_iter().unzip()
}

/// What a call asked and was answered; `None` if it says nothing about the lock.
fn asked(facts: &Facts<'_>, terms: &Terms, made: &Made, kept: bool) -> Option<(Ask, Option<Answer>)> {
    let (told, owner) = (facts.told(made), owner(facts, made));
    let not_ours = told.why == Some(Why::NotOurs);
    let ask = match made.call.f {
        F::Acquire => Ask::Acquire(owner?),
        F::Renew => Ask::Renew(owner?, facts.event(made.call.invoke).token?),
        F::Release => Ask::Release(owner?, facts.event(made.call.invoke).token),
        _ => Ask::ForceRelease,
    };
    let answer = match (made.outcome, made.call.f) {
        (Kind::Ok, F::Acquire) => Answer::Granted(told.token?),
        (Kind::Ok, _) => Answer::Done,
        (Kind::Fail, F::Acquire) if told.why == Some(Why::Held) && !kept => Answer::Held,
        // As good as no answer: the first run of the request may have done it.
        (Kind::Fail, F::Release) if not_ours && terms.repeats => return Some((ask, None)),
        (Kind::Fail, F::Renew | F::Release) if not_ours => Answer::NotOurs,
        (Kind::Fail, _) => return None,
        // A doubtful renewal changes nothing that the model knows of.
        (Kind::Info, F::Renew) => return None,
        _ => return Some((ask, None)),
    };
    Some((ask, Some(answer)))
}

/// That a grant which nobody is known to have given back may be over, from the deadline on.
fn expiry(facts: &Facts<'_>, terms: &Terms, made: &Made, grant: Option<&Grant>) -> Option<(Step, Vec<usize>)> {
    let (start, owner, token) = match grant {
        Some(grant) => {
            let release = grant.release.map(|call| facts.calls[call].outcome);
            if release == Some(Kind::Ok) {
                return None;
            }
            (grant.deadline, grant.owner, Some(grant.token))
        }
        None if made.call.f == F::Acquire && made.outcome == Kind::Info => {
            let ttl = facts.event(made.call.invoke).ttl.unwrap_or_default();
            (made.start + terms.shortened(ttl), owner(facts, made)?, None)
        }
        None => return None,
    };
    Some((Step { start, ask: Ask::Expire(owner, token), answer: None }, Vec::new()))
}
