//! What the tests of the command line share: a store of their own, the binary, and ways to await what it does.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

use leasehold::{Clock, Moment, SystemClock};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, getpgid},
};
use tempfile::TempDir;

/// Nothing here may take longer.
pub const LONG: Duration = Duration::from_secs(20);

pub struct Stage {
    pub directory: TempDir,
    pub store: String,
    /// A lock of this test's own, also in a store that others use.
    pub lock: String,
}

impl Stage {
    /// On an SQLite file of its own.
    pub fn new() -> Self {
        let mut stage = Self::on(String::new());
        stage.store = format!("sqlite:{}", stage.path("locks.db").display());
        stage
    }

    /// On this store.
    pub fn on(store: String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let lock = format!("cli-{}-{}", std::process::id(), directory.path().file_name().unwrap().to_string_lossy());
        Self { store, lock, directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `leasehold` with these arguments, on this store, in the stage's directory.
    pub fn leasehold<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Command {
        // Signals that whoever runs the tests ignores (a background job, nohup) would stay ignored.
        let mut command = Command::new("env");
        command
            .args(["--default-signal", env!("CARGO_BIN_EXE_leasehold")])
            .args(arguments)
            .env("LEASEHOLD_STORE", &self.store)
            .current_dir(self.directory.path());
        command.stdin(Stdio::null());
        command
    }

    /// `leasehold run OPTIONS LOCK -- sh -c SCRIPT`
    pub fn run(&self, options: &str, script: &str) -> Command {
        let mut command = self.leasehold(["run"]);
        command.args(options.split_whitespace()).args([&self.lock, "--", "sh", "-c", script]);
        command
    }

    /// The same, started, in a process group of its own, with its stdout to be read.
    pub fn start(&self, options: &str, script: &str) -> Running {
        Running::start(self.run(options, script))
    }

    /// A holder that says "in" once it holds the lock, and ends when its stdin does.
    pub fn holder(&self, options: &str) -> Running {
        let mut command = self.run(options, "echo in; read wait; exit 0");
        command.stdin(Stdio::piped());
        let mut holder = Running::start(command);
        assert_eq!(holder.line(), "in");
        holder
    }

    /// The same, once it has told that it waits for the lock.
    pub fn waiter(&self, options: &str, script: &str) -> Running {
        let mut command = self.run(options, script);
        command.stderr(Stdio::piped());
        let mut waiter = Running::start(command);
        let mut told = String::new();
        BufReader::new(waiter.child.stderr.take().unwrap()).read_line(&mut told).unwrap();
        assert!(told.contains("waiting for"), "{told:?}");
        waiter
    }

    /// Token and remaining milliseconds of the lock as it is held now, and when that was looked at.
    pub fn token_and_deadline(&self) -> (u64, Moment) {
        let status = self.status();
        let remaining = Duration::from_millis(status["remaining_ms"].as_u64().unwrap());
        (status["token"].as_u64().unwrap(), now() + remaining)
    }

    /// Waits until the lease that ended then ends later: somebody else's renewal sends us no event.
    pub fn await_renewal(&self, (token, deadline): (u64, Moment)) {
        let enough = deadline + Duration::from_millis(300);
        until("the lease is renewed", || {
            let (now_token, now_deadline) = self.token_and_deadline();
            assert_eq!(now_token, token, "renewal keeps the token");
            now_deadline > enough
        });
    }

    /// What `status --json` says of the lock.
    pub fn status(&self) -> serde_json::Value {
        let output = self.leasehold(["status", &self.lock, "--json"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// A started `leasehold`. Killed with its group if the test ends first.
pub struct Running {
    pub child: Child,
    pub stdout: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// The next line of its stdout: the way to await what the command does.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended before it said what was awaited: {line:?}");
        line.trim_end().to_owned()
    }

    /// The next line, as a process id.
    pub fn pid(&mut self) -> Pid {
        Pid::from_raw(self.line().parse().unwrap())
    }

    pub fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.id(), signal).unwrap();
    }

    /// Waits for its end; its exit code.
    pub fn code(&mut self) -> i32 {
        drop(self.child.stdin.take());
        let begun = now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"));
            }
            assert!(passed(begun) < LONG, "it doesn't end");
            pause();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = killpg(self.id(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

pub fn now() -> Moment {
    SystemClock.now()
}

pub fn passed(since: Moment) -> Duration {
    now().since(since)
}

/// Between two looks at what sends no event to strangers: the end of a process that isn't our child.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Waits until this is so; how long that took.
pub fn until(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let begun = now();
    while !so() {
        assert!(passed(begun) < LONG, "never: {what}");
        pause();
    }
    passed(begun)
}

pub fn process_is_gone(process: Pid) -> bool {
    kill(process, None) == Err(Errno::ESRCH) || is_zombie(process)
}

/// Whether nobody of the group runs. A zombie of it may be there until its parent, init in the end, looks after it.
pub fn group_is_gone(group: Pid) -> bool {
    killpg(group, None) == Err(Errno::ESRCH) || {
        let ids = std::fs::read_dir("/proc").unwrap().flatten();
        let mut processes = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
        processes.all(|process| getpgid(Some(process)) != Ok(group) || process_is_gone(process))
    }
}

fn is_zombie(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

/// The one line on stderr, which must be one.
pub fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "one plain sentence: {text:?}");
    text.trim_end().to_owned()
}
