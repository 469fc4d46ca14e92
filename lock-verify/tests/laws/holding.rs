//! L1, L2, L3, L9 and L10: what holders may believe.

use std::num::NonZeroU32;

use lock_verify::{
    history::{Effect, Event, F, Mode, Why},
    laws::Law,
};

use crate::tape::{Tape, at, ms, owner, token};

fn handed_over() -> Tape {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).renew(1, 10, (300, 305)).release(1, 10, (500, 510));
    tape.acquire(2, 11, (400, 520)).release(2, 11, (600, 610));
    tape
}

#[test]
fn a_lock_that_is_handed_over_is_believed_in_by_one() {
    handed_over().keeps(Law::Belief, 1);
}

#[test]
fn a_grant_before_the_release_overlaps() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).acquire(2, 11, (400, 420)).release(1, 10, (500, 510));
    tape.breaks(Law::Belief, &["5 Ok Acquire", "420 Ok Acquire", "500 Invoke Release"]);
}

#[test]
fn a_grant_before_the_deadline_of_a_renewal_overlaps() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).renew(1, 10, (300, 305)).acquire(2, 11, (1_000, 1_200));
    tape.breaks(Law::Belief, &["5 Ok Acquire", "305 Ok Renew", "1200 Ok Acquire"]);
    // Without the renewal it comes after the deadline.
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).acquire(2, 11, (1_000, 1_200)).keeps(Law::Belief, 1);
}

#[test]
fn a_deadline_that_a_look_tells_counts() {
    let mut tape = Tape::new();
    let said = |event: Event| event.lock("x").owner(owner(1)).token(token(10));
    tape.acquire(1, 10, (0, 5));
    tape.call(1, F::Look, (700, 701), said, |event, to| event.ok(to).valid(true).deadline(at(1_600)));
    tape.acquire(2, 11, (1_000, 1_200));
    tape.breaks(Law::Belief, &["5 Ok Acquire", "701 Ok Look", "1200 Ok Acquire"]);
}

#[test]
fn who_was_told_of_its_loss_believes_no_longer() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).call(9, F::ForceRelease, (50, 55), |e| e.lock("x"), |e, to| e.ok(to));
    tape.lost(1, 10, 100, Why::NotOurs).acquire(2, 11, (50, 150)).keeps(Law::Belief, 1);
}

#[test]
fn a_long_belief_overlaps_with_each_that_comes_within() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5));
    tape.acquire(2, 11, (100, 110)).release(2, 11, (120, 130)).acquire(3, 12, (200, 210)).release(3, 12, (220, 230));
    let expected: [&[&str]; 2] = [&["5 Ok Acquire", "110 Ok Acquire"], &["5 Ok Acquire", "210 Ok Acquire"]];
    assert_eq!(tape.broken(Law::Belief), expected);
}

#[test]
fn an_overlap_is_expected_where_data_was_lost_between_the_grants() {
    for (effect, expected) in [
        (Effect::DataLoss, true),
        (Effect::ClockBeyondBounds, true),
        (Effect::TakesLeases, true),
        (Effect::Harmless, false),
    ] {
        let mut tape = Tape::new();
        tape.acquire(1, 10, (0, 5)).fault("flush", (50, 60), effect).acquire(2, 11, (100, 110));
        if expected {
            tape.expects(Law::Belief);
        } else {
            tape.breaks(Law::Belief, &["5 Ok Acquire", "110 Ok Acquire"]);
        }
    }
    let mut tape = Tape::new();
    tape.fault("flush", (0, 1), Effect::DataLoss).acquire(1, 10, (2, 5)).acquire(2, 11, (100, 110));
    tape.breaks(Law::Belief, &["5 Ok Acquire", "110 Ok Acquire"]);
    let mut tape = Tape::new();
    tape.acquire(1, 10, (2, 5)).call(9, F::ForceRelease, (50, 55), |e| e.lock("x"), |e, to| e.ok(to));
    tape.acquire(2, 11, (100, 110)).expects(Law::Belief);
}

#[test]
fn tokens_rise() {
    handed_over().keeps(Law::Fence, 1);
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (10, 20)).acquire(2, 11, (30, 40)).keeps(Law::Fence, 1);
}

#[test]
fn a_token_that_falls_is_caught() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (10, 20)).acquire(2, 9, (30, 40));
    tape.breaks(Law::Fence, &["5 Ok Acquire", "30 Invoke Acquire", "40 Ok Acquire"]);
    // The highest of all before it counts, not only the last one.
    tape.release(2, 9, (50, 60)).acquire(3, 9_999, (70, 80)).release(3, 9_999, (85, 90)).acquire(4, 12, (95, 99));
    assert_eq!(tape.broken(Law::Fence)[1], ["80 Ok Acquire", "95 Invoke Acquire", "99 Ok Acquire"]);
}

#[test]
fn calls_under_way_together_may_be_granted_in_either_order() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 50)).release(1, 10, (60, 70)).acquire(2, 9, (40, 80));
    assert_eq!(tape.judged().of(Law::Fence).unwrap().checked, 0);
    // (With the release between them they can only have come in one: that is for the search of all answers.)
    assert_eq!(tape.broken(Law::Linear).len(), 1);
    // A retry counts from its first, unanswered try.
    let mut tape = Tape::new();
    tape.doubtful(2, (0, 4)).acquire(1, 10, (5, 10)).release(1, 10, (11, 12)).acquire(2, 9, (20, 30));
    assert_eq!(tape.judged().of(Law::Fence).unwrap().checked, 0);
    // (All answers taken together are impossible: somebody had it in between.)
    assert_eq!(tape.broken(Law::Linear).len(), 1);
}

#[test]
fn one_token_for_two_grants_is_caught() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 50)).release(1, 10, (60, 70)).acquire(2, 10, (40, 80));
    tape.breaks(Law::Fence, &["40 Invoke Acquire", "50 Ok Acquire", "80 Ok Acquire"]);
}

#[test]
fn tokens_rise_over_lost_data_but_not_with_a_clock_that_stepped_as_well() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (10, 20)).fault("flush", (21, 22), Effect::DataLoss);
    tape.acquire(2, 9, (30, 40));
    tape.breaks(Law::Fence, &["5 Ok Acquire", "30 Invoke Acquire", "40 Ok Acquire"]);
    tape.fault("step", (23, 24), Effect::ClockBeyondBounds).expects(Law::Fence);
}

#[test]
fn a_grant_keeps_its_token() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).renew(1, 10, (300, 305)).acquire(1, 10, (400, 410)).keeps(Law::Stability, 2);
    // After its end the same owner gets a grant of its own.
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (10, 20)).acquire(1, 11, (30, 40)).keeps(Law::Stability, 1);
}

#[test]
fn a_token_raised_by_re_entry_is_caught() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).acquire(1, 11, (400, 410));
    tape.breaks(Law::Stability, &["5 Ok Acquire", "410 Ok Acquire"]);
}

#[test]
fn a_token_raised_by_a_renewal_is_caught() {
    let mut tape = Tape::new();
    let said = |event: Event| event.lock("x").owner(owner(1)).token(token(10)).ttl(ms(1_000));
    tape.acquire(1, 10, (0, 5)).call(1, F::Renew, (300, 305), said, |event, to| event.ok(to).token(token(11)));
    tape.breaks(Law::Stability, &["300 Invoke Renew", "305 Ok Renew"]);
}

#[test]
fn readers_share_and_writers_exclude() {
    let reader = |event: Event| event.mode(Mode::Shared);
    let mut tape = Tape::new();
    tape.acquire_as(1, 10, (0, 5), reader).acquire_as(2, 11, (6, 10), reader);
    tape.release(1, 10, (20, 21)).release(2, 11, (22, 23)).acquire(3, 12, (15, 30)).keeps(Law::Capacity, 3);

    let mut tape = Tape::new();
    tape.acquire_as(1, 10, (0, 5), reader).acquire(3, 12, (15, 30)).release(1, 10, (40, 41));
    tape.breaks(Law::Capacity, &["5 Ok Acquire", "30 Ok Acquire", "40 Invoke Release"]);

    let mut tape = Tape::new();
    tape.acquire(3, 12, (15, 30)).acquire_as(1, 13, (0, 35), reader).release(3, 12, (40, 41));
    tape.breaks(Law::Capacity, &["30 Ok Acquire", "35 Ok Acquire", "40 Invoke Release"]);
}

#[test]
fn no_more_permits_than_there_are() {
    let permit = |event: Event| event.mode(Mode::Permits(NonZeroU32::new(2).unwrap()));
    let mut tape = Tape::new();
    tape.acquire_as(1, 10, (0, 5), permit).acquire_as(2, 11, (6, 10), permit).release(1, 10, (20, 21));
    tape.acquire_as(3, 12, (15, 30), permit).keeps(Law::Capacity, 3);

    let mut tape = Tape::new();
    tape.acquire_as(1, 10, (0, 5), permit).acquire_as(2, 11, (6, 10), permit).acquire_as(3, 12, (15, 30), permit);
    tape.breaks(Law::Capacity, &["5 Ok Acquire", "10 Ok Acquire", "30 Ok Acquire"]);
    tape.fault("flush", (11, 12), Effect::DataLoss).expects(Law::Capacity);
}

#[test]
fn an_exclusive_lock_is_nothing_for_capacity() {
    let report = handed_over().judged();
    assert_eq!(report.of(Law::Capacity).unwrap().checked, 0);
    assert!(!report.of(Law::Capacity).unwrap().is_kept());
}

#[test]
fn after_its_loss_a_grant_is_not_valid() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).look(1, 10, (50, 51), true).lost(1, 10, 100, Why::NotOurs);
    tape.look(1, 10, (99, 101), true).look(1, 10, (110, 111), false).keeps(Law::Finality, 3);
}

#[test]
fn a_grant_that_revives_is_caught() {
    let lost = || {
        let mut tape = Tape::new();
        tape.acquire(1, 10, (0, 5)).lost(1, 10, 100, Why::Expired);
        tape
    };
    let mut tape = lost();
    tape.look(1, 10, (110, 111), true);
    tape.breaks(Law::Finality, &["100 Ok Lost", "110 Invoke Look", "111 Ok Look"]);
    let mut tape = lost();
    tape.renew(1, 10, (110, 111));
    tape.breaks(Law::Finality, &["100 Ok Lost", "110 Invoke Renew", "111 Ok Renew"]);
    let mut tape = lost();
    tape.acquire(1, 10, (110, 111));
    tape.breaks(Law::Finality, &["100 Ok Lost", "110 Invoke Acquire", "111 Ok Acquire"]);
}

#[test]
fn a_late_answer_to_a_renewal_is_no_revival() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).renew(1, 10, (90, 150)).lost(1, 10, 100, Why::Expired).acquire(2, 11, (120, 130));
    tape.judged();
    assert!(tape.broken(Law::Finality).is_empty());
    assert!(tape.broken(Law::Belief).is_empty(), "it extends no belief either");
}

#[test]
fn a_renewal_that_left_after_the_loss_is_no_revival_if_the_grant_is_given_back() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).lost(1, 10, 100, Why::Expired);
    tape.renew(1, 10, (110, 111)).look(1, 10, (112, 113), false).release(1, 10, (120, 121));
    tape.keeps(Law::Finality, 2);
    tape.renew(1, 10, (130, 131));
    tape.breaks(Law::Finality, &["100 Ok Lost", "130 Invoke Renew", "131 Ok Renew"]);
}

#[test]
fn a_look_that_believes_beyond_its_own_deadline_is_caught() {
    let said = |event: Event| event.lock("x").owner(owner(1)).token(token(10));
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5));
    tape.call(1, F::Look, (1_100, 1_101), said, |event, to| event.ok(to).valid(true).deadline(at(1_005)));
    tape.breaks(Law::Finality, &["1100 Invoke Look", "1101 Ok Look"]);
}
