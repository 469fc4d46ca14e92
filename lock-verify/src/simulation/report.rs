//! What runs came to.

use std::{fmt, ops::AddAssign};

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which law: `L1` to `L11` of the contract.
    pub law: &'static str,
    /// What was seen.
    pub what: String,
    /// When, in nanoseconds of true time since the run began.
    pub at: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.6} s: {}", self.law, self.at as f64 / 1e9, self.what)
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident: $label:literal),* $(,)?) => {
        /// How often what happened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Each count with its name in words, in the order of a report.
            #[must_use]
            pub fn table(&self) -> Vec<(&'static str, u64)> {
                vec![$(($label, self.$name)),*]
            }
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    /// Grants that the store made.
    grants: "grants",
    /// Renewals that the store made.
    renewals: "renewals",
    /// Calls that ended because the lock was held too long.
    busy: "calls that gave up waiting",
    /// Calls that were dropped half-way.
    cancelled: "calls dropped half-way",
    /// Calls whose store failed them.
    failed: "calls that the store failed",
    /// Ticks found used up.
    finished: "ticks found used up",
    /// Guards whose lease was lost.
    lost: "leases lost",
    /// Leases that ended at their at-most-for.
    capped: "leases ended by at-most-for",
    /// Leases at the store that were taken back or expired unheard of.
    rejoined: "work that joined its own lease",
    /// Writes that a fence let through.
    writes: "fenced writes accepted",
    /// Writes that a fence refused.
    refused: "late writes refused by the fence",
    /// Writes by which the token at a resource without a fence fell.
    unfenced: "late writes that a resource without a fence took",
    /// Two beliefs at once, after a lock was taken away by force: what only the fence protects from.
    forced_overlaps: "beliefs that outlived a forced release",
    /// Requests that got lost.
    requests_lost: "fault: requests lost",
    /// Replies that got lost, after what they answer was applied.
    replies_lost: "fault: replies lost after the request was applied",
    /// Requests that arrived twice.
    doubled: "fault: requests that arrived twice",
    /// Messages that were late, and so overtaken.
    late: "fault: messages late and overtaken",
    /// Requests given up by a node's patience or refused by a cut.
    given_up: "fault: requests refused or given up",
    /// Nodes cut off.
    cut_off: "fault: nodes cut off",
    /// Outages of the store.
    down: "fault: outages of the store",
    /// Subscriptions cut.
    unsubscribed: "fault: subscriptions cut",
    /// Nodes stopped between two steps.
    frozen: "fault: nodes stopped (SIGSTOP)",
    /// Nodes stopped in the midst of a step.
    stopped: "fault: nodes stopped in the midst of a step",
    /// Nodes suspended.
    suspended: "fault: nodes suspended",
    /// Nodes crashed.
    crashed: "fault: nodes crashed and started anew",
    /// Wall clocks stepped.
    stepped: "fault: wall clocks stepped",
    /// Locks taken away.
    forced: "fault: locks taken away by force",
    /// Records deleted.
    deleted: "fault: records of locks deleted",
}

/// What one seed came to.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What happened how often.
    pub counts: Counts,
    /// The law that was broken first, if one was.
    pub violation: Option<Violation>,
    /// The run's events, one a line, if they were asked for.
    pub trace: Option<String>,
    /// What the clients did and saw, if that was asked for.
    pub history: Option<Vec<crate::history::Event>>,
    /// How long it took in true time, in nanoseconds.
    pub lasted: u64,
}
