//! Danger: signals that miss the command, or leave something behind.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod stage;

use std::process::Stdio;

use nix::sys::signal::Signal;
use stage::{Running, Stage, group_is_gone, process_is_gone, until};

#[test]
fn signals_are_passed_on_to_the_commands_group() {
    let stage = Stage::new();
    for (signal, word) in [
        (Signal::SIGINT, "INT"),
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
    ] {
        let script = format!("trap 'echo got; exit 11' {word}; echo in; while :; do sleep 0.02; done");
        let mut running = stage.start("", &script);
        assert_eq!(running.line(), "in");
        running.signal(signal);
        assert_eq!(running.line(), "got");
        assert_eq!(running.code(), 11, "{word}");
    }
    assert_eq!(stage.status()["state"], "free");
}

#[test]
fn a_command_that_a_passed_on_signal_ends_gives_128_and_its_number() {
    let stage = Stage::new();
    let mut running = stage.start("", "echo in; exec sleep 100");
    assert_eq!(running.line(), "in");
    running.signal(Signal::SIGINT);
    assert_eq!(running.code(), 130);
    assert_eq!(stage.status()["state"], "free");
}

#[test]
fn a_signal_ends_the_wait_and_leaves_nothing_in_the_store() {
    let stage = Stage::new();
    let mut holder = stage.holder("--ttl 2s");
    let mut command = stage.run("", "echo never");
    command.stderr(Stdio::piped());
    let mut waiter = Running::start(command);
    let mut said = std::io::BufReader::new(waiter.child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.contains("waiting for") && line.contains(&format!("process {}", holder.child.id())), "{line}");
    waiter.signal(Signal::SIGTERM);
    assert_eq!(waiter.code(), 143);
    assert_eq!(holder.code(), 0);
    assert_eq!(stage.status()["state"], "free");
}

/// In the midst of an attempt, a grant may be on its way: it must be given back.
#[test]
fn a_signal_in_the_midst_of_acquiring_leaves_nothing_in_the_store() {
    let stage = Stage::new();
    assert_eq!(stage.start("", "exit 0").code(), 0);
    for micros in (0..30_000).step_by(1500) {
        let mut running = stage.start("--ttl 60s", "exec sleep 100");
        std::thread::sleep(std::time::Duration::from_micros(micros));
        running.signal(Signal::SIGINT);
        // Before there is a handler, the signal simply ends it.
        let status = running.child.wait().unwrap();
        assert!(!status.success(), "{status}");
        assert_eq!(stage.status()["state"], "free", "after {micros} µs");
    }
}

#[test]
fn grandchildren_that_are_left_are_ended_before_the_lock_is_released() {
    let stage = Stage::new();
    let mut running = stage.start("", "(trap '' HUP; exec sleep 100) & echo $$; echo $!; exit 3");
    let (group, grandchild) = (running.pid(), running.pid());
    assert_eq!(running.code(), 3, "the command's own code");
    assert!(group_is_gone(group) && process_is_gone(grandchild));
}

#[test]
fn stubborn_grandchildren_are_killed() {
    let stage = Stage::new();
    let script = "(trap '' TERM; echo ready; while :; do sleep 0.05; done) & echo $$; wait_for=$!; sleep 0.2; exit 4";
    let mut running = stage.start("--kill-after 300ms", script);
    let lines = [running.line(), running.line()];
    let group = lines.iter().find_map(|line| line.parse().ok()).map(nix::unistd::Pid::from_raw).unwrap();
    assert_eq!(running.code(), 4);
    assert!(group_is_gone(group));
}

#[test]
fn a_daemon_started_on_purpose_lives_on_after_a_normal_end() {
    let stage = Stage::new();
    // Its own session, and none of our pipes.
    let mut running = stage.start("", "setsid sh -c 'echo $$ > daemon; exec sleep 100' >/dev/null 2>&1 </dev/null & while ! [ -s daemon ]; do sleep 0.01; done");
    assert_eq!(running.code(), 0);
    let daemon = std::fs::read_to_string(stage.path("daemon")).unwrap();
    let daemon = nix::unistd::Pid::from_raw(daemon.trim().parse().unwrap());
    assert!(!process_is_gone(daemon));
    nix::sys::signal::kill(daemon, Signal::SIGKILL).unwrap();
    until("the daemon is gone", || process_is_gone(daemon));
}

#[test]
fn the_command_starts_with_no_signal_blocked_or_ignored() {
    let stage = Stage::new();
    let output = stage.leasehold(["run", &stage.lock, "--", "cat", "/proc/self/status"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mask = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0, "{text}");
    // The C library itself ignores its two internal signals (32 and 33) in what posix_spawn(3) starts.
    assert_eq!(mask("SigIgn:") & !(0b11 << 31), 0, "{text}");
}

#[test]
fn what_was_ignored_before_stays_ignored() {
    let stage = Stage::new();
    let line = format!(
        "trap '' HUP; exec '{}' run '{}' -- sh -c 'echo in; read go; echo still here'",
        env!("CARGO_BIN_EXE_leasehold"),
        stage.lock
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line]).env("LEASEHOLD_STORE", &stage.store).stdin(Stdio::piped());
    let mut running = Running::start(command);
    assert_eq!(running.line(), "in");
    running.signal(Signal::SIGHUP);
    let mut stdin = running.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"go\n").unwrap();
    assert_eq!(running.line(), "still here");
    assert_eq!(running.code(), 0);
}

/// The system tells nobody how a child ended who ignores SIGCHLD, and that is inherited.
#[test]
fn an_inherited_ignored_sigchld_does_not_hide_the_commands_end() {
    let stage = Stage::new();
    let mut command = std::process::Command::new("env");
    command.arg("--ignore-signal=CHLD").arg(env!("CARGO_BIN_EXE_leasehold"));
    command.args(["run", &stage.lock, "--", "sh", "-c", "echo in; exit 7"]).env("LEASEHOLD_STORE", &stage.store);
    let mut running = Running::start(command);
    assert_eq!(running.line(), "in");
    assert_eq!(running.code(), 7);
}
