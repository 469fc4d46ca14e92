//! The check at the resource, from a shell: what passes, what is refused, and what it then doesn't do.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod stage;

use std::{
    io::Read,
    process::{Output, Stdio},
};

use nix::sys::signal::Signal;
use stage::{Stage, code, one_line};

fn fence(stage: &Stage, arguments: &[&str]) -> Output {
    stage.leasehold(["fence"]).args(arguments).output().unwrap()
}

fn shown(stage: &Stage) -> serde_json::Value {
    let output = fence(stage, &["show", "report", "--json"]);
    assert_eq!(code(&output), 0, "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_lower_token_is_refused_and_the_highest_stays() {
    let stage = Stage::new();
    assert!(shown(&stage)["token"].is_null());
    for (token, expected) in [("5", 0), ("5", 0), ("7", 0), ("6", 1), ("5", 1), ("7", 0)] {
        let output = fence(&stage, &["check", "report", token, "--lock", "nightly"]);
        assert_eq!(code(&output), expected, "{token}: {output:?}");
        assert!(output.stdout.is_empty());
    }
    let refused = fence(&stage, &["check", "report", "6@nightly", "-E", "42"]);
    assert_eq!(code(&refused), 42);
    let line = one_line(&refused);
    assert!(line.contains("token 6 of \"nightly\" is stale, 7 was seen"), "{line}");
    assert_eq!(shown(&stage), serde_json::json!({ "resource": "report", "lock": "nightly", "token": 7 }));
    let once = |token| code(&fence(&stage, &["check", "report", token, "--once"]));
    assert_eq!((once("7@nightly"), once("8@nightly"), once("8@nightly")), (1, 0, 1));
}

#[test]
fn a_token_of_another_lock_is_refused_until_the_fence_is_forgotten() {
    let stage = Stage::new();
    assert_eq!(code(&fence(&stage, &["check", "report", "5@nightly"])), 0);
    let other = fence(&stage, &["check", "report", "9@hourly"]);
    assert!(code(&other) == 1 && one_line(&other).contains("fenced by \"nightly\""), "{other:?}");
    assert_eq!(code(&fence(&stage, &["forget", "report"])), 64, "not without --force");
    assert_eq!(code(&fence(&stage, &["forget", "report", "--force"])), 0);
    assert_eq!(code(&fence(&stage, &["check", "report", "1@hourly"])), 0);
}

#[test]
fn what_is_no_token_is_wrong_usage_and_nothing_is_written() {
    let stage = Stage::new();
    let bad = [
        "0",
        "-1",
        "+1",
        "01",
        " 5",
        "5 ",
        "5 6",
        "five",
        "",
        "5.0",
        "9223372036854775808",
        "-1@nightly",
        "5@",
        "5@a b",
    ];
    for token in bad {
        let output = fence(&stage, &["check", "report", token, "--lock", "nightly"]);
        assert_eq!(code(&output), 64, "{token:?}: {output:?}");
        assert!(!one_line(&output).is_empty());
    }
    let nameless = fence(&stage, &["check", "report", "5"]);
    assert!(code(&nameless) == 64 && one_line(&nameless).contains("--lock"), "{nameless:?}");
    for mixed in [
        vec!["check", "", "5@nightly"],
        vec!["check", "report", "5@nightly", "--lock", "hourly"],
        vec!["check", "report", "5@nightly", "-E", "0"],
        vec!["run", "report", "--lock", "nightly", "--", "true"],
        // It would forget at once what it was told.
        vec!["check", "report", "5@nightly", "--store", "memory:"],
    ] {
        assert_eq!(code(&fence(&stage, &mixed)), 64, "{mixed:?}");
    }
    assert!(shown(&stage)["token"].is_null());
}

#[test]
fn a_command_runs_under_the_token_of_its_lease_and_a_late_one_does_not() {
    let stage = Stage::new();
    let script = r#""$L" fence run report -- sh -c 'echo done; exit 3'; echo "code $?""#;
    let under_lease = |script: &str, options: &str| {
        let mut command = stage.run(options, script);
        command.env("L", env!("CARGO_BIN_EXE_leasehold"));
        command
    };
    let output = under_lease(script, "").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "done\ncode 3\n");
    // Everybody stands still for longer than the lease: the keeper, its watchdog and the command. Nobody ends it in time.
    let late = r#"echo $PPID; echo $$; read go; exec "$L" fence run report -- echo late"#;
    let mut command = under_lease(late, "--ttl 1s");
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut frozen = stage::Running::start(command);
    let (watchdog, writer) = (frozen.pid(), frozen.pid());
    frozen.signal(Signal::SIGSTOP);
    for process in [watchdog, writer] {
        nix::sys::signal::kill(process, Signal::SIGSTOP).unwrap();
    }
    let next = under_lease(script, "").output().unwrap();
    assert_eq!(String::from_utf8(next.stdout).unwrap(), "done\ncode 3\n", "the next one got the lock and wrote");
    // The writer alone goes on.
    drop(frozen.child.stdin.take());
    nix::sys::signal::kill(writer, Signal::SIGCONT).unwrap();
    let mut rest = String::new();
    frozen.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "nothing came late");
    nix::sys::signal::kill(watchdog, Signal::SIGCONT).unwrap();
    frozen.signal(Signal::SIGCONT);
    assert_eq!(frozen.code(), 75);
    let mut said = String::new();
    frozen.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("is stale"), "{said}");
}

#[test]
fn a_command_that_cannot_be_run_says_so_as_a_shell_does() {
    let stage = Stage::new();
    let run = |arguments: &[&str]| fence(&stage, &[&["run", "report", "--token", "5@x", "--"], arguments].concat());
    assert_eq!(code(&run(&["no-such-command"])), 127);
    assert_eq!(code(&run(&["/"])), 126);
    assert_eq!(code(&run(&["sh", "-c", "exit 9"])), 9);
    assert_eq!(code(&fence(&stage, &["run", "report", "--", "true"])), 64, "no token is known");
    let unreachable = stage
        .leasehold([
            "fence",
            "run",
            "--store",
            "sqlite:/missing/locks.db",
            "report",
            "--token",
            "5@x",
            "--",
            "echo",
            "x",
        ])
        .output()
        .unwrap();
    assert!(code(&unreachable) == 69 && unreachable.stdout.is_empty(), "{unreachable:?}");
}
