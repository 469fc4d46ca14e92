//! What goes wrong besides messages: to nodes, to the store, to locks.

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A node does nothing for a while and then goes on (SIGSTOP).
    Frozen,
    /// The same, and its timers stood still as well.
    Suspended,
    /// A node is cut off from everything.
    CutOff,
    /// The store takes no requests.
    Down,
    /// A node's subscription ends.
    Unsubscribed,
    /// A node dies between two steps, and is started anew.
    Crashed,
    /// A node's wall clock steps.
    NodeClock,
    /// The store's wall clock steps ahead.
    StoreClockAhead,
    /// The store's wall clock steps back.
    StoreClockBack,
    /// An operator takes a lock away.
    Forced,
    /// An operator deletes a lock's record.
    Deleted,
}

impl Kind {
    pub(super) const ALL: [Self; 11] = [
        Self::Frozen,
        Self::Suspended,
        Self::CutOff,
        Self::Down,
        Self::Unsubscribed,
        Self::Crashed,
        Self::NodeClock,
        Self::StoreClockAhead,
        Self::StoreClockBack,
        Self::Forced,
        Self::Deleted,
    ];
}

/// Something that is to go wrong, or to be well again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mischief {
    /// The next of the plan's kinds.
    Next,
    /// All subscriptions end, and nothing else.
    Cut,
    /// All of it ends.
    Heal,
}
