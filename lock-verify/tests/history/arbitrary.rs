//! Events with anything in them.

use std::{num::NonZeroU32, time::Duration};

use lock_core::{FencingToken, Moment, OwnerId};
use lock_verify::history::{Effect, Entry, Event, F, Kind, Mode, Process, Why};
use proptest::{option, prelude::*, sample::select};

fn moment() -> impl Strategy<Value = Moment> {
    any::<u64>().prop_map(Moment::from_nanos)
}

fn span() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn token() -> impl Strategy<Value = FencingToken> {
    any::<u64>().prop_map(FencingToken::new)
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared), any::<NonZeroU32>().prop_map(Mode::Permits),]
}

fn head() -> impl Strategy<Value = Event> {
    let process = prop_oneof![any::<u32>().prop_map(Process::Client), Just(Process::Nemesis)];
    let kinds = select(vec![Kind::Invoke, Kind::Ok, Kind::Fail, Kind::Info]);
    let fs = select(vec![
        F::Acquire,
        F::Queued,
        F::Renew,
        F::Release,
        F::ForceRelease,
        F::Lost,
        F::Look,
        F::Write,
        F::Raise,
        F::Read,
        F::Inspect,
        F::Requests,
        F::Fault,
        F::Exit,
    ]);
    (moment(), process, any::<u64>(), kinds, fs)
        .prop_map(|(time, process, call, kind, f)| Event::new(time, process, call, kind, f))
}

/// Any event, sensible or not.
pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let effects = vec![Effect::Harmless, Effect::DataLoss, Effect::ClockBeyondBounds, Effect::TakesLeases];
    let whys = vec![
        Why::Held,
        Why::TimedOut,
        Why::Cancelled,
        Why::NotOurs,
        Why::Expired,
        Why::AtMostFor,
        Why::Stale,
        Why::Error,
    ];
    let words = (option::of(".*"), option::of(".*"), option::of(".*"), option::of(".*"), option::of(".*"));
    let who = (option::of(any::<u128>().prop_map(OwnerId::from_u128)), option::of(token()), option::of(moment()));
    let spans = (option::of(span()), option::of(span()), option::of(span()), option::of(mode()), any::<bool>());
    let seen = (option::of(any::<bool>()), option::of(any::<bool>()), option::of(any::<u64>()));
    let entries = option::of(prop::collection::vec((token(), any::<u64>()).prop_map(|(t, v)| Entry(t, v)), 0..4));
    let counts = (option::of(any::<u64>()), option::of(any::<u32>()), prop::collection::vec(any::<u32>(), 0..3));
    let reasons = (option::of(select(effects)), option::of(select(whys)));
    (head(), words, who, spans, seen, entries, counts, reasons).prop_map(
        |(head, words, who, spans, seen, entries, counts, reasons)| Event {
            lock: words.0.map(Into::into),
            resource: words.1.map(Into::into),
            fault: words.2.map(Into::into),
            target: words.3.map(Into::into),
            error: words.4.map(Into::into),
            owner: who.0,
            token: who.1,
            deadline: who.2,
            ttl: spans.0,
            wait: spans.1,
            keep_for: spans.2,
            mode: spans.3,
            fair: spans.4,
            valid: seen.0,
            held: seen.1,
            value: seen.2,
            entries,
            count: counts.0,
            waiters: counts.1,
            clients: counts.2,
            effect: reasons.0,
            why: reasons.1,
            ..head
        },
    )
}
