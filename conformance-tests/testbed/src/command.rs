//! Runs a command to its end, within a time limit.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;

/// How often a running command is looked at. Most `docker` commands take 30 to 300 ms.
const POLL: Duration = Duration::from_millis(5);

/// How long the output of a command that has ended may still be on its way. A grandchild
/// that kept the pipe open must not hold us.
const DRAIN: Duration = Duration::from_secs(1);

/// Runs `docker` with these arguments; the answer is what it wrote to stdout.
pub(crate) fn docker(args: &[&str], limit: Duration) -> Result<String, Error> {
    run("docker", args, limit)
}

/// Runs a program with these arguments; the answer is what it wrote to stdout.
///
/// After `limit` the program is killed.
pub(crate) fn run(program: &str, args: &[&str], limit: Duration) -> Result<String, Error> {
    let command = command_line(program, args);
    let not_run = |source| Error::NotRun { command: command.clone(), source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(not_run)?;
    // Read while it runs: a full pipe would block it.
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());

    let ended = wait(&mut child, limit).map_err(not_run)?;
    let stdout = stdout.collect_within(DRAIN);
    let stderr = stderr.collect_within(DRAIN);
    match ended {
        Some(true) => Ok(stdout),
        Some(false) => Err(Error::Failed { command, stderr }),
        None => Err(Error::Hung { command, limit, stdout, stderr }),
    }
}

/// Whether the child succeeded, or `None` when it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<bool>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

struct Reader(Receiver<Vec<u8>>);

fn reader(pipe: Option<impl Read + Send + 'static>) -> Reader {
    let (send, receive) = mpsc::channel();
    if let Some(mut pipe) = pipe {
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n) = pipe.read(&mut chunk) {
                if n == 0 || send.send(chunk[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
    }
    Reader(receive)
}

impl Reader {
    fn collect_within(self, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        let mut bytes = Vec::new();
        while let Ok(chunk) = self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            bytes.extend(chunk);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn command_line(program: &str, args: &[&str]) -> String {
    std::iter::once(program)
        .chain(args.iter().copied())
        .map(
            |word| {
                if word.is_empty() || word.contains(char::is_whitespace) {
                    format!("'{word}'")
                } else {
                    word.to_owned()
                }
            },
        )
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdout_is_the_answer() {
        let answer = run("sh", &["-c", "echo out; echo err >&2"], Duration::from_secs(5));
        assert_eq!(answer.ok().as_deref(), Some("out\n"));
    }

    #[test]
    fn a_failure_names_the_command_and_its_stderr() {
        let error = run("sh", &["-c", "echo broken >&2; exit 3"], Duration::from_secs(5));
        let text = error.map_err(|e| e.to_string());
        assert_eq!(text, Err("`sh -c 'echo broken >&2; exit 3'` failed: broken\n".to_owned()));
    }

    #[test]
    fn a_hung_command_is_ended_and_keeps_what_it_wrote() {
        let started = Instant::now();
        let error = run("sh", &["-c", "echo begun; exec sleep 30"], Duration::from_millis(300));
        assert!(started.elapsed() < Duration::from_secs(5));
        assert!(matches!(error, Err(Error::Hung { stdout, .. }) if stdout == "begun\n"));
    }

    #[test]
    fn more_output_than_a_pipe_holds_is_read() {
        let answer = run("sh", &["-c", "head -c 300000 /dev/zero"], Duration::from_secs(10));
        assert_eq!(answer.map(|text| text.len()).ok(), Some(300_000));
    }
}
