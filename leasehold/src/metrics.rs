//! Metrics, through the `metrics` facade: whatever recorder the application installs counts them.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `leasehold_acquire_seconds` | histogram | `outcome`: `acquired`, `busy` |
//! | `leasehold_acquires_total` | counter | `outcome`: `acquired`, `busy`, `finished`, `failed` |
//! | `leasehold_hold_seconds` | histogram | `outcome`: `released`, `lost` |
//! | `leasehold_losses_total` | counter | `reason`: `expired`, `not_ours`, `at_most_for`, `other` |
//! | `leasehold_renewals_total` | counter | `outcome`: `renewed`, `failed` |
//! | `leasehold_fences_refused_total` | counter | `reason`: `stale`, `used`, `other_lock`, `not_held`, `invalid`, `other` |
//!
//! All have `store` (`postgres`…) and `class` as well: what [`Lock::class`](crate::Lock::class) said, for
//! `#[locked(name = "mail-{shard}")]` the name as it is written there, otherwise empty. Names of locks are never labels.

use lock_core::{Event, LossReason, Observer, RefusalReason};

/// Counts what happens to locks. [`connect`](crate::connect) and [`connect_fences`](crate::connect_fences) have it by
/// themselves where the feature `metrics` is on; a client that is made by hand is given it by
/// [`LocksBuilder::observer`](crate::LocksBuilder::observer), a register or guard by its method `observer`.
///
/// ```
/// use leasehold::{Locks, MemoryLocks, metrics::Metrics};
/// use std::sync::Arc;
///
/// let locks = Locks::builder(MemoryLocks::new()).observer(Arc::new(Metrics)).build();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Metrics;

impl Observer for Metrics {
    fn observed(&self, store: &'static str, class: Option<&str>, event: &Event) {
        let class = class.unwrap_or_default().to_owned();
        let count = |name: &'static str, key: &'static str, value: &'static str| {
            metrics::counter!(name, "store" => store, "class" => class.clone(), key => value).increment(1);
        };
        let time = |name: &'static str, outcome: &'static str, seconds: f64| {
            metrics::histogram!(name, "store" => store, "class" => class.clone(), "outcome" => outcome).record(seconds);
        };
        match *event {
            Event::Acquired { waited } => {
                count("leasehold_acquires_total", "outcome", "acquired");
                time("leasehold_acquire_seconds", "acquired", waited.as_secs_f64());
            }
            Event::Busy { waited } => {
                count("leasehold_acquires_total", "outcome", "busy");
                time("leasehold_acquire_seconds", "busy", waited.as_secs_f64());
            }
            Event::Finished => count("leasehold_acquires_total", "outcome", "finished"),
            Event::AcquireFailed { .. } => count("leasehold_acquires_total", "outcome", "failed"),
            Event::Renewed => count("leasehold_renewals_total", "outcome", "renewed"),
            Event::RenewalFailed { .. } => count("leasehold_renewals_total", "outcome", "failed"),
            Event::Lost { reason, held } => {
                count("leasehold_losses_total", "reason", reason_label(reason));
                time("leasehold_hold_seconds", "lost", held.as_secs_f64());
            }
            Event::Released { held } => time("leasehold_hold_seconds", "released", held.as_secs_f64()),
            Event::FenceRefused { reason } => count("leasehold_fences_refused_total", "reason", refusal_label(reason)),
            _ => {}
        }
    }
}

fn refusal_label(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Stale => "stale",
        RefusalReason::Used => "used",
        RefusalReason::OtherLock => "other_lock",
        RefusalReason::NotHeld => "not_held",
        RefusalReason::Invalid => "invalid",
        _ => "other",
    }
}

fn reason_label(reason: LossReason) -> &'static str {
    match reason {
        LossReason::Expired => "expired",
        LossReason::NotOurs => "not_ours",
        LossReason::AtMostFor => "at_most_for",
        _ => "other",
    }
}
