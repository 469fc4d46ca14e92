//! Danger: a command that outlives its lease, because who should have ended it was frozen or killed.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod scenes;
mod stage;

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use stage::{Stage, group_is_gone, now, passed, pause, process_is_gone, until};

/// Says who it is, starts a child, ignores SIGTERM and goes on for ever.
const STUBBORN: &str = "trap '' TERM; (while :; do sleep 0.05; done) & echo $$; echo $!; while :; do sleep 0.05; done";

#[test]
fn a_frozen_keepers_command_is_over_before_the_next_one_starts() {
    scenes::a_frozen_keepers_command_is_over_before_the_next_one_starts(&Stage::new());
}

#[test]
fn a_killed_keepers_group_is_gone_within_half_a_second() {
    let stage = Stage::new();
    let mut killed = stage.start("", STUBBORN);
    let (group, grandchild) = (killed.pid(), killed.pid());
    killed.signal(Signal::SIGKILL);
    let took = until("the group is gone", || group_is_gone(group) && process_is_gone(grandchild));
    assert!(took < Duration::from_millis(500), "{took:?}");
    println!("gone after {took:?}");
}

#[test]
fn a_killed_keepers_strays_are_ended_too() {
    let stage = Stage::new();
    let mut killed = stage.start("", "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.05; done' & wait");
    let stray = killed.pid();
    killed.signal(Signal::SIGKILL);
    let took = until("the stray is gone", || process_is_gone(stray));
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[test]
fn when_the_holders_whole_group_is_killed_a_waiter_takes_over() {
    scenes::a_killed_holder_is_succeeded(&Stage::new());
}

#[test]
fn when_the_watchdog_is_killed_the_keeper_ends_the_command() {
    let stage = Stage::new();
    let mut running = stage.start("", &format!("echo $PPID; {STUBBORN}"));
    let (watchdog, group, grandchild) = (running.pid(), running.pid(), running.pid());
    kill(watchdog, Signal::SIGKILL).unwrap();
    assert_eq!(running.code(), 70);
    assert!(group_is_gone(group) && process_is_gone(grandchild));
    assert_eq!(stage.status()["state"], "free");
}

#[test]
fn when_the_watchdog_is_frozen_a_loss_ends_the_command_all_the_same() {
    let stage = Stage::new();
    let mut running = stage.start("--ttl 1s", &format!("echo $PPID; {STUBBORN}"));
    let (watchdog, group, grandchild) = (running.pid(), running.pid(), running.pid());
    kill(watchdog, Signal::SIGSTOP).unwrap();
    assert!(stage.leasehold(["release", "--force", &stage.lock]).output().unwrap().status.success());
    assert_eq!(running.code(), 75);
    assert!(group_is_gone(group) && process_is_gone(grandchild));
}

#[test]
fn a_command_that_obeys_sigterm_can_clean_up_before_the_deadline() {
    let stage = Stage::new();
    let script = "trap 'echo cleaned; exit 0' TERM; echo in; while :; do sleep 0.02; done";
    let mut frozen = stage.start("--ttl 2s", script);
    assert_eq!(frozen.line(), "in");
    frozen.signal(Signal::SIGSTOP);
    assert_eq!(frozen.line(), "cleaned");
    frozen.signal(Signal::SIGCONT);
    assert_eq!(frozen.code(), 75, "the lease decided, whatever code the command left with");
}

/// Each stop is news for the keeper, and a frozen one doesn't read them.
#[test]
fn a_frozen_keepers_command_that_stops_and_continues_itself_is_ended_all_the_same() {
    let stage = Stage::new();
    let script = "echo $$; (while kill -STOP $$ && kill -CONT $$; do :; done) & while :; do sleep 0.05; done";
    let mut frozen = stage.start("--ttl 8s", script);
    let group = frozen.pid();
    frozen.signal(Signal::SIGSTOP);
    let took = until("the group is gone", || group_is_gone(group));
    assert!(took < Duration::from_secs(8), "{took:?}");
    frozen.signal(Signal::SIGCONT);
    assert_eq!(frozen.code(), 75);
}

/// What a frozen watchdog doesn't read must not hold up the keeper.
#[test]
fn when_a_frozen_watchdog_has_more_orders_than_it_can_be_sent_a_loss_ends_the_command_all_the_same() {
    let stage = Stage::new();
    let mut running = stage.start("--ttl 10s", "trap '' USR1; echo $PPID; echo $$; while :; do sleep 0.05; done");
    let (watchdog, group) = (running.pid(), running.pid());
    kill(watchdog, Signal::SIGSTOP).unwrap();
    // A socket holds some 280; signals that come faster than they are taken are one.
    for _ in 0..1500 {
        running.signal(Signal::SIGUSR1);
        pause();
    }
    let begun = now();
    assert!(stage.leasehold(["release", "--force", &stage.lock]).output().unwrap().status.success());
    assert_eq!(running.code(), 75);
    assert!(passed(begun) < Duration::from_secs(10), "{:?}", passed(begun));
    assert!(group_is_gone(group));
}

#[test]
fn when_keeper_and_watchdog_are_killed_in_one_instant_the_command_is_killed_too() {
    let stage = Stage::new();
    let mut running = stage.start("", "trap '' TERM HUP; echo $PPID; echo $$; while :; do sleep 0.05; done");
    let (watchdog, command) = (running.pid(), running.pid());
    // Nobody does anything in between: one freezes both first.
    running.signal(Signal::SIGSTOP);
    kill(watchdog, Signal::SIGSTOP).unwrap();
    kill(watchdog, Signal::SIGKILL).unwrap();
    running.signal(Signal::SIGKILL);
    let took = until("the command is gone", || process_is_gone(command));
    assert!(took < Duration::from_millis(500), "{took:?}");
}

/// A zombie goes when its parent looks after it, and a parent that left the group may never do that.
#[test]
fn a_zombie_in_the_group_that_nobody_looks_after_holds_nothing_up() {
    let stage = Stage::new();
    // The first sleep is of the group; its parent makes a session of its own and becomes another sleep.
    let script = "sh -c 'sleep 0.1 & exec setsid sh -c \"echo \\$\\$ > stray; exec sleep 100\" >/dev/null 2>&1 </dev/null' & \
                  while ! [ -s stray ]; do sleep 0.01; done; sleep 0.3; exit 5";
    let begun = now();
    let mut running = stage.start("", script);
    assert_eq!(running.code(), 5);
    assert!(passed(begun) < Duration::from_secs(5), "{:?}", passed(begun));
    let stray = std::fs::read_to_string(stage.path("stray")).unwrap().trim().parse().unwrap();
    kill(nix::unistd::Pid::from_raw(stray), Signal::SIGKILL).unwrap();
}
