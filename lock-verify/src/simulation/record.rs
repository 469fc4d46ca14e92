//! The run as its clients saw it, in the form in which all histories are written: for the checkers that know nothing of true
//! time at the store.

use std::time::Duration;

use lock_core::{FencingToken, Lease, LockError, LossReason, Moment, ReleaseOutcome, StoreError};

use super::{belief::Beliefs, world::World};
use crate::history::{Entry, Event, F, Kind, Process, Why};

/// What is recorded, if anybody wants it. Times are true time.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) events: Option<Vec<Event>>,
    calls: u64,
}

/// What becomes of a call that was recorded.
pub(super) enum End {
    /// It did what it should.
    Done,
    /// It changed nothing.
    Failed(Why),
    /// Nobody knows.
    Unknown,
}

impl End {
    /// That of an acquire that came to no guard.
    pub(super) fn of_error(error: &LockError, waits: bool) -> Self {
        match error {
            LockError::Busy(_) => Self::Failed(if waits { Why::TimedOut } else { Why::Held }),
            LockError::Finished(_) => Self::Failed(Why::Held),
            LockError::Store(error) if error.applied() == lock_core::Applied::No => Self::Failed(Why::Error),
            _ => Self::Unknown,
        }
    }

    pub(super) fn of_release(outcome: &Result<ReleaseOutcome, StoreError>) -> Self {
        match outcome {
            Ok(ReleaseOutcome::Released) => Self::Done,
            Ok(ReleaseOutcome::AlreadyLost(LossReason::NotOurs)) => Self::Failed(Why::NotOurs),
            _ => Self::Unknown,
        }
    }
}

impl Record {
    /// A call begins, if calls are recorded.
    pub(super) fn begins(
        &mut self,
        at: u64,
        process: Process,
        f: F,
        said: impl FnOnce(Event) -> Event,
    ) -> Option<Event> {
        let events = self.events.as_mut()?;
        self.calls += 1;
        let event = said(Event::invoke(Moment::from_nanos(at), process, self.calls, f));
        events.push(event.clone());
        Some(event)
    }

    /// It ends.
    pub(super) fn ends(&mut self, at: u64, began: Option<&Event>, end: &End, said: impl FnOnce(Event) -> Event) {
        let (Some(events), Some(began)) = (&mut self.events, began) else { return };
        let at = Moment::from_nanos(at);
        events.push(said(match end {
            End::Done => began.ok(at),
            End::Failed(why) => began.fail(at, *why),
            End::Unknown => began.info(at),
        }));
    }

    /// Something that was seen unasked.
    pub(super) fn told(&mut self, at: u64, process: Process, kind: Kind, f: F, said: impl FnOnce(Event) -> Event) {
        if let Some(events) = &mut self.events {
            self.calls += 1;
            events.push(said(Event::new(Moment::from_nanos(at), process, self.calls, kind, f)));
        }
    }

    /// A fault, from then to then.
    pub(super) fn fault(&mut self, from: u64, to: u64, said: impl Fn(Event) -> Event) {
        let began = self.begins(from, Process::Nemesis, F::Fault, said);
        self.ends(to, began.as_ref(), &End::Unknown, |event| event);
    }
}

/// What an event says of the grant that a lease is.
pub(super) fn of(lease: &Lease) -> impl FnOnce(Event) -> Event + use<> {
    let (lock, owner, token) = (lease.name().as_str().to_owned(), lease.owner(), lease.token());
    move |event| event.lock(lock).owner(owner).token(token)
}

pub(super) fn why(reason: LossReason) -> Why {
    match reason {
        LossReason::NotOurs => Why::NotOurs,
        LossReason::AtMostFor => Why::AtMostFor,
        _ => Why::Expired,
    }
}

impl Beliefs {
    /// Each life of a node is a process.
    pub(super) fn process(&self, node: usize) -> Process {
        Process::Client(self.lives[node] * 16 + node as u32)
    }
}

impl World {
    /// Everything that the resources accepted, at the end.
    pub(super) fn record_resources(&mut self, at: u64) {
        if self.record.events.is_none() {
            return;
        }
        for (name, accepted) in self.accepted() {
            let began = self.record.begins(at, Process::Client(u32::MAX), F::Read, |event| event.resource(name));
            let entries = accepted.iter().map(|(token, value)| Entry(FencingToken::new(*token), *value)).collect();
            self.record.ends(at, began.as_ref(), &End::Done, |event| event.entries(entries));
        }
    }
}

/// How long a call waits, as a history says it.
pub(super) fn wait(most: Option<Duration>) -> Duration {
    most.unwrap_or(Event::FOR_EVER)
}
