//! What an event must say, by what it is of.

use super::{
    event::Event,
    kinds::{F, Kind, Process},
};

impl F {
    /// Whether it is told by single events, which begin and end nothing.
    #[must_use]
    pub const fn is_told(self) -> bool {
        matches!(self, Self::Lost | Self::Queued | Self::Exit)
    }
}

impl Event {
    /// What it lacks to be judged by; `None` if nothing.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        let by_whom = matches!(self.process, Process::Nemesis) != (self.f == F::Fault);
        // Others than the nemesis may force a release or stop a process; only it makes faults.
        if by_whom && !matches!(self.f, F::ForceRelease | F::Exit) {
            return Some("the right process: faults, and nothing but faults, are the nemesis's");
        }
        let ok = self.kind == Kind::Ok;
        let needs: &[(&'static str, bool)] = &match self.f {
            F::Acquire => vec![
                ("lock", self.lock.is_some()),
                ("owner", !ok || self.owner.is_some()),
                ("token", !ok || self.token.is_some()),
                ("deadline or ttl", !ok || self.deadline.is_some() || self.ttl.is_some()),
            ],
            F::Queued => vec![("lock", self.lock.is_some()), ("owner", self.owner.is_some())],
            F::Renew | F::Lost => vec![("lock, owner and token", self.grant().is_some())],
            F::Look => vec![("lock, owner and token", self.grant().is_some()), ("valid", !ok || self.valid.is_some())],
            F::Release => vec![("lock", self.lock.is_some()), ("owner", self.owner.is_some())],
            F::ForceRelease => vec![("lock", self.lock.is_some())],
            F::Inspect => vec![("lock", self.lock.is_some()), ("held", !ok || self.held.is_some())],
            F::Write => vec![
                ("resource", self.resource.is_some()),
                ("token", self.token.is_some()),
                ("value", self.value.is_some()),
            ],
            F::Raise => vec![("resource", self.resource.is_some()), ("token", self.token.is_some())],
            F::Read => vec![("resource", self.resource.is_some()), ("entries", !ok || self.entries.is_some())],
            F::Requests => vec![("count", !ok || self.count.is_some()), ("waiters", !ok || self.waiters.is_some())],
            F::Fault => vec![("fault", self.fault.is_some())],
            F::Exit => vec![],
        };
        needs.iter().find(|(_, there)| !there).map(|(what, _)| *what)
    }
}
