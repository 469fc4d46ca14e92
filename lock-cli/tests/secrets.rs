//! Danger: a password for everybody to see.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod stage;

use std::fs;

use nix::sys::signal::Signal;
use stage::Stage;

/// All command lines of the machine, as `ps` shows them, of processes that aren't this test itself.
fn command_lines() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

/// The memory store takes no notice of the rest of its URL, so it can carry a password on every machine.
#[test]
fn ps_never_shows_a_password_while_a_command_runs() {
    const PASSWORD: &str = "geheim-4711";
    let stage = Stage::new();
    let url = format!("memory://user:{PASSWORD}@host/?password={PASSWORD}");
    let mut running = stage::Running::start({
        let mut command = stage.leasehold(["run", "--store", &url, &stage.lock, "--", "sh", "-c"]);
        command.arg("echo ${LEASEHOLD_INTERNAL_STORE-unset}; echo $LEASEHOLD_STORE; sleep 100");
        command
    });
    assert_eq!(running.line(), "unset", "the command isn't told");
    assert_eq!(running.line(), stage.store, "what the user set stays");
    let lines = command_lines();
    assert!(lines.iter().any(|line| line.contains(&stage.lock)), "ps shows the command");
    assert_eq!(lines.iter().find(|line| line.contains(PASSWORD)), None);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.code(), 143);
}

#[test]
fn no_message_holds_a_password() {
    // Another one: for a few milliseconds, until `leasehold` has started itself anew, it is for all to see.
    const PASSWORD: &str = "geheim-0815";
    let stage = Stage::new();
    for scheme in ["postgres", "pigeon", "sqlite"] {
        // Nobody listens on port 1.
        let url = format!("{scheme}://user:{PASSWORD}@127.0.0.1:1/db?password={PASSWORD}");
        for task in ["run -vv x -- true", "status x", "list", "release --force x"] {
            let words: Vec<&str> = task.split(' ').collect();
            let (task, rest) = words.split_first().unwrap();
            let output = stage.leasehold([task, &"--store", &url.as_str()]).args(rest).output().unwrap();
            assert!(matches!(output.status.code(), Some(64 | 69)), "{output:?}");
            let said = format!("{output:?}");
            assert!(!said.contains(PASSWORD), "{said}");
        }
    }
    for help in [vec!["run", "--help"], vec!["status", "--help"]] {
        let url = format!("memory://user:{PASSWORD}@host");
        let output = stage.leasehold(help).env("LEASEHOLD_STORE", url).output().unwrap();
        assert!(!format!("{output:?}").contains(PASSWORD));
    }
}

/// A driver that knows nothing of a parameter likes to say so, with the value.
#[cfg(feature = "postgres")]
#[test]
fn no_parameter_of_a_postgres_url_is_told_at_any_verbosity() {
    const PASSWORD: &str = "geheim-1147";
    let stage = Stage::new();
    // Known ones that name a place or a mode are told on purpose: somebody has to correct them.
    let keys = ["key", "passwort", "pass", "password", "options", "sslpassword", "sslrootcert", "leasehold_schema"];
    for key in keys {
        let url = format!("postgres://user:{PASSWORD}@127.0.0.1:1/db?{key}={PASSWORD}");
        for verbosity in ["-v", "-vv", "-vvv"] {
            let output = stage.leasehold(["run", verbosity, "--store", &url, "x", "--", "true"]).output().unwrap();
            assert!(matches!(output.status.code(), Some(64 | 69)), "{key}: {output:?}");
            assert!(!format!("{output:?}").contains(PASSWORD), "{key} {verbosity}: {output:?}");
        }
    }
}
