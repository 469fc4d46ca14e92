//! Danger: a caller (cron, make, a deploy script) that can't tell from the exit code what happened.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod stage;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use stage::{Stage, code, now, one_line, passed};

#[test]
fn the_commands_own_code_is_passed_on() {
    let stage = Stage::new();
    for expected in [0, 1, 7, 64, 75, 255] {
        assert_eq!(code(&stage.run("", &format!("exit {expected}")).output().unwrap()), expected);
    }
    let output = stage.leasehold(["run", &stage.lock, "-c", "exit $((40 + 2))"]).output().unwrap();
    assert_eq!(code(&output), 42, "a shell line");
}

/// The end of a command that is over before its watchdog looks must not be missed.
#[test]
fn the_shortest_command_ends_at_once() {
    let stage = Stage::new();
    for _ in 0..40 {
        let begun = now();
        assert_eq!(code(&stage.leasehold(["run", &stage.lock, "--", "true"]).output().unwrap()), 0);
        assert!(passed(begun) < Duration::from_secs(3), "{:?}", passed(begun));
    }
}

#[test]
fn a_command_ended_by_a_signal_gives_128_and_its_number() {
    let stage = Stage::new();
    for (signal, expected) in [("TERM", 143), ("KILL", 137), ("INT", 130), ("SEGV", 139)] {
        assert_eq!(code(&stage.run("", &format!("kill -{signal} $$")).output().unwrap()), expected);
    }
}

#[test]
fn not_found_and_not_executable_are_as_in_a_shell() {
    let stage = Stage::new();
    fs::write(stage.path("text"), "no program").unwrap();
    for (program, expected) in [("./nowhere", 127), ("no-such-program", 127), ("./text", 126), ("/tmp", 126)] {
        let output = stage.leasehold(["run", &stage.lock, "--", program]).output().unwrap();
        assert_eq!(code(&output), expected, "{program}: {output:?}");
        assert!(one_line(&output).contains(program));
    }
    assert_eq!(stage.status()["state"], "free");
}

#[test]
fn busy_has_a_code_of_its_own_and_names_the_holder() {
    let stage = Stage::new();
    let mut holder = stage.holder("");
    let output = stage.run("-n", "echo never").output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(one_line(&output).contains(&format!("process {}", holder.child.id())), "{output:?}");
    assert!(output.stdout.is_empty(), "the command didn't run");
    let output = stage.run("-n -q -E 99", "echo never").output().unwrap();
    assert_eq!((code(&output), output.stderr.len()), (99, 0), "-E, and -q says nothing");
    assert_eq!(holder.code(), 0);
    assert_eq!(code(&stage.run("-n", "exit 5").output().unwrap()), 5, "free again");
}

#[test]
fn a_wait_ends_in_time_as_busy() {
    let stage = Stage::new();
    let _holder = stage.holder("");
    let begun = now();
    let output = stage.run("-w 1.5 -E 9", "echo never").output().unwrap();
    assert_eq!(code(&output), 9);
    let took = passed(begun);
    assert!(took >= Duration::from_millis(1500) && took < Duration::from_millis(3000), "{took:?}");
}

#[test]
fn a_lock_that_was_taken_away_ends_the_command_with_75() {
    let stage = Stage::new();
    for (options, expected) in [("--ttl 1s", 75), ("--ttl 1s --lost-exit-code 33", 33)] {
        let mut holder = stage.start(options, "echo in; exec sleep 100");
        assert_eq!(holder.line(), "in");
        let output = stage.leasehold(["release", "--force", &stage.lock]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(holder.code(), expected);
    }
}

#[test]
fn at_most_for_ends_the_command_with_75_and_says_so() {
    let stage = Stage::new();
    let begun = now();
    let output = stage.run("--at-most-for 1s", "trap '' TERM; while :; do sleep 0.1; done").output().unwrap();
    assert_eq!(code(&output), 75);
    assert!(one_line(&output).contains("--at-most-for"), "{output:?}");
    assert!(passed(begun) < Duration::from_millis(1500), "{:?}", passed(begun));
    assert_eq!(stage.status()["state"], "free", "not left to its ttl of 30 s");
}

#[test]
fn at_least_for_keeps_the_lock_after_the_command() {
    let stage = Stage::new();
    let begun = now();
    assert_eq!(code(&stage.run("--at-least-for 1s", "exit 0").output().unwrap()), 0);
    assert_eq!(code(&stage.run("-n", "exit 0").output().unwrap()), 1);
    assert_eq!(code(&stage.run("-w 10", "exit 0").output().unwrap()), 0);
    assert!(passed(begun) >= Duration::from_secs(1));
}

#[test]
fn bad_input_is_refused_in_one_line_that_says_what_to_do() {
    let stage = Stage::new();
    let long = "x".repeat(513);
    for (arguments, hint) in [
        (vec!["run", "", "--", "true"], "empty"),
        (vec!["run", &long, "--", "true"], "512"),
        (vec!["run", "x", "--ttl", "0", "--", "true"], "ttl"),
        (vec!["run", "x", "--ttl", "1ns", "--", "true"], "ttl"),
        (vec!["run", "x", "--ttl", "10years", "--", "true"], "ttl"),
        (vec!["run", "x", "--at-most-for", "0", "--", "true"], "at-most-for"),
        (vec!["run", "--store", "pigeon://u:geheim@loft/x", "x", "--", "true"], "sqlite:"),
        (vec!["run", "--store", "geheim", "x", "--", "true"], "sqlite:"),
        (vec!["release", "x"], "--force"),
        (vec!["schema", "pigeon"], "sqlite:"),
    ] {
        let output = stage.leasehold(&arguments).output().unwrap();
        assert_eq!(code(&output), 64, "{arguments:?}: {output:?}");
        let line = one_line(&output);
        assert!(line.contains(hint) && !line.contains("geheim"), "{arguments:?}: {line}");
    }
    assert!(
        fs::read_dir(stage.directory.path())
            .unwrap()
            .all(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("locks.db") }),
        "nothing else was made"
    );
}

#[test]
fn wrong_options_are_wrong_usage_and_help_is_not() {
    let stage = Stage::new();
    for arguments in [
        vec![],
        vec!["jump"],
        vec!["run"],
        vec!["run", "x"],
        vec!["run", "x", "--ttl", "soon", "--", "true"],
        vec!["run", "x", "-n", "-w", "5", "--", "true"],
        vec!["run", "x", "-c", "true", "--", "true"],
        vec!["run", "x", "-E", "256", "--", "true"],
    ] {
        let output = stage.leasehold(&arguments).output().unwrap();
        assert_eq!(code(&output), 64, "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let help = [
        vec!["--help"],
        vec!["run", "--help"],
        vec!["fence", "--help"],
        vec!["fence", "run", "--help"],
        vec!["--version"],
    ];
    for arguments in help {
        let output = stage.leasehold(&arguments).output().unwrap();
        assert_eq!(code(&output), 0);
        assert!(output.stderr.is_empty() && !output.stdout.is_empty());
        let teaches =
            !arguments.contains(&"run") || String::from_utf8(output.stdout).unwrap().contains("LEASEHOLD_TOKEN");
        assert!(teaches, "the long help");
    }
}

#[test]
fn a_store_that_cannot_be_used_gives_69_at_once_and_nothing_half_made() {
    let stage = Stage::new();
    fs::write(stage.path("text.db"), "this is not a database, and long enough to be sure of it. ".repeat(40)).unwrap();
    let before = fs::read(stage.path("text.db")).unwrap();
    for (path, named) in [("missing/locks.db", "missing"), ("text.db", "text.db")] {
        let url = format!("sqlite:{}", stage.path(path).display());
        let begun = now();
        let output = stage.leasehold(["run", "--store", &url, "x", "--", "echo", "never"]).output().unwrap();
        assert_eq!(code(&output), 69, "{path}: {output:?}");
        assert!(one_line(&output).contains(named), "it names the store: {output:?}");
        assert!(output.stdout.is_empty());
        assert!(passed(begun) < Duration::from_secs(5));
    }
    assert!(!stage.path("missing").exists());
    assert_eq!(fs::read(stage.path("text.db")).unwrap(), before, "somebody's file is left alone");
}

#[test]
fn a_read_only_store_gives_69() {
    if nix::unistd::geteuid().is_root() {
        // Permissions don't bind root; an immutable directory of the kernel's does.
        let stage = Stage::new();
        let output = stage.leasehold(["run", "--store", "sqlite:/proc/locks.db", "x", "--", "true"]).output().unwrap();
        assert_eq!(code(&output), 69, "{output:?}");
        one_line(&output);
        return;
    }
    let stage = Stage::new();
    let file = stage.path("ro.db");
    let url = format!("sqlite:{}", file.display());
    assert_eq!(code(&stage.leasehold(["run", "--store", &url, "x", "--", "true"]).output().unwrap()), 0);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let output = stage.leasehold(["run", "--store", &url, "x", "--", "true"]).output().unwrap();
    assert_eq!(code(&output), 69, "{output:?}");
    one_line(&output);
}

#[test]
fn the_default_store_is_a_private_file_in_the_state_directory() {
    let stage = Stage::new();
    let state = stage.path("state");
    let output = stage
        .leasehold(["run", "x", "--", "true"])
        .env_remove("LEASEHOLD_STORE")
        .env("XDG_STATE_HOME", &state)
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    let mode = fs::metadata(state.join("leasehold")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(state.join("leasehold/locks.db").exists());
}

#[test]
fn a_lease_that_is_over_before_the_command_starts_gives_75_and_leaves_nothing_in_the_store() {
    let stage = Stage::new();
    assert_eq!(code(&stage.run("", "exit 0").output().unwrap()), 0);
    for _ in 0..5 {
        let output = stage.run("--at-most-for 1ms --ttl 1h", "touch ran").output().unwrap();
        assert_eq!(code(&output), 75, "{output:?}");
        assert!(one_line(&output).contains("--at-most-for"), "{output:?}");
        assert_eq!(stage.status()["state"], "free");
    }
    assert!(!stage.path("ran").exists());
}

#[test]
fn a_script_without_an_interpreter_line_runs_as_in_a_shell() {
    let stage = Stage::new();
    fs::write(stage.path("script"), "echo \"with $1\"; exit 6\n").unwrap();
    fs::set_permissions(stage.path("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let output = stage.leasehold(["run", &stage.lock, "--", "./script", "a b"]).output().unwrap();
    assert_eq!((code(&output), output.stdout.as_slice()), (6, b"with a b\n".as_slice()), "{output:?}");
}

#[test]
fn too_few_descriptors_are_told_in_one_line() {
    let stage = Stage::new();
    assert_eq!(code(&stage.run("", "exit 0").output().unwrap()), 0);
    let mut enough = None;
    for limit in 5..64 {
        let line = format!("ulimit -n {limit}; exec '{}' run x -- true", env!("CARGO_BIN_EXE_leasehold"));
        let mut command = std::process::Command::new("sh");
        let output = command.args(["-c", &line]).env("LEASEHOLD_STORE", &stage.store).output().unwrap();
        match code(&output) {
            0 => {
                enough = Some(limit);
                break;
            }
            70 => assert!(one_line(&output).contains("ulimit -n"), "{output:?}"),
            other => panic!("{limit} descriptors: {other}, {output:?}"),
        }
    }
    println!("enough: {enough:?}");
    assert!(enough.is_some());
}
