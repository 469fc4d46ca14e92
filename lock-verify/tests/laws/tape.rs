//! Histories made by hand: times in milliseconds, and violations told in words.

use std::time::Duration;

use lock_core::{FencingToken, Moment, OwnerId};
use lock_verify::{
    history::{Effect, Event, F, History, Kind, Process, Why},
    laws::{Law, Report, Terms, judge},
};

/// Milliseconds as a moment.
pub(crate) fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn owner(number: u32) -> OwnerId {
    OwnerId::from_u128(number.into())
}

pub(crate) fn token(number: u64) -> FencingToken {
    FencingToken::new(number)
}

/// The ttl of all grants made by hand.
pub(crate) const TTL: u64 = 1_000;

/// Events to be, of one lock `x` and one resource `r` unless they say otherwise.
#[derive(Default)]
pub(crate) struct Tape {
    events: Vec<Event>,
    calls: u64,
    pub(crate) terms: Terms,
}

impl Tape {
    pub(crate) fn new() -> Self {
        let terms = Terms { poll: ms(100), settle: ms(100), ..Terms::default() };
        Self { terms, ..Self::default() }
    }

    /// A call of this client, from when to when; `said` is what its events say from the beginning on, `end` what they come to.
    pub(crate) fn call(
        &mut self,
        client: u32,
        f: F,
        (from, to): (u64, u64),
        said: impl FnOnce(Event) -> Event,
        end: impl FnOnce(&Event, Moment) -> Event,
    ) -> &mut Self {
        let process = if f == F::Fault { Process::Nemesis } else { Process::Client(client) };
        let invoke = said(Event::invoke(at(from), process, self.calls, f));
        let end = end(&invoke, at(to));
        self.calls += 1;
        self.events.extend([invoke, end]);
        self
    }

    /// The number that the next call will have.
    pub(crate) fn next_call(&self) -> u64 {
        self.calls
    }

    /// A call that never comes back.
    pub(crate) fn open(&mut self, client: u32, f: F, from: u64, said: impl FnOnce(Event) -> Event) -> &mut Self {
        self.events.push(said(Event::invoke(at(from), Process::Client(client), self.calls, f)));
        self.calls += 1;
        self
    }

    /// A single event.
    pub(crate) fn told(&mut self, client: u32, f: F, when: u64, said: impl FnOnce(Event) -> Event) -> &mut Self {
        self.events.push(said(Event::new(at(when), Process::Client(client), self.calls, Kind::Ok, f)));
        self.calls += 1;
        self
    }

    /// Client and owner have one number here. Believed until `got` + [`TTL`].
    pub(crate) fn acquire(&mut self, who: u32, tok: u64, (from, to): (u64, u64)) -> &mut Self {
        self.acquire_as(who, tok, (from, to), |event| event)
    }

    pub(crate) fn acquire_as(
        &mut self,
        who: u32,
        tok: u64,
        span: (u64, u64),
        said: impl FnOnce(Event) -> Event,
    ) -> &mut Self {
        let said = |event: Event| said(event.lock("x").owner(owner(who)).ttl(ms(TTL)));
        self.call(who, F::Acquire, span, said, |event, to| event.ok(to).token(token(tok)).deadline(to + ms(TTL)))
    }

    /// An acquire that comes to nothing.
    pub(crate) fn refused(&mut self, who: u32, span: (u64, u64)) -> &mut Self {
        let said = |event: Event| event.lock("x").owner(owner(who)).ttl(ms(TTL));
        self.call(who, F::Acquire, span, said, |event, to| event.fail(to, Why::Held))
    }

    /// An acquire of which nobody knows.
    pub(crate) fn doubtful(&mut self, who: u32, span: (u64, u64)) -> &mut Self {
        let said = |event: Event| event.lock("x").owner(owner(who)).ttl(ms(TTL));
        self.call(who, F::Acquire, span, said, |event, to| event.info(to))
    }

    /// A waiter that gives up after `wait`.
    pub(crate) fn timed_out(&mut self, who: u32, wait: u64, span: (u64, u64)) -> &mut Self {
        let said = |event: Event| event.lock("x").owner(owner(who)).ttl(ms(TTL)).wait(ms(wait));
        self.call(who, F::Acquire, span, said, |event, to| event.fail(to, Why::TimedOut))
    }

    pub(crate) fn renew(&mut self, who: u32, tok: u64, span: (u64, u64)) -> &mut Self {
        let said = |event: Event| event.lock("x").owner(owner(who)).token(token(tok)).ttl(ms(TTL));
        self.call(who, F::Renew, span, said, |event, to| event.ok(to).deadline(to + ms(TTL)))
    }

    pub(crate) fn release(&mut self, who: u32, tok: u64, span: (u64, u64)) -> &mut Self {
        let said = |event: Event| event.lock("x").owner(owner(who)).token(token(tok));
        self.call(who, F::Release, span, said, |event, to| event.ok(to))
    }

    pub(crate) fn stale_release(&mut self, who: u32, tok: u64, span: (u64, u64)) -> &mut Self {
        let said = |event: Event| event.lock("x").owner(owner(who)).token(token(tok));
        self.call(who, F::Release, span, said, |event, to| event.fail(to, Why::NotOurs))
    }

    pub(crate) fn lost(&mut self, who: u32, tok: u64, when: u64, why: Why) -> &mut Self {
        self.told(who, F::Lost, when, |event| event.lock("x").owner(owner(who)).token(token(tok)).why(why))
    }

    pub(crate) fn look(&mut self, who: u32, tok: u64, span: (u64, u64), valid: bool) -> &mut Self {
        let said = |event: Event| event.lock("x").owner(owner(who)).token(token(tok));
        self.call(who, F::Look, span, said, |event, to| event.ok(to).valid(valid))
    }

    pub(crate) fn write(&mut self, who: u32, tok: u64, value: u64, span: (u64, u64)) -> &mut Self {
        self.attempt(who, tok, value, span, |event, to| event.ok(to))
    }

    pub(crate) fn attempt(
        &mut self,
        who: u32,
        tok: u64,
        value: u64,
        span: (u64, u64),
        end: impl FnOnce(&Event, Moment) -> Event,
    ) -> &mut Self {
        self.call(who, F::Write, span, |event| event.lock("x").resource("r").token(token(tok)).value(value), end)
    }

    pub(crate) fn fault(&mut self, what: &str, span: (u64, u64), effect: Effect) -> &mut Self {
        self.call(0, F::Fault, span, |event| event.fault(what).effect(effect), |event, to| event.info(to))
    }

    pub(crate) fn history(&self) -> History {
        History::new(self.events.clone()).unwrap()
    }

    pub(crate) fn judged(&self) -> Report {
        judge(&self.history(), &self.terms)
    }

    /// How this law was broken: of each violation the offending events, in words.
    pub(crate) fn broken(&self, law: Law) -> Vec<Vec<String>> {
        let report = self.judged();
        let finding = report.of(law).unwrap();
        assert_eq!(finding.broken, finding.violations.len() as u64);
        finding.violations.iter().map(|violation| in_words(&self.history(), &violation.events)).collect()
    }

    /// Checks that exactly this law was broken, once, by these events.
    #[track_caller]
    pub(crate) fn breaks(&self, law: Law, stretch: &[&str]) {
        assert_eq!(self.broken(law), [stretch], "\n{}", self.judged());
    }

    /// Checks that the law was checked so often, and kept.
    #[track_caller]
    pub(crate) fn keeps(&self, law: Law, checked: u64) {
        let report = self.judged();
        assert!(report.is_clean(), "\n{report}");
        assert_eq!(report.of(law).unwrap().checked, checked, "\n{report}");
    }

    /// Checks that what broke the law was expected.
    #[track_caller]
    pub(crate) fn expects(&self, law: Law) {
        let report = self.judged();
        let finding = report.of(law).unwrap();
        assert_eq!((finding.broken, finding.excused), (0, 1), "\n{report}");
        assert!(finding.expected[0].excuse.is_some());
    }
}

/// Events as `time type f`.
pub(crate) fn in_words(history: &History, events: &[usize]) -> Vec<String> {
    let word = |at: &usize| {
        let event = &history.events()[*at];
        format!("{} {:?} {:?}", event.time.as_nanos() / 1_000_000, event.kind, event.f)
    };
    events.iter().map(word).collect()
}
