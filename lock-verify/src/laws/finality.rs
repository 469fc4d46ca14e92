//! L10: after its loss a grant is never valid again.
//!
//! Seen are looks and repeated acquires of the same grant that were *begun* after the loss was told, and came out well; and a
//! look that calls a grant valid although its own deadline had passed before the look was begun. A renewal may still come out
//! well, also one that left after the loss was told: what matters is that no look believes it, and that the grant is given
//! back afterwards, unless the process ends before. Losses after which nobody looked or asked are told as not checked.

use std::collections::{HashMap, HashSet};

use super::{
    facts::Facts,
    finding::{Finding, Law},
    terms::Terms,
};
use crate::history::{F, Kind};

/// Checks L10.
#[must_use]
pub fn finality(facts: &Facts<'_>, _: &Terms) -> Finding {
    let mut finding = Finding::new(Law::Finality, "looks, and askings after a loss");
    let mut lost = HashMap::new();
    for (at, event) in facts.history.events().iter().enumerate() {
        if event.f == F::Lost {
            event.grant().map(|grant| lost.entry(grant).or_insert((at, false)));
        }
    }
    let mut late_renewals = HashMap::new();
    for made in &facts.calls {
        let told = facts.told(made);
        let Some(grant) = told.grant() else { continue };
        let good = match made.call.f {
            F::Look => told.valid == Some(true) && made.outcome == Kind::Ok,
            F::Renew | F::Acquire => made.outcome == Kind::Ok,
            F::Release => {
                late_renewals.remove(&grant);
                continue;
            }
            _ => continue,
        };
        if made.call.f == F::Look {
            finding.checked += 1;
            if good && told.deadline.is_some_and(|deadline| deadline < made.start) {
                let told = || format!("the grant {} was called valid after its own deadline", grant.2);
                finding.note(None, &made.events(), told);
            }
        }
        let Some((lost_at, asked)) = lost.get_mut(&grant) else { continue };
        if made.start <= facts.event(*lost_at).time {
            continue;
        }
        *asked = true;
        finding.checked += u64::from(made.call.f != F::Look);
        if good && made.call.f == F::Renew {
            late_renewals.insert(grant, (made, *lost_at));
        } else if good {
            let events = [made.events(), vec![*lost_at]].concat();
            finding.note(None, &events, || {
                let what = if made.call.f == F::Look { "called valid" } else { "had again" };
                format!("the grant {} of {:?} was {what} after its loss", grant.2, &**grant.0)
            });
        }
    }
    let ended: HashSet<_> =
        facts.history.events().iter().filter(|event| event.f == F::Exit).map(|event| event.process).collect();
    let mut late_renewals: Vec<_> = late_renewals.into_iter().collect();
    late_renewals.sort_by_key(|(_, (made, _))| made.call.invoke);
    for (grant, (made, lost_at)) in late_renewals {
        if ended.contains(&made.call.process) {
            finding.unseen("renewals after a loss, of processes that ended");
            continue;
        }
        let events = [made.events(), vec![lost_at]].concat();
        finding.note(None, &events, || {
            format!("the grant {} of {:?} was renewed after its loss, and not given back", grant.2, &**grant.0)
        });
    }
    lost.values().filter(|(_, asked)| !asked).for_each(|_| finding.unseen("losses after which nobody looked"));
    finding
}
