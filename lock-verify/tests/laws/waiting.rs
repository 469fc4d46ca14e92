//! L7, L8 and L11: who waits.

use lock_verify::{
    history::{Effect, Event, F, Why},
    laws::Law,
};

use crate::tape::{Tape, ms, owner};

fn waiting(event: Event) -> Event {
    event.wait(Event::FOR_EVER)
}

#[test]
fn a_waiter_gets_its_turn() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (500, 510)).acquire_as(2, 11, (100, 520), waiting);
    tape.timed_out(3, 300, (100, 410)).keeps(Law::Liveness, 2);
}

#[test]
fn a_lost_wake_up_is_caught() {
    let mut tape = Tape::new();
    // ttl 1000 + poll 100 + settle 100 after 510.
    tape.acquire(1, 10, (0, 5)).release(1, 10, (500, 510)).acquire_as(2, 11, (100, 1_720), waiting);
    tape.breaks(Law::Liveness, &["100 Invoke Acquire", "500 Invoke Release", "1720 Ok Acquire"]);
}

#[test]
fn a_waiter_that_is_never_served_is_caught() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5));
    tape.open(2, F::Acquire, 100, |event| waiting(event.lock("x").owner(owner(2)).ttl(ms(1_000))));
    tape.told(9, F::Exit, 2_300, |event| Event { kind: lock_verify::history::Kind::Info, ..event });
    tape.breaks(Law::Liveness, &["5 Ok Acquire", "100 Invoke Acquire"]);
}

#[test]
fn others_that_are_served_meanwhile_are_no_lost_wake_up() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (500, 510)).acquire_as(2, 12, (100, 2_400), waiting);
    tape.acquire(3, 11, (1_000, 1_200)).release(3, 11, (1_300, 1_310)).keeps(Law::Liveness, 1);
}

#[test]
fn a_lock_that_stays_taken_after_its_release_is_taken() {
    let mut tape = Tape::new();
    let said = |event: Event| event.lock("x").owner(owner(1)).token(crate::tape::token(10)).keep_for(ms(900));
    tape.acquire(1, 10, (0, 5)).call(1, F::Release, (500, 510), said, |event, to| event.ok(to));
    tape.acquire_as(2, 11, (100, 1_720), waiting).keeps(Law::Liveness, 1);
}

#[test]
fn a_lock_that_nobody_gave_back_for_sure_is_taken_to_its_deadline() {
    let mut tape = Tape::new();
    let said = |event: Event| event.lock("x").owner(owner(1)).token(crate::tape::token(10));
    tape.acquire(1, 10, (0, 5)).call(1, F::Release, (500, 510), said, |event, to| event.info(to));
    tape.acquire_as(2, 11, (100, 2_200), waiting).keeps(Law::Liveness, 1);
}

#[test]
fn what_happens_under_a_fault_is_not_held_against_anybody() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (500, 510)).acquire_as(2, 11, (100, 1_720), waiting);
    tape.fault("partition", (50, 600), Effect::Harmless).keeps(Law::Liveness, 1);
    // It starts to count when the fault is over.
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (500, 510)).acquire_as(2, 11, (100, 1_900), waiting);
    tape.fault("partition", (50, 600), Effect::Harmless);
    assert_eq!(tape.broken(Law::Liveness).len(), 1);
}

#[test]
fn a_time_out_that_comes_too_late_is_caught() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).renew(1, 10, (800, 805)).renew(1, 10, (1_600, 1_605));
    tape.timed_out(3, 300, (100, 1_700));
    tape.breaks(Law::Liveness, &["100 Invoke Acquire", "1700 Fail Acquire"]);
}

#[test]
fn nobody_waiting_is_nothing_to_check() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (500, 510)).keeps(Law::Liveness, 0);
}

/// Waiters 2 and 3, who stood in line at these times, and got these tokens.
fn in_line(second: (u64, u64, u64), third: (u64, u64, u64)) -> Tape {
    let mut tape = Tape::new();
    tape.terms.fair = true;
    tape.acquire(1, 10, (0, 5)).release(1, 10, (500, 510));
    for (who, (asked, got, token)) in [(2, second), (3, third)] {
        stand(&mut tape, who, asked, |tape| {
            tape.acquire_as(who, token, (asked, got), |event| event.fair(true).wait(Event::FOR_EVER));
        });
        tape.release(who, token, (got + 5, got + 10));
    }
    tape
}

/// Records that the call made by `make` stood in line 10 ms after it was begun.
fn stand(tape: &mut Tape, who: u32, asked: u64, make: impl FnOnce(&mut Tape)) {
    let call = tape.next_call();
    make(tape);
    tape.told(who, F::Queued, asked + 10, |event| Event { call, ..event.lock("x").owner(owner(who)) });
}

#[test]
fn who_came_first_is_served_first() {
    in_line((100, 520, 11), (200, 540, 12)).keeps(Law::Order, 1);
    // Who can tell, when both came at once?
    in_line((100, 540, 12), (105, 520, 11)).keeps(Law::Order, 0);
}

#[test]
fn who_jumps_the_queue_is_caught() {
    let tape = in_line((100, 540, 12), (200, 520, 11));
    tape.breaks(Law::Order, &["100 Invoke Acquire", "200 Invoke Acquire", "520 Ok Acquire", "540 Ok Acquire"]);
    let mut tape = in_line((100, 540, 12), (200, 520, 11));
    tape.terms.fair = false;
    assert_eq!(tape.judged().of(Law::Order).unwrap().checked, 0, "nobody claimed it");
}

#[test]
fn who_gave_up_after_another_was_served_is_caught() {
    let mut tape = Tape::new();
    tape.terms.fair = true;
    tape.acquire(1, 10, (0, 5)).release(1, 10, (500, 510));
    stand(&mut tape, 2, 100, |tape| {
        let said = |event: Event| event.lock("x").owner(owner(2)).ttl(ms(1_000)).fair(true).wait(ms(500));
        tape.call(2, F::Acquire, (100, 600), said, |event, to| event.fail(to, Why::TimedOut));
    });
    tape.acquire_as(3, 11, (200, 520), |event| event.fair(true).wait(Event::FOR_EVER));
    tape.breaks(Law::Order, &["100 Invoke Acquire", "200 Invoke Acquire", "520 Ok Acquire", "600 Fail Acquire"]);
}

#[test]
fn a_waiter_that_was_frozen_may_have_lost_its_place() {
    let mut tape = in_line((100, 540, 12), (200, 520, 11));
    let frozen = |event: Event| event.fault("SIGSTOP").clients(vec![2]);
    tape.call(0, F::Fault, (120, 300), frozen, |event, to| event.info(to));
    let report = tape.judged();
    assert_eq!(report.of(Law::Order).unwrap().broken, 0);
    assert_eq!(report.of(Law::Order).unwrap().unseen["fair waiters that a fault befell"], 1);
}

#[test]
fn waiting_is_silent() {
    let counted = |silent, count| {
        let mut tape = Tape::new();
        tape.terms.silent = silent;
        let said = |event: Event| event.waiters(10).ttl(ms(1_000));
        tape.call(9, F::Requests, (0, 2_500), said, |event, to| event.ok(to).count(count));
        tape
    };
    // Three ttls begun, ten waiters.
    counted(true, 30).keeps(Law::Silence, 1);
    counted(true, 31).breaks(Law::Silence, &["0 Invoke Requests", "2500 Ok Requests"]);
    // Where they poll every 100 ms, 26 polls each come on top.
    counted(false, 290).keeps(Law::Silence, 1);
    counted(false, 291).breaks(Law::Silence, &["0 Invoke Requests", "2500 Ok Requests"]);
}

#[test]
fn a_count_that_was_given_up_is_told() {
    let mut tape = Tape::new();
    let said = |event: Event| event.waiters(10).ttl(ms(1_000));
    tape.call(9, F::Requests, (0, 2_500), said, |event, to| event.info(to));
    let report = tape.judged();
    let silence = report.of(Law::Silence).unwrap();
    assert_eq!((silence.checked, silence.unseen["counts that were given up"]), (0, 1));
}
