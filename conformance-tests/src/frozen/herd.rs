//! The writers' processes: started, listened to, frozen, thawed and ended.

use std::{
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lock_core::Moment;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};

use super::{
    history::History,
    words::Said,
    writer::{PLAN, Plan},
};
use crate::{
    Failure,
    asker::{Outcome, now, sleep, within},
    ensure,
};

/// How long a writer may take to connect, and to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(60);

/// All writers of one list. Killed when dropped, also those that are frozen.
#[derive(Debug)]
pub(super) struct Herd {
    processes: Vec<Process>,
    heard: Arc<Mutex<History>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    orders: ChildStdin,
    listener: JoinHandle<Outcome>,
    /// Tells of each attempt as it begins.
    tries: Arc<Notify>,
    frozen_until: Option<Moment>,
}

impl Herd {
    /// Starts a process for each plan, and waits until all are connected.
    ///
    /// They die with the thread that starts them.
    pub(super) async fn start(plans: impl IntoIterator<Item = Plan>) -> Result<Self, Failure> {
        let mut herd = Self { processes: Vec::new(), heard: Arc::default() };
        for plan in plans {
            herd.processes.push(Process::start(&plan, &herd.heard)?);
        }
        let limit = now() + PATIENCE;
        while herd.heard().ready() < herd.processes.len() {
            herd.must_be_well().await?;
            ensure!(now() < limit, "after {PATIENCE:?} only {} writers are connected", herd.heard().ready());
            sleep(Duration::from_millis(20)).await;
        }
        Ok(herd)
    }

    /// What was heard so far. Not to be kept: it holds up who listens.
    pub(super) fn heard(&self) -> MutexGuard<'_, History> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, for somebody who looks meanwhile.
    pub(super) fn shared(&self) -> Arc<Mutex<History>> {
        self.heard.clone()
    }

    /// No writer has ended, and none said what makes no sense.
    pub(super) async fn must_be_well(&mut self) -> Outcome {
        for (writer, process) in self.processes.iter_mut().enumerate() {
            if process.listener.is_finished() {
                (&mut process.listener).await??;
                return Err(Failure::new(format!("writer {writer} ended; what it had to say is on stderr")));
            }
        }
        Ok(())
    }

    /// Who isn't frozen.
    pub(super) fn awake(&self) -> Vec<usize> {
        (0..self.processes.len()).filter(|writer| self.processes[*writer].frozen_until.is_none()).collect()
    }

    /// Returns when a writer begins its next append, if it does so soon.
    pub(super) async fn next_try(&self, writer: usize) {
        // It is as good to freeze one that doesn't.
        _ = timeout(Duration::from_millis(50), self.processes[writer].tries.notified()).await;
    }

    /// Stops a process wherever it is, all of its threads.
    pub(super) fn freeze(&mut self, writer: usize, until: Moment) -> Outcome {
        let process = &mut self.processes[writer];
        process.signal(Signal::STOP)?;
        process.frozen_until = Some(until);
        // After it: what the writer did by this moment it did before or while it was stopped, and nothing after.
        self.heard().freeze(writer, now().as_nanos());
        Ok(())
    }

    /// Lets those go on whose time has come by this moment.
    pub(super) fn thaw(&mut self, by: Moment) -> Outcome {
        for process in &mut self.processes {
            if process.frozen_until.is_some_and(|until| until <= by) {
                process.signal(Signal::CONT)?;
                process.frozen_until = None;
            }
        }
        Ok(())
    }

    /// When the next one is to go on.
    pub(super) fn next_thaw(&self) -> Option<Moment> {
        self.processes.iter().filter_map(|process| process.frozen_until).min()
    }

    /// Thaws all, lets each end what it is about, and returns all that was said.
    pub(super) async fn stop(mut self) -> Result<History, Failure> {
        self.thaw(Moment::from_nanos(u64::MAX))?;
        for process in &mut self.processes {
            process.orders.write_all(b"stop\n").await?;
            process.orders.flush().await?;
        }
        for (writer, mut process) in self.processes.drain(..).enumerate() {
            let what = format!("the end of writer {writer}");
            let status = within(PATIENCE, &what, process.child.wait()).await??;
            // Its pipe is closed now, so the listener hears the last line and ends.
            within(PATIENCE, &what, &mut process.listener).await???;
            ensure!(status.success(), "writer {writer} failed: {status}; what it had to say is on stderr");
        }
        let heard = self.heard().clone();
        Ok(heard)
    }
}

impl Process {
    fn start(plan: &Plan, heard: &Arc<Mutex<History>>) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(PLAN, serde_json::to_string(plan)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || Failure::new("a child process without pipes");
        let orders = child.stdin.take().ok_or_else(missing)?;
        let out = child.stdout.take().ok_or_else(missing)?;
        let tries = Arc::<Notify>::default();
        let listener = tokio::spawn(listen(plan.writer, out, heard.clone(), tries.clone()));
        Ok(Self { child, orders, listener, tries, frozen_until: None })
    }

    fn signal(&self, signal: Signal) -> Outcome {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(kill_process(id.ok_or_else(|| Failure::new("a writer has ended"))?, signal)?)
    }
}

/// Reads as fast as is said: a full pipe would hold a writer up between its write and its word about it.
async fn listen(writer: usize, out: ChildStdout, heard: Arc<Mutex<History>>, tries: Arc<Notify>) -> Outcome {
    let mut lines = BufReader::new(out).lines();
    while let Some(line) = lines.next_line().await? {
        let said = serde_json::from_str(&line)
            .map_err(|error| Failure::new(format!("writer {writer} said {line:?}: {error}")))?;
        if matches!(said, Said::Tries(..)) {
            tries.notify_waiters();
        }
        heard.lock().unwrap_or_else(PoisonError::into_inner).hear(writer, said)?;
    }
    Ok(())
}
