//! The examples run, and do what they say.

#![cfg(all(feature = "macros", feature = "sqlite", unix))]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

/// `cargo test` builds them beside the tests.
fn example(name: &str) -> Command {
    let tests: PathBuf = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let program = tests.parent().unwrap().join("examples").join(name);
    assert!(program.is_file(), "{} is not built: cargo build -p leasehold --examples", program.display());
    let mut command = Command::new(program);
    command.env_remove("LEASEHOLD_STORE");
    command
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn fleet() {
    let said = text(&example("fleet").output().unwrap());
    let ran = |by: &str| said.lines().filter(|line| line.contains(&format!("run by {by}"))).count();
    assert!(said.contains("0 of them twice"), "{said}");
    // How they share the ticks is chance; that the first crashes is certain only if it got two.
    assert!(ran("node-") >= 5, "{said}");
    assert_eq!(said.contains("crash of node-1"), ran("node-1") >= 2, "{said}");
}

/// The program itself fails unless the unfenced write is lost and the fenced ones are refused.
#[test]
fn unfenced_vs_fenced() {
    let said = text(&example("unfenced-vs-fenced").output().unwrap());
    assert_eq!(said.matches("=> 70: what B put in is gone").count(), 1, "{said}");
    assert_eq!(said.matches("=> 150: A was refused").count(), 2, "{said}");
}

#[test]
fn plain_loop() {
    let said = text(&example("plain_loop").output().unwrap());
    assert_eq!(said.lines().filter(|line| line.contains("the report, under token")).count(), 3, "{said}");
}

#[test]
fn choose() {
    assert!(text(&example("choose").output().unwrap()).contains("sqlite: ttls of"));
    assert!(text(&example("choose").arg("memory:").output().unwrap()).contains("memory: ttls of"));
    let wrong = example("choose").arg("carrier-pigeon://loft").output().unwrap();
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("is no store"), "{wrong:?}");
}

#[test]
fn worker_hands_over_at_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("locks.db").display());
    let start = || {
        let mut child = example("worker").env("LEASEHOLD_STORE", &store).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "waiting to be the active one");
        (child, lines)
    };
    let terminate = |child: &Child| {
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    };
    let (mut first, mut firsts) = start();
    assert!(firsts.next().unwrap().starts_with("active under token "));
    let (mut second, mut seconds) = start();
    let (mut third, mut thirds) = start();
    // One that still waits ends as well.
    terminate(&third);
    assert_eq!(thirds.next().unwrap(), "ended while waiting");
    assert!(third.wait().unwrap().success());
    terminate(&first);
    assert_eq!(firsts.next().unwrap(), "handed over");
    assert!(first.wait().unwrap().success());
    assert!(seconds.next().unwrap().starts_with("active under token "));
    terminate(&second);
    assert_eq!(seconds.next().unwrap(), "handed over");
    assert!(second.wait().unwrap().success());
}
