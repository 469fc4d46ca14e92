//! Danger: a command that notices, to its harm, that it runs under `leasehold`.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod stage;

use std::{
    ffi::OsStr,
    io::{Read, Write},
    os::unix::ffi::OsStrExt,
    process::Stdio,
};

use stage::{Running, Stage};

#[test]
fn a_large_pipe_passes_through_both_ways_and_ends() {
    let stage = Stage::new();
    let mut command = stage.leasehold(["run", &stage.lock, "--", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent: Vec<u8> = (0..8 << 20_u32).map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy).unwrap());
    let mut received = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
}

#[test]
fn the_reader_sees_the_end_of_stdout_when_the_command_closes_it() {
    let stage = Stage::new();
    let mut command = stage.run("", "echo said; exec >&-; read wait; exit 6");
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut text = String::new();
    running.stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "said\n");
    assert!(running.child.try_wait().unwrap().is_none(), "the command goes on");
    assert_eq!(running.code(), 6);
}

#[test]
fn a_closed_pipe_reaches_the_command_as_sigpipe() {
    let stage = Stage::new();
    let mut running = Running::start(stage.leasehold(["run", &stage.lock, "--", "yes"]));
    assert_eq!(running.line(), "y");
    let Running { child, stdout } = &mut running;
    drop(std::mem::replace(stdout, std::io::BufReader::new(spare_pipe())));
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
}

fn spare_pipe() -> std::process::ChildStdout {
    std::process::Command::new("true").stdout(Stdio::piped()).spawn().unwrap().stdout.unwrap()
}

#[test]
fn the_command_inherits_no_descriptor_of_ours() {
    let stage = Stage::new();
    let script = "ls /proc/$$/fd";
    let mut plain = std::process::Command::new("sh");
    let plain = plain.args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    let ours = stage.run("", script).output().unwrap();
    assert_eq!(String::from_utf8(ours.stdout).unwrap(), String::from_utf8(plain.stdout).unwrap());
}

#[test]
fn stderr_passes_through() {
    let stage = Stage::new();
    let output = stage.run("-q", "echo oops >&2").output().unwrap();
    assert_eq!(output.stderr, b"oops\n");
}

#[test]
fn arguments_arrive_byte_by_byte() {
    let stage = Stage::new();
    let odd = OsStr::from_bytes(b"a b\n'\"$HOME\xff--store=x");
    let mut command = stage.leasehold(["run", &stage.lock, "--", "printf", "%s|%s|%s", "", "--store"]);
    let output = command.arg(odd).output().unwrap();
    assert_eq!(output.stdout, b"|--store|a b\n'\"$HOME\xff--store=x");
}

#[test]
fn the_command_is_told_of_its_lease() {
    let stage = Stage::new();
    let mut running = stage.start("", "echo $LEASEHOLD_LOCK; echo $LEASEHOLD_OWNER; echo $LEASEHOLD_TOKEN; echo $LEASEHOLD_STORE_KIND; echo $LEASEHOLD_STORE; echo ${LEASEHOLD_INTERNAL_STORE-unset}; sleep 100");
    assert_eq!(running.line(), stage.lock);
    let status = stage.status();
    assert_eq!(status["state"], "held");
    assert_eq!(status["holder"]["pid"], running.child.id());
    assert_eq!(status["holder"]["label"], "sh");
    assert_eq!(running.line(), status["owner"].as_str().unwrap());
    assert_eq!(running.line(), status["token"].to_string());
    assert_eq!(running.line(), stage.store.split(':').next().unwrap().replace("postgresql", "postgres"));
    assert_eq!(running.line(), stage.store);
    assert_eq!(running.line(), "unset");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(running.code(), 143);
    let list = stage.leasehold(["list", &stage.lock, "--json"]).output().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list[0]["name"], stage.lock.as_str());
    assert_eq!(list[0]["state"], "free");
}

#[test]
fn people_see_who_holds_what() {
    let stage = Stage::new();
    let mut holder = stage.holder("");
    let text = |arguments: &[&str]| {
        let output = stage.leasehold(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let pid = format!("process {}", holder.child.id());
    let status = text(&["status", &stage.lock]);
    assert!(status.contains("is held by") && status.contains(&pid), "{status}");
    let list = text(&["list", &stage.lock]);
    assert!(list.contains("held") && list.contains(&pid) && list.contains("NAME"), "{list}");
    assert_eq!(text(&["list", "no-such-prefix", "--json"]).trim(), "[]");
    assert_eq!(holder.code(), 0);
    assert!(text(&["status", &stage.lock]).contains("is free"));
    assert!(text(&["release", "--force", &stage.lock]).contains("was not held"));
}

/// Danger: an administrator's `pgrep`, `pkill` or `killall` that doesn't find it.
#[test]
fn each_process_has_the_programs_name() {
    let stage = Stage::new();
    let mut running = stage.start("", "echo $PPID; exec sleep 100");
    let watchdog = running.pid();
    for process in [watchdog, running.id()] {
        assert_eq!(std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap().trim(), "leasehold");
    }
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(running.code(), 143);
}
