//! The command: what it prints and how it exits.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use lock_core::{FencingToken, Moment, OwnerId};
use lock_verify::history::{Event, F, Process, Recorder};

fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

/// A client that has the lock from `got` on for a second.
fn record(folder: &Path, client: u32, got: u64) -> String {
    let file = folder.join(format!("{client}.jsonl"));
    let recorder = Recorder::to_file(&file).unwrap();
    let asked = Event::invoke(at(got - 5), Process::Client(client), 0, F::Acquire);
    let asked = asked.lock("x").owner(OwnerId::from_u128(client.into()));
    recorder.record(asked.clone());
    recorder.record(asked.ok(at(got)).token(FencingToken::new(got)).deadline(at(got + 1_000)));
    recorder.finish().unwrap();
    file.to_str().unwrap().to_owned()
}

fn lock_verify(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lock-verify")).args(args).output().unwrap()
}

#[test]
fn kept_is_0_broken_is_1_unreadable_is_2() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, late) =
        (record(folder.path(), 1, 10), record(folder.path(), 2, 500), record(folder.path(), 3, 1_500));
    let svg = folder.path().join("out.svg");

    let kept = lock_verify(&["judge", &one, &late, "--svg", svg.to_str().unwrap()]);
    let table = String::from_utf8(kept.stdout).unwrap();
    assert_eq!(kept.status.code(), Some(0), "{table}");
    assert!(table.contains("kept by 1 grants") && table.contains("nothing to check"), "{table}");
    assert!(fs::read_to_string(&svg).unwrap().contains("all 4 events"));

    let broken = lock_verify(&["judge", &one, &two, &late, "--svg", svg.to_str().unwrap()]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8(broken.stdout).unwrap().contains("L1 belief broken: "));
    assert!(fs::read_to_string(&svg).unwrap().contains("L1 belief: "));

    fs::write(folder.path().join("bad.jsonl"), "{\"time\":1}\n").unwrap();
    let bad = lock_verify(&["judge", folder.path().join("bad.jsonl").to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(String::from_utf8(bad.stderr).unwrap().contains("bad.jsonl:1: missing field `process`"));
    assert_eq!(lock_verify(&["judge", "/nowhere"]).status.code(), Some(2));
    assert_eq!(lock_verify(&["judge"]).status.code(), Some(2));
    assert_eq!(lock_verify(&["judge", &one, "--svg", "/nowhere/out.svg"]).status.code(), Some(2));
}

#[test]
fn a_torn_line_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let one = record(folder.path(), 1, 10);
    let bytes = fs::read(&one).unwrap();
    fs::write(&one, &bytes[..bytes.len() - 10]).unwrap();
    let judged = lock_verify(&["judge", &one]);
    assert_eq!(judged.status.code(), Some(0));
    assert!(String::from_utf8(judged.stderr).unwrap().contains("1.jsonl: the last line is cut off"));
}

#[test]
fn a_history_goes_to_jepsen() {
    let folder = tempfile::tempdir().unwrap();
    let one = record(folder.path(), 1, 10);
    let edn = String::from_utf8(lock_verify(&["edn", &one]).stdout).unwrap();
    assert!(edn.starts_with("{:process 1, :type :invoke, :f :acquire, ") && edn.lines().count() == 2, "{edn}");
}
