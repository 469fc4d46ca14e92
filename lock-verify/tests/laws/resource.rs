//! L4: what a resource accepted.

use lock_verify::{
    history::{Entry, F, Why},
    laws::Law,
};

use crate::tape::{Tape, token};

fn written() -> Tape {
    let mut tape = Tape::new();
    tape.write(1, 10, 100, (0, 5)).write(1, 10, 101, (6, 9)).write(2, 11, 102, (8, 20));
    tape.attempt(1, 10, 103, (30, 31), |event, to| event.fail(to, Why::Stale));
    tape.attempt(2, 11, 104, (32, 33), |event, to| event.info(to));
    tape
}

fn read(mut tape: Tape, entries: &[(u64, u64)]) -> Tape {
    let entries = entries.iter().map(|(tok, value)| Entry(token(*tok), *value)).collect();
    tape.call(9, F::Read, (50, 51), |event| event.resource("r"), |event, to| event.ok(to).entries(entries));
    tape
}

#[test]
fn what_was_acknowledged_is_there_in_order() {
    read(written(), &[(10, 100), (10, 101), (11, 102)]).keeps(Law::Resource, 6);
    // What is unknown may be there.
    read(written(), &[(10, 100), (10, 101), (11, 102), (11, 104)]).keeps(Law::Resource, 7);
}

#[test]
fn a_lost_write_is_caught() {
    let tape = read(written(), &[(10, 100), (11, 102)]);
    tape.breaks(Law::Resource, &["6 Invoke Write", "9 Ok Write", "50 Invoke Read", "51 Ok Read"]);
}

#[test]
fn a_write_that_nobody_attempted_is_caught() {
    for stray in [(11, 999), (12, 102)] {
        let tape = read(written(), &[(10, 100), (10, 101), (11, 102), stray]);
        tape.breaks(Law::Resource, &["50 Invoke Read", "51 Ok Read"]);
    }
}

#[test]
fn a_refused_write_that_is_there_is_caught() {
    let tape = read(written(), &[(10, 100), (10, 101), (10, 103), (11, 102)]);
    tape.breaks(Law::Resource, &["30 Invoke Write", "31 Fail Write", "50 Invoke Read", "51 Ok Read"]);
}

#[test]
fn a_write_that_is_there_twice_is_caught() {
    let tape = read(written(), &[(10, 100), (10, 101), (10, 101), (11, 102)]);
    tape.breaks(Law::Resource, &["6 Invoke Write", "9 Ok Write", "50 Invoke Read", "51 Ok Read"]);
}

#[test]
fn a_token_that_falls_in_the_resources_order_is_caught() {
    let tape = read(written(), &[(10, 100), (11, 102), (10, 101)]);
    tape.breaks(Law::Resource, &["50 Invoke Read", "51 Ok Read"]);
}

#[test]
fn a_late_write_is_caught_without_a_read() {
    let mut tape = written();
    tape.write(1, 10, 105, (40, 45));
    tape.breaks(Law::Resource, &["8 Invoke Write", "20 Ok Write", "40 Invoke Write", "45 Ok Write"]);
}

#[test]
fn a_write_below_a_raised_register_is_caught() {
    let mut tape = Tape::new();
    let said = |event: lock_verify::history::Event| event.lock("x").resource("r").token(token(12));
    tape.call(3, F::Raise, (0, 5), said, |event, to| event.ok(to)).write(2, 11, 100, (6, 9));
    tape.breaks(Law::Resource, &["0 Invoke Raise", "5 Ok Raise", "6 Invoke Write", "9 Ok Write"]);
}

#[test]
fn writes_under_way_together_may_be_accepted_in_either_order() {
    let mut tape = Tape::new();
    tape.write(1, 10, 100, (0, 9)).write(2, 11, 101, (1, 5)).keeps(Law::Resource, 2);
    assert_eq!(tape.judged().of(Law::Resource).unwrap().unseen["resources that were never read"], 1);
}
