//! Danger: two commands at once.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod scenes;
mod stage;

use std::fs;

use stage::Stage;

#[test]
fn twenty_processes_count_without_losing_one() {
    scenes::processes_count_without_losing_one(&Stage::new(), 20, 50);
}

#[test]
fn a_waiter_starts_when_the_holder_ends_and_with_a_higher_token() {
    let stage = Stage::new();
    let mut holder = stage.start("", "echo $LEASEHOLD_TOKEN; sleep 0.5; echo out >> order");
    let first: u64 = holder.line().parse().unwrap();
    let mut waiter = stage.start("-q", "echo in >> order; echo $LEASEHOLD_TOKEN");
    let second: u64 = waiter.line().parse().unwrap();
    assert_eq!((holder.code(), waiter.code()), (0, 0));
    assert!(second > first);
    assert_eq!(fs::read_to_string(stage.path("order")).unwrap(), "out\nin\n");
}
