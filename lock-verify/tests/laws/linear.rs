//! Answers that one lock can have given, and answers that none can.

use std::time::Duration;

use lock_verify::{
    history::{Effect, Event, F, History, Kind},
    laws::{
        Law, Terms, judge,
        linear::{Answer, Ask, Model, Searched, Step, search},
    },
};
use proptest::prelude::*;

use crate::{
    reference::{Plan, retoken, run, terms},
    tape::{Tape, at, ms, owner, token},
};

const ALL: [Model; 3] = [Model::OwnerAware, Model::Fenced, Model::FencedReentrant];

fn step((start, end): (u64, u64), ask: Ask, answer: Answer) -> Step {
    Step { start: at(start), ask, answer: Some((at(end), answer)) }
}

/// Asked, and never answered.
fn open(start: u64, ask: Ask) -> Step {
    Step { start: at(start), ask, answer: None }
}

fn acquire(who: u32, tok: u64, span: (u64, u64)) -> Step {
    step(span, Ask::Acquire(owner(who)), Answer::Granted(token(tok)))
}

fn refused(who: u32, span: (u64, u64)) -> Step {
    step(span, Ask::Acquire(owner(who)), Answer::Held)
}

fn renew(who: u32, tok: u64, span: (u64, u64), answer: Answer) -> Step {
    step(span, Ask::Renew(owner(who), token(tok)), answer)
}

fn release(who: u32, tok: u64, span: (u64, u64), answer: Answer) -> Step {
    step(span, Ask::Release(owner(who), Some(token(tok))), answer)
}

fn expires(who: u32, tok: u64, from: u64) -> Step {
    open(from, Ask::Expire(owner(who), Some(token(tok))))
}

/// Which of the models can answer like that.
#[track_caller]
fn answered_by(steps: &[Step], models: &[Model]) {
    for model in ALL {
        let expected = if models.contains(&model) { Searched::Linearizable } else { Searched::Impossible };
        assert_eq!(search(model, Some(token(5)), steps), expected, "{model:?}");
    }
}

#[test]
fn a_lock_that_is_handed_over() {
    let steps = [
        acquire(1, 10, (0, 5)),
        refused(2, (6, 9)),
        renew(1, 10, (10, 12), Answer::Done),
        release(1, 10, (20, 30), Answer::Done),
        acquire(2, 11, (15, 25)),
        release(1, 10, (32, 33), Answer::NotOurs),
        release(2, 11, (35, 40), Answer::Done),
    ];
    answered_by(&steps, &ALL);
}

#[test]
fn two_at_once() {
    answered_by(&[acquire(1, 10, (0, 5)), acquire(2, 11, (6, 9))], &[]);
    // Once the first may be over, the second may have it,
    answered_by(&[acquire(1, 10, (0, 5)), expires(1, 10, 7), acquire(2, 11, (6, 9))], &ALL);
    // and not before.
    answered_by(&[acquire(1, 10, (0, 5)), expires(1, 10, 10), acquire(2, 11, (6, 9))], &[]);
}

#[test]
fn a_refusal_by_a_free_lock() {
    answered_by(&[refused(1, (0, 5))], &[]);
    answered_by(&[acquire(1, 10, (0, 5)), release(1, 10, (6, 7), Answer::Done), refused(2, (8, 9))], &[]);
    answered_by(&[acquire(1, 10, (0, 5)), release(1, 10, (6, 9), Answer::Done), refused(2, (8, 9))], &ALL);
}

#[test]
fn tokens_that_do_not_rise() {
    let twice = |second| [acquire(1, 10, (0, 5)), release(1, 10, (6, 7), Answer::Done), acquire(2, second, (8, 9))];
    answered_by(&twice(11), &ALL);
    answered_by(&twice(10), &[Model::OwnerAware]);
    answered_by(&twice(9), &[Model::OwnerAware]);
    answered_by(&[acquire(1, 5, (0, 5))], &[Model::OwnerAware]);
}

#[test]
fn the_same_owner_again() {
    answered_by(&[acquire(1, 10, (0, 5)), acquire(1, 10, (6, 9))], &[Model::OwnerAware, Model::FencedReentrant]);
    answered_by(&[acquire(1, 10, (0, 5)), acquire(1, 11, (6, 9))], &[Model::OwnerAware]);
    answered_by(&[acquire(1, 10, (0, 5)), refused(1, (6, 9))], &[Model::Fenced]);
}

#[test]
fn a_call_that_nobody_answered() {
    let doubt = open(0, Ask::Acquire(owner(1)));
    // It may have been made, or not.
    answered_by(&[doubt.clone(), refused(2, (6, 9))], &ALL);
    answered_by(&[doubt.clone(), acquire(2, 11, (6, 9))], &ALL);
    // Its retry gets what was made, or makes it.
    answered_by(&[doubt.clone(), acquire(1, 10, (6, 9))], &ALL);
    answered_by(
        &[doubt.clone(), refused(2, (1, 2)), acquire(1, 10, (6, 9))],
        &[Model::OwnerAware, Model::FencedReentrant],
    );
    // Refused by itself.
    answered_by(&[doubt.clone(), refused(1, (6, 9))], &[Model::Fenced]);
    // It gives no second one.
    answered_by(&[doubt, acquire(2, 11, (6, 9)), refused(3, (10, 11)), acquire(4, 12, (12, 13))], &[]);
}

#[test]
fn strangers_change_nothing() {
    let held = [acquire(1, 10, (0, 5)), expires(1, 10, 6), acquire(2, 11, (7, 9))];
    let and = |step: Step| [&held[..], &[step]].concat();
    answered_by(&and(renew(1, 10, (10, 12), Answer::NotOurs)), &ALL);
    answered_by(&and(renew(1, 10, (10, 12), Answer::Done)), &[]);
    answered_by(&and(release(1, 10, (10, 12), Answer::Done)), &[]);
    let freed = [and(release(1, 10, (10, 12), Answer::NotOurs)), vec![acquire(3, 12, (13, 14))]].concat();
    answered_by(&freed, &[]);
}

#[test]
fn a_forced_release_frees() {
    let steps = [acquire(1, 10, (0, 5)), step((6, 7), Ask::ForceRelease, Answer::Done), acquire(2, 11, (8, 9))];
    answered_by(&steps, &ALL);
    let open = [acquire(1, 10, (0, 5)), open(6, Ask::ForceRelease), acquire(2, 11, (8, 9))];
    answered_by(&open, &ALL);
}

#[test]
fn what_is_too_big_is_not_searched() {
    let many: Vec<Step> = (0..61).map(|number| refused(1, (number, number))).collect();
    assert_eq!(search(Model::Fenced, None, &many), Searched::TooBig);
    let open: Vec<Step> = (0..7).map(|who| open(0, Ask::Acquire(owner(who)))).collect();
    assert_eq!(search(Model::Fenced, None, &open), Searched::TooBig);
    // All at once, in too many orders: the last refusal is what makes each of them impossible.
    let mut orders: Vec<Step> = (1..12).map(|who| renew(who, 1, (0, 9), Answer::NotOurs)).collect();
    orders.push(refused(1, (10, 11)));
    assert_eq!(search(Model::Fenced, None, &orders), Searched::TooBig);
}

#[test]
fn a_history_is_cut_where_the_lock_is_free() {
    let mut tape = Tape::new();
    for round in 0..100 {
        let start = round * 100;
        tape.acquire(1, 10 + round, (start, start + 5)).release(1, 10 + round, (start + 10, start + 20));
    }
    tape.keeps(Law::Linear, 100);
}

#[test]
fn an_impossible_stretch_is_told_up_to_the_answer_that_makes_it_so() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (10, 20));
    tape.acquire(2, 11, (30, 40)).acquire(3, 12, (50, 60)).release(3, 12, (70, 80)).release(2, 11, (90, 95));
    tape.breaks(Law::Linear, &["30 Invoke Acquire", "40 Ok Acquire", "50 Invoke Acquire", "60 Ok Acquire"]);
    // Beyond the laws nothing is said.
    tape.fault("flush", (45, 46), Effect::DataLoss);
    let report = tape.judged();
    let finding = report.of(Law::Linear).unwrap();
    assert_eq!((finding.checked, finding.broken), (1, 0), "{report}");
    assert_eq!(finding.unseen["stretches in which a fault was beyond the laws"], 1);
}

#[test]
fn a_stretch_too_big_is_told_as_not_checked() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5));
    for time in 10..100 {
        tape.renew(1, 10, (time, time));
    }
    tape.release(1, 10, (110, 120));
    let report = tape.judged();
    assert!(
        report.to_string().contains("nothing to check; not checked: 1 stretches too big to be searched"),
        "{report}"
    );
}

#[test]
fn a_refusal_while_somebody_waits_says_nothing() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (10, 20)).refused(3, (30, 35));
    tape.acquire_as(2, 11, (15, 40), |event: Event| event.wait(ms(1_000))).release(2, 11, (50, 60));
    assert!(tape.judged().of(Law::Linear).unwrap().is_kept());
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (10, 20)).refused(3, (30, 35));
    assert_eq!(tape.broken(Law::Linear).len(), 1);
}

#[test]
fn a_refusal_by_a_lock_that_is_kept_taken_says_nothing() {
    let kept = |refused| {
        let mut tape = Tape::new();
        let said = |event: Event| event.lock("x").owner(owner(1)).token(token(10)).keep_for(ms(500));
        tape.acquire(1, 10, (0, 5)).call(1, F::Release, (10, 20), said, |event, to| event.ok(to));
        tape.refused(2, (refused, refused + 5));
        tape
    };
    assert!(kept(30).broken(Law::Linear).is_empty());
    assert!(kept(515).broken(Law::Linear).is_empty());
    assert_eq!(kept(521).broken(Law::Linear).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Of a service with few clients much can be searched.
    #[test]
    fn a_correct_service_is_linearizable(seed: u64, clients in 1_u32..4, lossy in 0_u64..60) {
        let events = run(Plan { seed, clients, rounds: 12, lossy, wiped: false });
        let report = judge(&History::new(events).unwrap(), &terms());
        prop_assert!(report.is_clean(), "{report}");
    }
}

/// Whatever was searched, exchanging two of its tokens makes it impossible.
#[test]
fn two_tokens_swapped_are_impossible() {
    let mut changed = 0;
    for seed in 0..60 {
        let mut events = run(Plan { seed, clients: 2, rounds: 12, lossy: 0, wiped: false });
        let got =
            |event: &&Event| event.f == F::Acquire && event.kind == Kind::Ok && event.lock.as_deref() == Some("one");
        let grants: Vec<Event> = events.iter().filter(got).cloned().collect();
        let Some([one, other]) = grants.windows(2).nth(seed as usize % grants.len().max(2)) else { continue };
        retoken(&mut events, one, other.token.unwrap());
        retoken(&mut events, other, one.token.unwrap());
        let report = judge(&History::new(events).unwrap(), &terms());
        let finding = report.of(Law::Linear).unwrap();
        if !finding.unseen.contains_key("stretches too big to be searched") {
            changed += 1;
            assert!(finding.broken > 0, "seed {seed}\n{report}");
        }
    }
    assert!(changed >= 20, "only {changed} histories could be changed and searched");
}

#[test]
fn most_of_a_quiet_history_is_searched() {
    let events = run(Plan { seed: 3, clients: 2, rounds: 200, lossy: 20, wiped: false });
    let report = judge(&History::new(events).unwrap(), &Terms { settle: Duration::from_millis(1), ..terms() });
    let finding = report.of(Law::Linear).unwrap();
    let too_big = finding.unseen.get("stretches too big to be searched").copied().unwrap_or_default();
    assert!(finding.checked > 10 * too_big && finding.checked > 50, "{report}");
}

/// Of a call that was answered at the wrong time, the whole is impossible although each law by itself may not see it.
#[test]
fn a_renewal_answered_before_its_grant() {
    let mut tape = Tape::new();
    let said = |event: Event| event.lock("x").owner(owner(1)).token(token(10));
    tape.call(1, F::Renew, (0, 5), said, Event::ok).acquire(1, 10, (6, 9)).release(1, 10, (10, 20));
    tape.breaks(Law::Linear, &["0 Invoke Renew", "5 Ok Renew"]);
}
