//! Other processes: the test's own binary, started once more to play a script.

use std::{process::Stdio, time::Duration};

use lock_core::{FencingToken, LockName};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
};

use crate::{
    Failure, Harness,
    asker::{Outcome, SOON, within},
    ensure,
};

/// Names the script that a child plays; its arguments are the command line's.
pub(crate) const SCRIPT: &str = "LEASEHOLD_CONFORMANCE_CHILD";
/// Tells a child where its store is.
pub(crate) const STORE: &str = "LEASEHOLD_CONFORMANCE_STORE";

/// A child process, talked to line by line. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Of the lock it said that it holds.
    pub(crate) token: FencingToken,
}

impl Child {
    /// Starts a process that plays the script on the harness's store.
    pub(crate) fn start(h: &dyn Harness, script: &str, arguments: &[&str]) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(SCRIPT, script)
            .env(STORE, h.child_spec()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || Failure::new("a child process without pipes");
        let orders = process.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(process.stdout.take().ok_or_else(missing)?).lines();
        Ok(Self { process, orders, answers, token: FencingToken::new(0) })
    }

    /// Starts a process that holds a lock, and waits until it does.
    pub(crate) async fn hold(h: &dyn Harness, name: &LockName, ttl: Duration) -> Result<Self, Failure> {
        let mut child = Self::start(h, "hold", &[name.as_str(), &ttl.as_millis().to_string()])?;
        let answer = child.answer(SOON).await?;
        let token = answer.strip_prefix("held ").and_then(|token| token.parse().ok());
        let token = token.ok_or_else(|| Failure::new(format!("the child was to hold a lock and said {answer:?}")))?;
        child.token = FencingToken::new(token);
        Ok(child)
    }

    /// Gives it an order.
    pub(crate) async fn say(&mut self, order: &str) -> Outcome {
        self.orders.write_all(format!("{order}\n").as_bytes()).await?;
        Ok(self.orders.flush().await?)
    }

    /// Its next line.
    pub(crate) async fn answer(&mut self, limit: Duration) -> Result<String, Failure> {
        let line = within(limit, "a child process's answer", self.answers.next_line()).await??;
        line.ok_or_else(|| Failure::new("the child process ended; what it had to say is on stderr"))
    }

    /// Its next line must be this one.
    pub(crate) async fn expect(&mut self, answer: &str, limit: Duration) -> Outcome {
        let said = self.answer(limit).await?;
        ensure!(said == answer, "the child was to say {answer:?} and said {said:?}");
        Ok(())
    }

    /// Freezes it, as a long pause of its host would.
    pub(crate) fn stop(&self) -> Outcome {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> Outcome {
        self.signal(Signal::CONT)
    }

    /// Ends it with SIGKILL: it says goodbye to nobody.
    pub(crate) async fn kill(&mut self) -> Outcome {
        Ok(self.process.kill().await?)
    }

    fn signal(&self, signal: Signal) -> Outcome {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = id.ok_or_else(|| Failure::new("the child process has ended"))?;
        Ok(kill_process(pid, signal)?)
    }
}
