//! L2: tokens of one lock are unique per grant, and rise. L3: a grant keeps its token.
//!
//! L2 sees each grant that was asked for after another was had, and each token that two owners got. Grants whose calls were under
//! way together may have come in either order. A call that was tried again after an unknown outcome counts from its first try.
//! Data loss excuses nothing here; data loss *and* a clock that stepped, both between the two grants, do.
//!
//! L3 sees a renewal or a repeated acquire that answers with another token, and an owner that got a second token while it
//! still believed in its first. Not seen is a token that changed at the store without any answer telling it.

use std::collections::HashMap;

use lock_core::OwnerId;

use super::{
    facts::Facts,
    finding::{Finding, Law},
    grants::Grant,
    terms::Terms,
};
use crate::history::{Effect, Kind};

/// Checks L2.
#[must_use]
pub fn fence(facts: &Facts<'_>, _: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Fence, "grants after another of their lock");
    for of_lock in &facts.by_lock {
        let grants: Vec<&Grant> = of_lock.iter().map(|number| &facts.grants[*number]).collect();
        rising(facts, &grants, &mut finding);
        unique(facts, &grants, &mut finding);
    }
    finding
}

/// `grants` come in the order in which they were got.
fn rising(facts: &Facts<'_>, grants: &[&Grant], finding: &mut Finding) {
    let mut by_asked = grants.to_vec();
    by_asked.sort_by_key(|grant| grant.asked);
    let (mut before, mut highest) = (grants.iter().peekable(), None::<&Grant>);
    for grant in by_asked {
        while let Some(earlier) = before.next_if(|earlier| earlier.got < grant.asked) {
            if highest.is_none_or(|highest| highest.token < earlier.token) {
                highest = Some(earlier);
            }
        }
        let Some(highest) = highest else { continue };
        finding.checked += 1;
        if highest.token > grant.token {
            note(facts, finding, highest, grant, "is lower than that of an earlier one");
        }
    }
}

fn unique(facts: &Facts<'_>, grants: &[&Grant], finding: &mut Finding) {
    let mut by_token = grants.to_vec();
    by_token.sort_by_key(|grant| (grant.token, grant.got));
    for pair in by_token.windows(2).filter(|pair| pair[0].token == pair[1].token) {
        note(facts, finding, pair[0], pair[1], "is that of another grant");
    }
}

fn note(facts: &Facts<'_>, finding: &mut Finding, earlier: &Grant, grant: &Grant, what: &str) {
    let met = |effect| facts.met(effect, earlier.asked, grant.got);
    let both = met(Effect::DataLoss) && met(Effect::ClockBeyondBounds);
    let excuse = both.then_some("the store lost data and its clock stepped");
    finding.note(excuse, &[earlier.got_at, grant.asked_at, grant.got_at], || {
        format!("the token of {} {what}, {}", facts.name(grant), facts.name(earlier))
    });
}

/// Checks L3.
#[must_use]
pub fn stability(facts: &Facts<'_>, _: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Stability, "renewals and repeated acquires");
    for grant in &facts.grants {
        finding.checked += grant.again.len() as u64;
        for made in grant.renewals.iter().map(|call| &facts.calls[*call]) {
            let answer = facts.told(made);
            if made.outcome != Kind::Ok {
                continue;
            }
            finding.checked += 1;
            if let Some(token) = answer.token.filter(|token| *token != grant.token) {
                let told = || format!("a renewal of {} answered with the token {token}", facts.name(grant));
                finding.note(None, &made.events(), told);
            }
        }
    }
    for of_lock in &facts.by_lock {
        let mut last: HashMap<OwnerId, &Grant> = HashMap::new();
        for grant in of_lock.iter().map(|number| &facts.grants[*number]) {
            let Some(before) = last.insert(grant.owner, grant) else { continue };
            finding.checked += 1;
            if grant.got < before.until {
                let changed = [Effect::DataLoss, Effect::ClockBeyondBounds, Effect::TakesLeases];
                let excuse = facts.excuse(grant.lock, before.asked, grant.got, &changed);
                finding.note(excuse, &[before.got_at, grant.got_at], || {
                    format!("{}, still believed in, came again with the token {}", facts.name(before), grant.token)
                });
            }
        }
    }
    finding
}
