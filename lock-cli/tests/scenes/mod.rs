//! What must be so on every store: the main job, played on a stage.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::{
    fs,
    process::{Child, Output, Stdio},
    time::Duration,
};

use leasehold::{Clock, SystemClock};
use nix::sys::signal::{Signal, killpg};

use crate::stage::{Stage, code, group_is_gone, now, one_line, passed, pause, until};

/// The counter of `flock`'s fame: read, sleep, write. One lost update and the sum is short.
pub fn processes_count_without_losing_one(stage: &Stage, processes: usize, runs: usize) {
    fs::write(stage.path("n"), "0").unwrap();
    let line = format!(
        "for i in $(seq {runs}); do '{}' run -q '{}' -- sh -c 'n=$(cat n); sleep 0.01; echo $((n+1)) > n' || exit 1; done",
        env!("CARGO_BIN_EXE_leasehold"),
        stage.lock,
    );
    let start = |_| {
        std::process::Command::new("sh")
            .args(["-c", &line])
            .current_dir(stage.directory.path())
            .env("LEASEHOLD_STORE", &stage.store)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let begun = now();
    let all: Vec<Child> = (0..processes).map(start).collect();
    let ends: Vec<Output> = all.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let failed: Vec<&Output> = ends.iter().filter(|end| !end.status.success()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let sum = fs::read_to_string(stage.path("n")).unwrap();
    println!("{processes} processes x {runs} runs: the file says {} after {:.1?}", sum.trim(), passed(begun));
    assert_eq!(sum.trim(), (processes * runs).to_string());
}

/// A holder is killed with its whole process group; `store_grace` is how much longer than the ttl this store waits.
pub fn a_killed_holder_is_succeeded(stage: &Stage) {
    let mut holder = stage.start("--ttl 2s", "echo $LEASEHOLD_TOKEN; echo $$; exec sleep 100");
    let first: u64 = holder.line().parse().unwrap();
    let group = holder.pid();
    let mut waiter = stage.waiter("--ttl 2s", "echo $LEASEHOLD_TOKEN");
    let begun = now();
    killpg(holder.id(), Signal::SIGKILL).unwrap();
    let second: u64 = waiter.line().parse().unwrap();
    let took = passed(begun);
    assert!(second > first);
    assert!(group_is_gone(group));
    println!("taken over after {took:.2?}, token {first} -> {second}");
    // The lease was renewed at most a third of its ttl ago, and lasts.
    assert!(took > Duration::from_millis(1250) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(waiter.code(), 0);
}

/// Only the keeper is frozen; its command ignores SIGTERM and writes the time every 50 ms.
pub fn a_frozen_keepers_command_is_over_before_the_next_one_starts(stage: &Stage) {
    let mut frozen =
        stage.start("--ttl 3s", "trap '' TERM; echo $$; while :; do date +%s%N >> written; sleep 0.05; done");
    let group = frozen.pid();
    let renewed = stage.token_and_deadline();
    let mut other = stage.waiter("--ttl 3s", "date +%s%N");
    // The freeze hits a lease that has been renewed.
    stage.await_renewal(renewed);
    frozen.signal(Signal::SIGSTOP);

    let started: u128 = other.line().parse().unwrap();
    assert!(group_is_gone(group), "nobody of the group is left when the next one starts");
    let text = fs::read_to_string(stage.path("written")).unwrap();
    let last: u128 = text.lines().rfind(|line| line.len() == 19).unwrap().parse().unwrap();
    assert!(last < started, "written {last}, the other started {started}");
    println!("last write {:.0?} before the other's start", Duration::from_nanos((started - last) as u64));

    let continued = now();
    frozen.signal(Signal::SIGCONT);
    assert_eq!(frozen.code(), 75);
    println!("75 after {:.0?}", passed(continued));
    assert!(passed(continued) < Duration::from_secs(1), "{:?}", passed(continued));
    assert_eq!(other.code(), 0);
}

/// The store stands still, at first for a while that a lease outlasts, and then for good. `lease_end` asks it until when
/// it would have kept the lease that was there at that moment, both in microseconds since the Unix epoch.
pub fn a_store_out_of_reach_ends_the_command_and_a_short_outage_does_not(
    stage: &Stage,
    server: &testbed::Server,
    lease_end: impl Fn(u64) -> u64,
) {
    let mut holder = stage.start("--ttl 6s", "trap '' TERM; echo $$; while :; do sleep 0.05; done");
    let group = holder.pid();

    // An outage of 1.9 s, begun at several points of the renewal's rhythm of some two seconds.
    for part in 0..3 {
        let renewed = stage.token_and_deadline();
        stage.await_renewal(renewed);
        let begun = now();
        while passed(begun) < Duration::from_millis(600 * part) {
            pause();
        }
        server.pause().unwrap();
        let begun = now();
        while passed(begun) < Duration::from_millis(1900) {
            assert!(!group_is_gone(group), "ended after {:?} of the outage", passed(begun));
            pause();
        }
        server.unpause().unwrap();
        server.await_ready(Duration::from_secs(10)).unwrap();
    }
    println!("three outages of 1.9 s: nothing happened to the command");

    let renewed = stage.token_and_deadline();
    stage.await_renewal(renewed);
    // The last renewal that is good: whatever the server does until it stands still counts.
    server.pause().unwrap();
    until("the group is gone", || group_is_gone(group));
    let gone_micros = SystemClock.wall_micros();
    assert_eq!(holder.code(), 75);
    server.unpause().unwrap();
    server.await_ready(Duration::from_secs(30)).unwrap();
    let took = Duration::from_micros(gone_micros - (lease_end(gone_micros) - 6_000_000));
    println!("the store out of reach: the group was gone {took:.2?} after the last good renewal");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

/// A store that can't be had: exit 69 in under five seconds, one line that names what is wrong and no password, and
/// the command was not started.
pub fn is_told_in_one_sentence(what: &str, url: &str, named: &str) {
    let stage = Stage::on(url.to_owned());
    let begun = now();
    let output = stage.run("", "touch ran").output().unwrap();
    let took = passed(begun);
    assert_eq!(code(&output), 69, "{what}: {output:?}");
    assert!(took < Duration::from_secs(5), "{what} took {took:?}");
    let line = one_line(&output);
    println!("{what}, {took:.2?}: {line}");
    assert!(line.contains(named) && !line.contains("s3cret-word"), "{what}: {line}");
    assert!(!stage.path("ran").exists());
}
