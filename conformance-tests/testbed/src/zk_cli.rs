//! A session of ZooKeeper's own client, held open.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Server};

pub(crate) const PROGRAM: &str = "/usr/local/lib/testbed/zkcli.sh";

/// How long a command is given, and how long the program is to end.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
const ENDS_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// How a connected client says that there is no such node.
const CONNECTED: &str = "Node does not exist";
/// All that a client says whose session is over.
const EXPIRED: &str = "Not connected";

/// A session of `zkCli.sh`, from [`ZooKeeper::session`](crate::ZooKeeper::session). Dropping it closes the session, with
/// which its ephemeral nodes go; [`ZkCli::abandon`] doesn't.
#[derive(Debug)]
pub struct ZkCli {
    child: Child,
    /// `None` once the session is over.
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    commands: u32,
}

impl ZkCli {
    pub(crate) fn open(server: &Server, time_out: Duration) -> Result<Self, Error> {
        let container = server.container("open a session of")?;
        let time_out = time_out.as_millis().to_string();
        let mut child = Command::new("docker")
            .args(["exec", "--interactive", container, "sh", PROGRAM, &time_out])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(not_run)?;
        let stdin = child.stdin.take();
        let (send, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                let read = BufReader::new(stdout).lines().map_while(Result::ok);
                // It ends when nobody listens any more.
                let _ = read.map(|line| send.send(line)).find(Result::is_err);
            });
        }
        let mut session = Self { child, stdin, lines, commands: 0 };
        // After what it writes when it begins.
        let (_, end) = session.ask("version")?;
        if end.starts_with(CONNECTED) {
            return Ok(session);
        }
        Err(Error::NotReady {
            server: server.kind().name,
            address: server.host_port().to_owned(),
            limit: ANSWERS_WITHIN,
            last: end,
        })
    }

    /// Runs a command and answers with all that was written since the last one, watches that fired among it.
    ///
    /// # Errors
    ///
    /// [`Error::Hung`] where there is no answer within 30 s. What ZooKeeper refuses is in the answer, and that the session
    /// has expired; after that it is [`Error::NotRun`].
    pub fn run(&mut self, command: &str) -> Result<String, Error> {
        let (answer, end) = self.ask(command)?;
        Ok(if end.starts_with(CONNECTED) { answer } else { answer + &end + "\n" })
    }

    /// Ends the client as a crash of it does: the session goes on until the server finds that its time is over.
    pub fn abandon(mut self) {
        // At the end of its input the program ends and closes nothing.
        self.stdin = None;
    }

    /// The answer, and the line after it.
    fn ask(&mut self, command: &str) -> Result<(String, String), Error> {
        self.commands += 1;
        // A node that isn't there, by which the answer's end is known: whatever is wrong, it is told in one line that ends
        // with the node's name.
        let mark = format!("/leasehold-mark-{}", self.commands);
        let stdin = self.stdin.as_mut().ok_or_else(|| not_run(io::ErrorKind::BrokenPipe.into()))?;
        write!(stdin, "{command}\nget {mark}\n").and_then(|()| stdin.flush()).map_err(not_run)?;
        let deadline = Instant::now() + ANSWERS_WITHIN;
        let mut answer = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.ends_with(&mark) => return Ok((answer, line)),
                Ok(line) if line == EXPIRED => {
                    self.stdin = None;
                    return Ok((answer, line));
                }
                Ok(line) => answer = answer + &line + "\n",
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Error::Hung {
                        command: format!("zkCli.sh: {command}"),
                        limit: ANSWERS_WITHIN,
                        stdout: answer,
                        stderr: String::new(),
                    });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(not_run(io::Error::new(io::ErrorKind::UnexpectedEof, answer)));
                }
            }
        }
    }
}

impl Drop for ZkCli {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.stdin.take() {
            // Where that can't be written any more, the program has ended.
            let _ = stdin.write_all(b"quit\n");
        }
        let deadline = Instant::now() + ENDS_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        // Ended already, or its server doesn't answer.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn not_run(source: io::Error) -> Error {
    Error::NotRun { command: "zkCli.sh".to_owned(), source }
}
