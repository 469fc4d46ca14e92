//! One run of a command over the copied sources: built first, then given a limit of time.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a run may take, which a bug may make endless.
const LIMIT: Duration = Duration::from_secs(300);

/// How long one that is killed may take to be gone.
const GOING: Duration = Duration::from_secs(30);

/// What became of a run.
#[derive(Debug)]
pub(super) struct Run {
    /// Nothing where it was killed at the limit.
    status: Option<ExitStatus>,
    /// What it wrote, stdout first.
    output: String,
    pub(super) seconds: f64,
}

impl Run {
    pub(super) fn is_green(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// The check that went red, and what it said. One that was killed by a signal, or only failed, shows nothing.
    pub(super) fn red(&self) -> Option<String> {
        let counts = self.status.is_none_or(|status| status.code().is_some_and(|code| code != 0));
        // Of one that hung, a panic shows nothing: a test may have provoked it, and passed.
        evidence(&self.output).filter(|_| counts).filter(|said| self.status.is_some() || !said.contains("panicked at"))
    }

    pub(super) fn ended(&self) -> String {
        self.status.map_or_else(|| format!("hung, killed after {:.0} s", self.seconds), |status| status.to_string())
    }

    /// The last that it wrote.
    pub(super) fn last_lines(&self) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// What becomes of a command: it may not even build.
pub(super) enum Tried {
    NotBuilt(String),
    Ran(Run),
}

/// Builds what the command needs, and then runs it; only the run has a limit.
pub(super) fn try_out(tree: &Path, command: &[String]) -> Result<Tried, String> {
    let [program, task, rest @ ..] = command else {
        return Err("a command is `cargo run …` or `cargo test …`".to_owned());
    };
    let to_build: Vec<&str> = match (program.as_str(), task.as_str()) {
        ("cargo", "run") => vec!["build"],
        ("cargo", "test") => vec!["test", "--no-run"],
        _ => return Err(format!("a command is `cargo run …` or `cargo test …`, not `{}`", command.join(" "))),
    };
    let what = rest.iter().take_while(|argument| *argument != "--");
    let built = cargo(tree).args(to_build).arg("--quiet").args(what).output();
    let built = built.map_err(|error| format!("can't run cargo: {error}"))?;
    if !built.status.success() {
        return Ok(Tried::NotBuilt(String::from_utf8_lossy(&built.stderr).into_owned()));
    }
    let mut run = cargo(tree);
    run.arg(task);
    if task == "run" {
        // A quiet test names none of those that fail.
        run.arg("--quiet");
    }
    run.args(rest);
    run_within(LIMIT, run, tree).map(Tried::Ran)
}

fn cargo(tree: &Path) -> Command {
    let mut cargo = crate::cargo();
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", tree.with_file_name("build"));
    // A server that isn't there would leave its tests out, and they be taken for green.
    cargo.env("CI", "1");
    cargo
}

fn run_within(limit: Duration, mut command: Command, tree: &Path) -> Result<Run, String> {
    let failed = |error: std::io::Error| format!("can't run {:?}: {error}", command.get_program());
    // Files, since whatever a killed run leaves behind would keep pipes open.
    let paths = ["stdout", "stderr"].map(|name| tree.with_file_name(name));
    let [stdout, stderr] = [0, 1].map(|at: usize| File::create(&paths[at]));
    let (stdout, stderr) = (stdout.map_err(failed)?, stderr.map_err(failed)?);
    let begun = Instant::now();
    // A group of its own, to be killed with all that it has started.
    let spawned = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0).spawn();
    let mut child = spawned.map_err(|error| format!("can't run {:?}: {error}", command.get_program()))?;
    let mut watchman = watchman(&child)?;
    let (tell, ended) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait()));
    let status = match ended.recv_timeout(limit) {
        Ok(status) => {
            watchman.kill().map_err(|error| error.to_string())?;
            Some(status.map_err(|error| error.to_string())?)
        }
        Err(_) => {
            drop(watchman.stdin.take());
            let gone = ended.recv_timeout(GOING).map_err(|_| "a run that hangs can't be killed".to_owned())?;
            gone.map_err(|error| error.to_string())?;
            None
        }
    };
    watchman.wait().map_err(|error| error.to_string())?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut output = String::new();
    for path in &paths {
        let written = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        output.push_str(&String::from_utf8_lossy(&written));
        output.push('\n');
    }
    Ok(Run { status, output, seconds })
}

/// Kills the whole group of a run once its own input ends: when we say so, or when we have ended ourselves, whatever by. An
/// interrupt at the terminal doesn't reach that group.
fn watchman(run: &Child) -> Result<Child, String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"read -r _; kill -s KILL -- "-$1""#, "sh", &run.id().to_string()]);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    shell.spawn().map_err(|error| format!("can't run sh: {error}"))
}

/// The test or law that went red, and what was seen, of what these print: the simulation, libtest, and libtest-mimic, which the
/// conformance suite and the tests that need servers are run by.
fn evidence(output: &str) -> Option<String> {
    let find = |telling: fn(&&str) -> bool| output.lines().find(telling).map(str::to_owned);
    let found = find(|line| line.contains(" breaks "))
        .or_else(|| reported(output))
        // Killed before it could report: what it said of each test.
        .or_else(|| find(|line| line.starts_with("test ") && line.ends_with("FAILED")))
        .or_else(|| find(|line| line.contains("panicked at")));
    // One line of a table.
    found.map(|line| line.chars().take(200).collect())
}

/// Of a report `---- NAME ----` (or `---- NAME stdout ----`) the name and what is said below it. A panic has a head, which says
/// where, and its message from the next line on, which goes on in lines of its own where two values differ.
fn reported(output: &str) -> Option<String> {
    let mut lines = output.lines();
    let heading = lines.by_ref().find_map(|line| line.strip_prefix("---- ")?.strip_suffix(" ----"))?;
    let name = heading.strip_suffix(" stdout").unwrap_or(heading);
    let below = lines.skip_while(|line| line.trim().is_empty() || line.contains("panicked at"));
    let said: Vec<&str> =
        below.take_while(|line| !line.trim().is_empty() && !line.starts_with("note: ")).map(str::trim).collect();
    Some(format!("{name}: {}", said.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Run {
        let folder =
            std::env::temp_dir().join(format!("leasehold-trial-{}-{:?}", std::process::id(), thread::current().id()));
        fs::create_dir_all(&folder).expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let run = run_within(limit, command, &folder.join("tree")).expect("a run");
        fs::remove_dir_all(folder).expect("the folder goes");
        run
    }

    #[test]
    fn a_run_that_hangs_is_killed_with_what_it_started_and_keeps_what_it_said() {
        let run = shell("echo 'test x ... FAILED'; sleep 600 & echo $!; wait", Duration::from_millis(500));
        assert!(run.seconds < 60.0 && !run.is_green(), "{run:?}");
        assert_eq!(run.red().as_deref(), Some("test x ... FAILED"));
        let grandchild = run.output.lines().nth(1).expect("its number");
        // Gone, or waiting for whoever inherits it; which a machine may be slow to do.
        let state = || fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        let ends = Instant::now() + GOING;
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(Instant::now() < ends, "{}", state());
            thread::sleep(Duration::from_millis(10));
        }
        assert!(run.ended().starts_with("hung"), "{}", run.ended());
    }

    #[test]
    fn what_only_fails_or_is_killed_shows_nothing() {
        for (script, green) in [("true", true), ("false", false), ("echo panicked at; kill -KILL $$", false)] {
            let run = shell(script, Duration::from_secs(60));
            assert_eq!((run.is_green(), run.red()), (green, None), "{run:?}");
        }
    }

    #[test]
    fn what_went_red_is_told_with_its_reason() {
        let libtest = "test a::b ... FAILED\n\nfailures:\n\n---- a::b stdout ----\n\n\
            thread 'a::b' (7) panicked at x.rs:5:9:\nassertion failed\n  left: 1\n right: 2\nnote: run with\n";
        let panicked = "test c  ... FAILED\n\nfailures:\n\n---- c ----\ntest panicked: no\n\n\nfailures:\n    c\n";
        let suite = "test d::e ... FAILED\n\nfailures:\n\n---- d::e ----\nthe token fell\n\n\nfailures:\n    d::e\n";
        for (output, found) in [
            (libtest, Some("a::b: assertion failed left: 1 right: 2")),
            (panicked, Some("c: test panicked: no")),
            (suite, Some("d::e: the token fell")),
            ("seed 5 breaks L1: two at once", Some("seed 5 breaks L1: two at once")),
            ("thread 'main' panicked at x.rs:1:1:", Some("thread 'main' panicked at x.rs:1:1:")),
            ("running 0 tests\n\ntest result: FAILED. 0 passed\nerror: test failed, to rerun pass `--test x`", None),
        ] {
            assert_eq!(evidence(output).as_deref(), found, "{output}");
        }
    }
}
