//! L11: a waiter that waits costs the store no requests, a safety-net poll at most once per ttl aside.
//!
//! Seen in what the store itself counted ([`F::Requests`]) while clients did nothing but wait: per waiter one request for
//! each ttl begun, and [`Terms::spare_requests`] for all. Where waiters poll, the poll's period counts as well. What clients
//! send that the store doesn't count is not seen.

use std::time::Duration;

use super::{
    facts::Facts,
    finding::{Finding, Law},
    terms::Terms,
};
use crate::history::{F, Kind};

/// Checks L11.
#[must_use]
pub fn silence(facts: &Facts<'_>, terms: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Silence, "counts");
    for made in facts.calls.iter().filter(|made| made.call.f == F::Requests) {
        if made.outcome != Kind::Ok {
            finding.unseen("counts that were given up");
            continue;
        }
        let (begun, told) = (facts.event(made.call.invoke), facts.told(made));
        let (Some(count), Some(waiters)) = (told.count, told.waiters.or(begun.waiters)) else { continue };
        let Some(ttl) = told.ttl.or(begun.ttl) else {
            finding.unseen("counts that don't tell the ttl");
            continue;
        };
        finding.checked += 1;
        let over = made.end.since(made.start);
        let polled = if terms.silent { 0 } else { begun_in(over, terms.poll) };
        let each = begun_in(over, ttl) + polled;
        let most = each.saturating_mul(u64::from(waiters)).saturating_add(terms.spare_requests);
        if count > most {
            finding.note(None, &made.events(), || {
                format!("{waiters} waiters cost the store {count} requests in {over:?}; {most} are the most")
            });
        }
    }
    finding
}

/// How many periods are begun in this time.
fn begun_in(over: Duration, period: Duration) -> u64 {
    let whole = over.as_nanos().checked_div(period.as_nanos()).unwrap_or(0);
    u64::try_from(whole).unwrap_or(u64::MAX).saturating_add(1)
}
