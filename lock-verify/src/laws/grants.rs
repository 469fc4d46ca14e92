//! Grants, and how long their holders believed in them.

use std::{collections::HashMap, time::Duration};

use lock_core::{FencingToken, Moment, OwnerId};

use super::{
    facts::{Locks, Made},
    terms::Terms,
};
use crate::history::{Event, F, History, Kind, Mode, Process};

/// One grant: one token of one owner.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The lock's number.
    pub(super) lock: usize,
    pub(super) owner: OwnerId,
    pub(super) token: FencingToken,
    pub(super) process: Process,
    pub(super) mode: Mode,
    /// When the call that may have made it began: that of an earlier, unanswered try if there was one.
    pub(super) asked: Moment,
    /// The place of that.
    pub(super) asked_at: usize,
    /// When its holder had it.
    pub(super) got: Moment,
    /// The place of that.
    pub(super) got_at: usize,
    /// When its holder had stopped to believe: at the earliest of its deadline, its release, its loss and its process's end.
    pub(super) until: Moment,
    /// The place of what tells when that was.
    pub(super) until_at: usize,
    /// The last deadline that its holder had.
    pub(super) deadline: Moment,
    /// The longest ttl that it was granted or asked for.
    pub(super) ttl: Duration,
    /// The first call that gave it back.
    pub(super) release: Option<usize>,
    /// The place of its loss.
    pub(super) lost: Option<usize>,
    /// The calls that renewed it, whatever they came to.
    pub(super) renewals: Vec<usize>,
    /// The calls that got the same grant again.
    pub(super) again: Vec<usize>,
}

impl Grant {
    /// The last moment at which a call that could keep it alive was under way, faults that held it up included.
    pub(super) fn last_asked(&self, facts: &super::facts::Facts<'_>) -> Moment {
        let asked = self.renewals.iter().chain(&self.again).map(|call| facts.calm_after(&facts.calls[*call]));
        asked.chain([self.got]).max().unwrap_or(self.got)
    }

    /// Under which token.
    #[must_use]
    pub const fn token(&self) -> FencingToken {
        self.token
    }

    /// From when to when its holder believed, as far as it is recorded.
    #[must_use]
    pub const fn belief(&self) -> (Moment, Moment) {
        (self.got, self.until)
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.mode == Mode::Exclusive
    }
}

/// An owner's calls that may make a grant, and its last grant.
#[derive(Default)]
struct Asker {
    pending: Vec<usize>,
    last: Option<usize>,
}

struct Builder<'a> {
    events: &'a [Event],
    calls: &'a [Made],
    terms: &'a Terms,
    grants: Vec<Grant>,
    by_token: HashMap<(usize, OwnerId, FencingToken), usize>,
    askers: HashMap<(usize, OwnerId), Asker>,
}

pub(super) fn grants(
    history: &History,
    calls: &[Made],
    locks: &mut Locks,
    exits: &HashMap<Process, (Moment, usize)>,
    terms: &Terms,
) -> Vec<Grant> {
    let events = history.events();
    let mut call_at = vec![usize::MAX; events.len()];
    for (number, made) in calls.iter().enumerate() {
        made.events().into_iter().for_each(|at| call_at[at] = number);
    }
    let mut builder =
        Builder { events, calls, terms, grants: Vec::new(), by_token: HashMap::new(), askers: HashMap::new() };
    for (at, event) in events.iter().enumerate() {
        if let Some(lock) = &event.lock {
            builder.take(at, event, locks.number(lock), call_at[at]);
        }
    }
    builder.grants.iter_mut().for_each(|grant| grant.end(events, calls, exits));
    builder.grants
}

impl Builder<'_> {
    fn take(&mut self, at: usize, event: &Event, lock: usize, call: usize) {
        match (event.f, event.kind) {
            (F::Acquire, Kind::Ok) => self.granted(at, event, lock, call),
            (F::Acquire, kind) => {
                if let Some(owner) = event.owner {
                    let pending = &mut self.askers.entry((lock, owner)).or_default().pending;
                    match kind {
                        Kind::Invoke => pending.push(call),
                        Kind::Fail => pending.retain(|other| *other != call),
                        _ => {}
                    }
                }
            }
            (F::Renew, kind) => {
                let Some(grant) = self.find(event, lock) else { return };
                if kind == Kind::Invoke {
                    self.grants[grant].renewals.push(call);
                } else if kind == Kind::Ok {
                    self.extend(grant, at, event, call);
                }
            }
            (F::Look, Kind::Ok) if event.valid == Some(true) && event.deadline.is_some() => {
                if let Some(grant) = self.find(event, lock) {
                    self.extend(grant, at, event, call);
                }
            }
            (F::Release, Kind::Invoke) => {
                let last = event.owner.and_then(|owner| self.askers.get(&(lock, owner))?.last);
                let of = if event.token.is_some() { self.find(event, lock) } else { last };
                if let Some(grant) = of {
                    self.grants[grant].release.get_or_insert(call);
                }
            }
            (F::Lost, _) => {
                if let Some(grant) = self.find(event, lock) {
                    self.grants[grant].lost.get_or_insert(at);
                }
            }
            _ => {}
        }
    }

    fn find(&self, event: &Event, lock: usize) -> Option<usize> {
        self.by_token.get(&(lock, event.owner?, event.token?)).copied()
    }

    fn granted(&mut self, at: usize, event: &Event, lock: usize, call: usize) {
        let (Some(owner), Some(token)) = (event.owner, event.token) else { return };
        let asker = self.askers.entry((lock, owner)).or_default();
        let first = asker.pending.iter().chain([&call]).copied().min().unwrap_or(call);
        asker.pending.clear();
        if let Some(&grant) = self.by_token.get(&(lock, owner, token)) {
            self.grants[grant].again.push(call);
            self.extend(grant, at, event, call);
            return;
        }
        let number = self.grants.len();
        asker.last = Some(number);
        self.by_token.insert((lock, owner, token), number);
        let (made, invoke) = (&self.calls[call], &self.events[self.calls[call].call.invoke]);
        let ttl = event.ttl.or(invoke.ttl).unwrap_or_default();
        let deadline = event.deadline.unwrap_or_else(|| made.start + self.terms.shortened(ttl));
        self.grants.push(Grant {
            lock,
            owner,
            token,
            process: event.process,
            mode: event.mode.or(invoke.mode).unwrap_or_default(),
            asked: self.calls[first].start,
            asked_at: self.calls[first].call.invoke,
            got: event.time,
            got_at: at,
            until: deadline,
            until_at: at,
            deadline,
            ttl,
            release: None,
            lost: None,
            renewals: Vec::new(),
            again: Vec::new(),
        });
    }

    fn extend(&mut self, grant: usize, at: usize, event: &Event, call: usize) {
        let grant = &mut self.grants[grant];
        let ttl = event.ttl.unwrap_or_default();
        grant.ttl = grant.ttl.max(ttl);
        let start = self.calls.get(call).map_or(event.time, |made| made.start);
        let counted = event.ttl.map(|ttl| start + self.terms.shortened(ttl));
        let Some(deadline) = event.deadline.or(counted) else { return };
        // A release or a loss cuts the belief in the end, whatever is answered after it.
        if deadline > grant.deadline {
            grant.deadline = deadline;
            (grant.until, grant.until_at) = (deadline, at);
        }
    }
}

impl Grant {
    /// Cuts the belief at whatever ended it first.
    fn end(&mut self, events: &[Event], calls: &[Made], exits: &HashMap<Process, (Moment, usize)>) {
        let release = self.release.map(|call| calls[call].call.invoke);
        for at in release.into_iter().chain(self.lost) {
            if events[at].time < self.until {
                (self.until, self.until_at) = (events[at].time, at);
            }
        }
        if let Some(exit) = exits.get(&self.process).filter(|(time, _)| *time < self.until) {
            (self.until, self.until_at) = *exit;
        }
        self.until = self.until.max(self.got);
    }
}
