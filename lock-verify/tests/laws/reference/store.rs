//! The store: locks, lines and fenced logs, changed in one step per request.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
};

use lock_core::{FencingToken, Moment};
use lock_verify::history::{Entry, Event, F, Kind, Mode, Why};

use super::TTL;

/// How a lock is asked for, by a draw of four.
type ByDraw = fn(u64) -> Mode;

/// The locks, and who asks for them how.
pub(crate) const LOCKS: [(&str, ByDraw); 4] = [
    ("one", |_| Mode::Exclusive),
    ("two", |_| Mode::Exclusive),
    ("shared", |draw| if draw == 3 { Mode::Exclusive } else { Mode::Shared }),
    ("permits", |_| Mode::Permits(NonZeroU32::new(2).unwrap())),
];

#[derive(Default)]
pub(super) struct Store {
    locks: BTreeMap<String, Lock>,
}

#[derive(Default)]
struct Lock {
    holders: Vec<(Event, Moment)>,
    last: u64,
    line: VecDeque<Event>,
    highest: u64,
    log: Vec<Entry>,
}

impl Store {
    /// Carries out a request: the answers to it and to those whose turn has come.
    pub(super) fn handle(&mut self, request: &Event, now: Moment) -> Vec<Event> {
        let mut answers = self.serve(now);
        let lock = self.locks.entry(request.lock.as_deref().unwrap().to_owned()).or_default();
        answers.extend(match request.f {
            F::Acquire => lock.acquire(request, now),
            F::Renew => Some(match lock.holder(request) {
                Some((_, until)) => {
                    *until = (*until).max(now + TTL);
                    request.ok(now).deadline(deadline(request))
                }
                None => request.fail(now, Why::NotOurs),
            }),
            F::Release => Some(if lock.holder(request).is_some() {
                lock.holders.retain(|(holder, _)| holder.owner != request.owner);
                request.ok(now)
            } else {
                request.fail(now, Why::NotOurs)
            }),
            F::Write => Some(lock.write(request, now)),
            other => panic!("the store knows no {other:?}"),
        });
        answers.extend(self.serve(now));
        answers
    }

    /// Ends what is over, and grants what can be granted.
    pub(super) fn serve(&mut self, now: Moment) -> Vec<Event> {
        self.locks.values_mut().flat_map(|lock| lock.serve(now)).collect()
    }

    /// Forgets who holds what, and all tokens.
    pub(super) fn wipe(&mut self, now: Moment) -> Vec<Event> {
        for lock in self.locks.values_mut() {
            lock.holders.clear();
            lock.last = 0;
        }
        self.serve(now)
    }

    /// Takes a waiter out of its line; `false` if it isn't there any more.
    pub(super) fn leave(&mut self, call: &Event) -> bool {
        let Some(lock) = self.locks.get_mut(call.lock.as_deref().unwrap()) else { return false };
        let before = lock.line.len();
        lock.line.retain(|waiter| waiter.call != call.call);
        lock.line.len() < before
    }

    pub(super) fn log(&self, lock: &str) -> Vec<Entry> {
        self.locks.get(lock).map(|lock| lock.log.clone()).unwrap_or_default()
    }
}

impl Lock {
    fn acquire(&mut self, request: &Event, now: Moment) -> Option<Event> {
        if let Some((holder, until)) = self.holders.iter_mut().find(|(holder, _)| holder.owner == request.owner) {
            *until = (*until).max(now + TTL);
            let token = holder.token.unwrap();
            return Some(request.ok(now).token(token).deadline(deadline(request)));
        }
        if self.line.is_empty() && self.fits(request) {
            return Some(self.grant(request, now));
        }
        if request.wait.is_none() {
            return Some(request.fail(now, Why::Held));
        }
        self.line.push_back(request.clone());
        let queued = Event::new(now, request.process, request.call, Kind::Ok, F::Queued);
        Some(queued.lock(request.lock.clone().unwrap()).owner(request.owner.unwrap()))
    }

    fn fits(&self, request: &Event) -> bool {
        match request.mode.unwrap() {
            Mode::Exclusive => self.holders.is_empty(),
            Mode::Shared => self.holders.iter().all(|(holder, _)| holder.mode == Some(Mode::Shared)),
            Mode::Permits(of) => self.holders.len() < of.get() as usize,
        }
    }

    fn grant(&mut self, request: &Event, now: Moment) -> Event {
        self.last = (self.last + 1).max(now.as_nanos() / 1_000);
        // A waiter's belief counts from when it was granted: this store tells it.
        let sent = if request.wait.is_some() { now } else { request.time };
        let deadline = sent + TTL.mul_f64(0.99);
        let granted = request.ok(now).token(FencingToken::new(self.last)).deadline(deadline);
        self.holders.push((granted.clone(), now + TTL));
        granted
    }

    fn serve(&mut self, now: Moment) -> Vec<Event> {
        self.holders.retain(|(_, until)| *until > now);
        let mut answers = Vec::new();
        while self.line.front().is_some_and(|first| self.fits(first)) {
            let first = self.line.pop_front().unwrap();
            answers.push(self.grant(&first, now));
        }
        answers
    }

    fn holder(&mut self, request: &Event) -> Option<&mut (Event, Moment)> {
        let is = |(holder, _): &&mut (Event, Moment)| (holder.owner, holder.token) == (request.owner, request.token);
        self.holders.iter_mut().find(is)
    }

    fn write(&mut self, request: &Event, now: Moment) -> Event {
        let (token, value) = (request.token.unwrap(), request.value.unwrap());
        if token.get() < self.highest {
            return request.fail(now, Why::Stale);
        }
        self.highest = token.get();
        self.log.push(Entry(token, value));
        request.ok(now)
    }
}

fn deadline(request: &Event) -> Moment {
    request.time + TTL.mul_f64(0.99)
}
