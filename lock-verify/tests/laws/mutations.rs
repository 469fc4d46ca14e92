//! Histories of a correct service keep all laws; changed in one place, the right law catches them.

use std::{num::NonZeroU32, time::Duration};

use lock_core::{FencingToken, Moment};
use lock_verify::{
    history::{Entry, Event, F, History, Kind, Mode, Process, Why},
    laws::{Law, judge},
};
use proptest::prelude::*;

use crate::reference::{Plan, TTL, retoken, run, same_lock, terms};

fn plans() -> impl Strategy<Value = Plan> {
    (any::<u64>(), 2_u32..8, 1_u32..25, prop_oneof![Just(0), Just(20), Just(150)])
        .prop_map(|(seed, clients, rounds, lossy)| Plan { seed, clients, rounds, lossy, wiped: false })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn a_correct_service_keeps_all_laws(plan in plans()) {
        let report = judge(&History::new(run(plan)).unwrap(), &terms());
        prop_assert!(report.is_clean(), "{plan:?}\n{report}");
        prop_assert!(report.findings().iter().all(|finding| finding.excused == 0), "{report}");
    }

    /// A store that forgets its holders breaks L1, and only where it may be expected; the fence holds all the same.
    #[test]
    fn a_store_that_forgets_is_excused_and_fenced(plan in plans()) {
        let report = judge(&History::new(run(Plan { wiped: true, ..plan })).unwrap(), &terms());
        prop_assert!(report.is_clean(), "{plan:?}\n{report}");
        for law in [Law::Fence, Law::Resource, Law::Finality] {
            prop_assert_eq!(report.of(law).unwrap().excused, 0, "{}", report);
        }
    }
}

#[test]
fn the_correct_service_gives_every_law_something_to_check() {
    let plan = Plan { seed: 1, clients: 8, rounds: 100, lossy: 20, wiped: false };
    let report = judge(&History::new(run(plan)).unwrap(), &terms());
    assert!(report.findings().iter().all(lock_verify::laws::Finding::is_kept), "{report}");
    let report = judge(&History::new(run(Plan { wiped: true, ..plan })).unwrap(), &terms());
    assert!(report.of(Law::Belief).unwrap().excused > 0, "{report}");
}

/// So many histories are changed in each way.
const SEEDS: u64 = 60;

/// Changes the histories in one place each; checks that the law catches each.
fn is_caught(law: Law, change: impl Fn(&mut Vec<Event>, u64) -> Option<()>) {
    let mut changed = 0;
    for seed in 0..SEEDS {
        let plan = Plan { seed, clients: 6, rounds: 20, lossy: 20, wiped: false };
        let mut events = run(plan);
        events.sort_by_key(|event| event.time);
        let before = events.clone();
        if change(&mut events, seed).is_none() {
            continue;
        }
        changed += 1;
        assert!(events != before, "seed {seed}: nothing was changed");
        let report = judge(&History::new(events).unwrap(), &terms());
        assert!(report.of(law).unwrap().broken > 0, "seed {seed}\n{report}");
    }
    // Not every history has a place for every change.
    assert!(changed >= SEEDS / 4, "only {changed} of {SEEDS} histories could be changed");
}

/// One of those that are there.
fn pick<T>(all: Vec<T>, seed: u64) -> Option<T> {
    let place = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (all.len().max(1) as u64);
    all.into_iter().nth(place as usize)
}

fn places(events: &[Event], is: impl Fn(&Event) -> bool) -> Vec<usize> {
    (0..events.len()).filter(|at| is(&events[*at])).collect()
}

/// The events that end in a grant.
fn grants(events: &[Event], lock: &str) -> Vec<usize> {
    places(events, |event| event.f == F::Acquire && event.kind == Kind::Ok && event.lock.as_deref() == Some(lock))
}

/// The first event that a call began with.
fn begun(events: &[Event], at: usize) -> usize {
    let (process, call) = (events[at].process, events[at].call);
    events.iter().position(|event| (event.process, event.call) == (process, call)).unwrap()
}

/// Shifts the grant at `at` to where the earlier one has just begun.
fn shift(events: &mut [Event], at: usize, into: usize) {
    let time = events[into].time + Duration::from_nanos(1);
    let invoke = begun(events, at);
    events[at].time = time;
    events[invoke].time = events[invoke].time.min(time);
}

#[test]
fn a_grant_shifted_into_anothers_belief() {
    is_caught(Law::Belief, |events, seed| {
        let pair = pick(grants(events, "one").windows(2).map(<[usize]>::to_vec).collect(), seed)?;
        (events[pair[0]].owner != events[pair[1]].owner).then_some(())?;
        shift(events, pair[1], pair[0]);
        Some(())
    });
}

#[test]
fn a_writer_shifted_into_a_readers_belief() {
    is_caught(Law::Capacity, |events, seed| {
        let all = grants(events, "shared");
        let writer = |at: &usize| events[*at].mode == Some(Mode::Exclusive);
        let pairs = all.windows(2).filter(|pair| !writer(&pair[0]) && writer(&pair[1])).map(<[usize]>::to_vec);
        let pair = pick(pairs.collect(), seed)?;
        shift(events, pair[1], pair[0]);
        Some(())
    });
}

#[test]
fn one_permit_less_than_were_out() {
    is_caught(Law::Capacity, |events, _| {
        let all = grants(events, "permits");
        // Two that were certainly out together: the second came before the first had done anything.
        all.windows(2).find(|pair| {
            let (one, other) = (&events[pair[0]], &events[pair[1]]);
            let next = events[pair[0] + 1..].iter().find(|event| event.process == one.process);
            one.owner != other.owner && next.is_some_and(|next| next.time > other.time)
        })?;
        let single = Mode::Permits(NonZeroU32::new(1).unwrap());
        events.iter_mut().filter(|event| matches!(event.mode, Some(Mode::Permits(_)))).for_each(|event| {
            event.mode = Some(single);
        });
        Some(())
    });
}

/// Two grants of one lock, the first of which was had before the second was first asked for.
fn one_after_the_other(events: &[Event], seed: u64) -> Option<(Event, Event)> {
    let all = grants(events, "two");
    let after = |one: usize, other: usize| {
        let owner = events[other].owner;
        let asked = events.iter().find(|event| event.f == F::Acquire && event.owner == owner);
        events[one].owner != owner && asked.is_some_and(|asked| asked.time > events[one].time)
    };
    let pairs = all.windows(2).filter(|pair| after(pair[0], pair[1]));
    pick(pairs.map(|pair| (events[pair[0]].clone(), events[pair[1]].clone())).collect(), seed)
}

#[test]
fn two_tokens_swapped() {
    is_caught(Law::Fence, |events, seed| {
        let (one, other) = one_after_the_other(events, seed)?;
        retoken(events, &one, other.token?);
        retoken(events, &other, one.token?);
        Some(())
    });
}

#[test]
fn a_token_given_twice() {
    is_caught(Law::Fence, |events, seed| {
        let (one, other) = one_after_the_other(events, seed)?;
        retoken(events, &other, one.token?);
        Some(())
    });
}

#[test]
fn a_token_raised_by_a_renewal() {
    is_caught(Law::Stability, |events, seed| {
        let renewed = places(events, |event| event.f == F::Renew && event.kind == Kind::Ok);
        let at = pick(renewed, seed)?;
        events[at].token = events[at].token.map(|token| FencingToken::new(token.get() + 1));
        Some(())
    });
}

/// Changes what was read last at a resource with something in it.
fn reread(events: &mut [Event], seed: u64, change: impl Fn(&mut Vec<Entry>) -> Option<()>) -> Option<()> {
    let full = |event: &Event| event.entries.as_ref().is_some_and(|entries| !entries.is_empty());
    let at = pick(places(events, full), seed)?;
    change(events[at].entries.as_mut()?)
}

#[test]
fn an_acknowledged_write_dropped() {
    is_caught(Law::Resource, |events, seed| {
        let done = pick(places(events, |event| event.f == F::Write && event.kind == Kind::Ok), seed)?;
        let value = events[done].value?;
        events.iter_mut().filter_map(|event| event.entries.as_mut()).for_each(|entries| {
            entries.retain(|entry| entry.1 != value);
        });
        Some(())
    });
}

#[test]
fn a_write_doubled() {
    is_caught(Law::Resource, |events, seed| {
        reread(events, seed, |entries| {
            let place = seed as usize % entries.len();
            entries.insert(place, entries[place]);
            Some(())
        })
    });
}

#[test]
fn a_write_out_of_nowhere() {
    is_caught(Law::Resource, |events, seed| {
        reread(events, seed, |entries| {
            entries.push(Entry(entries.last()?.0, 1_000_000_000));
            Some(())
        })
    });
}

#[test]
fn two_writes_swapped() {
    is_caught(Law::Resource, |events, seed| {
        reread(events, seed, |entries| {
            let place = pick((1..entries.len()).filter(|at| entries[at - 1].0 < entries[*at].0).collect(), seed)?;
            entries.swap(place - 1, place);
            Some(())
        })
    });
}

#[test]
fn a_refused_write_taken() {
    is_caught(Law::Resource, |events, seed| {
        let refused = pick(places(events, |event| event.f == F::Write && event.kind == Kind::Fail), seed)?;
        let entry = Entry(events[refused].token?, events[refused].value?);
        let lock = events[refused].lock.clone();
        let read = events.iter_mut().rfind(|event| event.entries.is_some() && event.resource == lock)?;
        let entries = read.entries.as_mut()?;
        entries.insert(entries.partition_point(|other| other.0 < entry.0), entry);
        Some(())
    });
}

#[test]
fn a_stale_owner_obeyed() {
    is_caught(Law::Strangers, |events, seed| {
        let stale = places(events, |event| {
            let is = matches!(event.f, F::Renew | F::Release) && event.why == Some(Why::NotOurs);
            let begun = events.iter().find(|invoke| (invoke.process, invoke.call) == (event.process, event.call));
            is && begun.is_some_and(|begun| {
                grants(events, event.lock.as_deref().unwrap()).iter().map(|at| &events[*at]).any(|grant| {
                    grant.mode == Some(Mode::Exclusive) && grant.token > event.token && grant.time < begun.time
                })
            })
        });
        let at = pick(stale, seed)?;
        (events[at].kind, events[at].why) = (Kind::Ok, None);
        Some(())
    });
}

/// A moment after everything that is still going on.
fn long_after(events: &[Event]) -> Moment {
    events.last().unwrap().time + TTL * 20
}

#[test]
fn a_lock_that_stays_taken_after_a_doubtful_acquire() {
    is_caught(Law::Doubt, |events, seed| {
        let at = pick(places(events, |event| event.f == F::Acquire && event.kind == Kind::Info), seed)?;
        let late = long_after(events);
        let asked = Event::invoke(late, Process::Client(98), 0, F::Acquire).lock(events[at].lock.clone()?).ttl(TTL);
        events.extend([asked.clone(), asked.fail(late + TTL / 50, Why::Held)]);
        Some(())
    });
}

#[test]
fn a_waiter_that_nobody_wakes() {
    is_caught(Law::Liveness, |events, seed| {
        let at = pick(places(events, |event| event.wait.is_some()), seed)?;
        let late = long_after(events);
        let asked = Event::invoke(late, Process::Client(98), 0, F::Acquire).lock(events[at].lock.clone()?).ttl(TTL);
        let asked = asked.wait(Event::FOR_EVER);
        events.extend([asked.clone(), asked.fail(late + TTL * 3, Why::Cancelled)]);
        Some(())
    });
}

#[test]
fn a_time_out_that_comes_late() {
    is_caught(Law::Liveness, |events, seed| {
        let at = pick(places(events, |event| event.why == Some(Why::TimedOut)), seed)?;
        events[at].time = events[at].time + TTL * 3;
        Some(())
    });
}

#[test]
fn a_queue_that_was_jumped() {
    is_caught(Law::Order, |events, seed| {
        let mut pairs = Vec::new();
        for (at, queued) in events.iter().enumerate().filter(|(_, event)| event.f == F::Queued) {
            let of = |event: &&Event| event.process == queued.process && event.call == queued.call;
            let first = events[at..].iter().filter(of).find(|event| event.kind == Kind::Ok && event.f == F::Acquire);
            let Some(first) = first else { continue };
            let later = grants(events, queued.lock.as_deref()?).into_iter().map(|at| &events[at]);
            let later = later.filter(|event| event.fair && event.owner != first.owner);
            let later = later.filter(|event| {
                let asked = events.iter().find(|one| (one.process, one.call) == (event.process, event.call));
                asked.is_some_and(|asked| asked.time > queued.time)
            });
            pairs.extend(later.map(|second| (first.clone(), second.clone())));
        }
        let (first, second) = pick(pairs, seed)?;
        assert!(same_lock(&first, &second));
        retoken(events, &first, second.token?);
        retoken(events, &second, first.token?);
        Some(())
    });
}

#[test]
fn a_lost_grant_called_valid() {
    is_caught(Law::Finality, |events, seed| {
        let at = pick(places(events, |event| event.valid == Some(false)), seed)?;
        events[at].valid = Some(true);
        Some(())
    });
}

#[test]
fn a_waiter_that_asks_all_the_time() {
    is_caught(Law::Silence, |events, _| {
        let counted = events.iter_mut().find(|event| event.count.is_some())?;
        counted.count = Some(1_000_000);
        Some(())
    });
}
