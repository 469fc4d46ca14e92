//! L5 and L6: stale owners and unknown outcomes.

use lock_verify::{
    history::{Effect, Event, F, Kind, Why},
    laws::Law,
};

use crate::tape::{Tape, ms, owner, token};

/// The first grant expired, the second is held.
fn taken_over() -> Tape {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).lost(1, 10, 1_005, Why::Expired).acquire(2, 11, (1_000, 1_100));
    tape
}

#[test]
fn a_stale_owner_is_told_that_it_is_not_its_own() {
    let mut tape = taken_over();
    tape.stale_release(1, 10, (1_200, 1_210)).release(2, 11, (1_300, 1_310)).keeps(Law::Strangers, 1);
}

#[test]
fn a_stale_release_that_is_told_to_have_released_is_caught() {
    let mut tape = taken_over();
    tape.release(1, 10, (1_200, 1_210));
    tape.breaks(Law::Strangers, &["1100 Ok Acquire", "1200 Invoke Release", "1210 Ok Release"]);
    // The failed-over replica may still have had it.
    tape.fault("failover", (1_150, 1_190), Effect::DataLoss).expects(Law::Strangers);
}

#[test]
fn a_stale_renewal_that_is_good_is_caught_even_after_the_successor_is_gone() {
    let mut tape = taken_over();
    tape.release(2, 11, (1_200, 1_210)).renew(1, 10, (1_300, 1_310));
    tape.breaks(Law::Strangers, &["1100 Ok Acquire", "1300 Invoke Renew", "1310 Ok Renew"]);
}

#[test]
fn a_successor_freed_by_a_stranger_is_caught() {
    let stranger = ["1100 Ok Acquire", "1200 Invoke Release", "1210 Fail Release"];
    // Somebody else gets it,
    let mut tape = taken_over();
    tape.stale_release(1, 10, (1_200, 1_210)).acquire(3, 12, (1_220, 1_230));
    tape.breaks(Law::Strangers, &[&stranger[..], &["1230 Ok Acquire"]].concat());
    // or its holder is told.
    let mut tape = taken_over();
    tape.stale_release(1, 10, (1_200, 1_210)).lost(2, 11, 1_400, Why::NotOurs);
    tape.breaks(Law::Strangers, &[&stranger[..], &["1400 Ok Lost"]].concat());
}

#[test]
fn a_loss_without_a_stranger_is_nobodys_fault_here() {
    let mut tape = taken_over();
    tape.lost(2, 11, 1_400, Why::NotOurs).keeps(Law::Strangers, 1);
}

#[test]
fn a_doubtful_acquire_ends_by_itself() {
    let mut tape = Tape::new();
    tape.doubtful(1, (0, 50)).refused(2, (500, 510)).acquire(2, 11, (1_200, 1_210)).keeps(Law::Doubt, 1);
}

#[test]
fn a_doubtful_acquire_that_never_ends_is_caught() {
    let mut tape = Tape::new();
    // ttl 1000 + settle 100 after 50.
    tape.doubtful(1, (0, 50)).refused(2, (1_100, 1_110)).refused(2, (1_160, 1_170));
    tape.breaks(Law::Doubt, &["0 Invoke Acquire", "50 Info Acquire", "1160 Invoke Acquire", "1170 Fail Acquire"]);
    // Unless somebody else may have it.
    tape.doubtful(3, (1_120, 1_130));
    assert!(tape.broken(Law::Doubt).is_empty());
}

#[test]
fn grace_is_given() {
    let mut tape = Tape::new();
    tape.terms.grace = ms(500);
    tape.doubtful(1, (0, 50)).refused(2, (1_160, 1_170)).acquire(3, 11, (1_700, 1_710)).keeps(Law::Doubt, 1);
}

#[test]
fn a_retry_refused_by_its_own_first_try_is_caught() {
    let mut tape = Tape::new();
    tape.doubtful(1, (0, 50)).refused(1, (60, 70));
    tape.breaks(Law::Doubt, &["0 Invoke Acquire", "50 Info Acquire", "60 Invoke Acquire", "70 Fail Acquire"]);
    // It may have been somebody else's all the time.
    let mut tape = Tape::new();
    tape.acquire(2, 9, (0, 10)).doubtful(1, (20, 50)).refused(1, (60, 70));
    assert!(tape.broken(Law::Doubt).is_empty());
}

#[test]
fn a_retry_that_gets_another_grant_is_caught() {
    let looked = |tape: &mut Tape, span| {
        let said = |event: Event| event.lock("x");
        tape.call(9, F::Inspect, span, said, |event, to| event.ok(to).held(true).owner(owner(1)).token(token(10)));
    };
    let mut tape = Tape::new();
    tape.doubtful(1, (0, 50));
    looked(&mut tape, (51, 52));
    tape.acquire(1, 10, (60, 70)).keeps(Law::Doubt, 1);

    let mut tape = Tape::new();
    tape.doubtful(1, (0, 50));
    looked(&mut tape, (51, 52));
    tape.acquire(1, 11, (60, 70));
    tape.breaks(Law::Doubt, &["51 Invoke Inspect", "52 Ok Inspect", "60 Invoke Acquire", "70 Ok Acquire"]);

    let mut tape = Tape::new();
    tape.doubtful(1, (0, 50));
    looked(&mut tape, (1_160, 1_170));
    tape.breaks(Law::Doubt, &["0 Invoke Acquire", "50 Info Acquire", "1160 Invoke Inspect", "1170 Ok Inspect"]);
}

#[test]
fn a_call_cut_off_by_the_end_of_its_process_is_in_doubt() {
    let mut tape = Tape::new();
    tape.open(1, F::Acquire, 0, |event| event.lock("x").owner(owner(1)).ttl(ms(1_000)));
    tape.told(1, F::Exit, 50, |event| Event { kind: Kind::Info, ..event }).refused(2, (1_160, 1_170));
    tape.breaks(Law::Doubt, &["0 Invoke Acquire", "1160 Invoke Acquire", "1170 Fail Acquire"]);
}

#[test]
fn a_request_that_a_fault_held_up_is_given_time_from_the_faults_end() {
    let held_up = |ends| {
        let mut tape = Tape::new();
        tape.doubtful(1, (0, 50)).fault("delay", (40, ends), Effect::Harmless).refused(2, (1_160, 1_170));
        tape
    };
    held_up(59)
        .breaks(Law::Doubt, &["0 Invoke Acquire", "50 Info Acquire", "1160 Invoke Acquire", "1170 Fail Acquire"]);
    assert!(held_up(100).broken(Law::Doubt).is_empty());
    // Or its double, after the release.
    let mut tape = Tape::new();
    tape.doubtful(3, (0, 1)).acquire(1, 10, (5, 10)).release(1, 10, (20, 30));
    tape.fault("double", (4, 500), Effect::Harmless);
    tape.refused(2, (1_160, 1_170)).refused(2, (1_590, 1_600));
    assert!(tape.judged().is_clean(), "{}", tape.judged());
    tape.refused(2, (1_601, 1_602));
    assert_eq!(tape.broken(Law::Doubt).len(), 1);
}

#[test]
fn who_gave_up_may_have_had_it_for_a_moment() {
    let mut tape = Tape::new();
    tape.doubtful(3, (0, 1));
    let said = |event: Event| event.lock("x").owner(owner(1)).ttl(ms(1_000));
    tape.call(1, F::Acquire, (1_150, 1_160), said, |event, to| event.fail(to, Why::Cancelled));
    tape.refused(2, (1_155, 1_165));
    assert!(tape.judged().is_clean(), "{}", tape.judged());
}
