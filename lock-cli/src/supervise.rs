//! The time in which the command runs: the lease's news go to the watchdog, the watchdog's come back.

use std::{ffi::OsString, io, pin::pin, time::Duration};

use leasehold::{Lease, LossReason};
use nix::{sys::signal::Signal, unistd::Pid};

use crate::{
    channel::{Ended, Limits, Order, Report},
    leash::Leash,
    signals::Signals,
    terminal::Terminal,
};

/// How it ended. In every case nobody of the command's group is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The command ended.
    Ended(Ended),
    /// The command could not be started, for this reason of the system's (an `errno`).
    NotStarted(i32),
    /// The lease ended first, and the command was ended.
    Lost(Loss),
    /// The watchdog died, and the command was ended.
    Unguarded,
}

/// How a lease was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The client told.
    Told(LossReason),
    /// No new deadline had come when it was time to end the command.
    Overdue,
}

/// How long the watchdog has, beyond what it needs, to say that everybody is gone.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs the command under the lease, and returns when nobody of its group is left.
///
/// # Errors
/// The watchdog could not be started; nothing ran.
pub(crate) async fn supervise(
    lease: &Lease,
    command: &[OsString],
    environment: Vec<(&'static str, String)>,
    (kill_after, margin): (Duration, Duration),
    signals: &mut Signals,
) -> io::Result<Outcome> {
    let terminal = Terminal::find();
    let moved = lease.deadline_changed();
    let limits = Limits { deadline: lease.deadline(), kill_after, margin };
    let leash = Leash::start(command, environment, limits)?;
    let mut course = Course { leash, terminal, group: None, ended: None, not_started: None, loss: None };

    let mut moved = Box::pin(moved);
    let mut lost = pin!(lease.lost());
    let mut unanswered = pin!(tokio::time::sleep(Duration::MAX));
    loop {
        tokio::select! {
            biased;
            report = course.leash.report() => match report {
                Some(Report::Gone) => return Ok(course.outcome()),
                Some(report) => course.take_in(report),
                None => {
                    course.leash.kill_all(course.group).await;
                    return Ok(course.loss.map_or(Outcome::Unguarded, Outcome::Lost));
                }
            },
            reason = &mut lost, if !matches!(course.loss, Some(Loss::Told(_))) => {
                course.loss = Some(Loss::Told(reason));
                course.leash.order(Order::End);
                // At its deadline the watchdog has sent SIGKILL already; of other losses it learns now.
                let needs = if reason == LossReason::NotOurs { kill_after } else { Duration::ZERO };
                unanswered.set(tokio::time::sleep(needs + PATIENCE));
            }
            () = &mut moved, if course.loss.is_none() => {
                moved = Box::pin(lease.deadline_changed());
                let deadline = lease.deadline();
                // An ended lease has no deadline; that it ended is told by `lost`.
                if lease.is_valid() {
                    course.leash.order(Order::Deadline(deadline));
                }
            }
            number = signals.next() => course.leash.order(Order::Signal(number)),
            () = &mut unanswered => {
                // Somebody froze the watchdog; the command ends all the same.
                course.leash.kill_all(course.group).await;
                return Ok(course.outcome());
            }
        }
    }
}

struct Course {
    leash: Leash,
    terminal: Option<Terminal>,
    group: Option<Pid>,
    ended: Option<Ended>,
    not_started: Option<i32>,
    loss: Option<Loss>,
}

impl Course {
    fn take_in(&mut self, report: Report) {
        match report {
            Report::Started(id) => {
                let group = Pid::from_raw(id);
                self.group = Some(group);
                // If it was stopped for reaching for the terminal before this, that is reported, and answered, next.
                if let Some(terminal) = &mut self.terminal {
                    terminal.lend_to_new(group);
                }
            }
            Report::NotStarted(errno) => self.not_started = Some(errno),
            Report::Stopped(signal) => self.stopped(signal),
            Report::Overdue => self.loss = self.loss.or(Some(Loss::Overdue)),
            Report::Ended(how) => self.ended = Some(how),
            Report::Gone => {}
        }
    }

    /// Job control: a command that reaches for the terminal gets it if it is ours to give; otherwise, and when the
    /// user pressed Ctrl-Z, we stop as it did, so that the shell takes over. A stopped keeper doesn't renew: a
    /// command that is stopped for longer than its lease is ended.
    fn stopped(&mut self, signal: i32) {
        let (Some(terminal), Some(group)) = (self.terminal.as_mut(), self.group) else { return };
        let wants_terminal = signal == Signal::SIGTTIN as i32 || signal == Signal::SIGTTOU as i32;
        if wants_terminal && terminal.lend(group) {
            self.leash.order(Order::Signal(Signal::SIGCONT as i32));
        } else if wants_terminal || signal == Signal::SIGTSTP as i32 {
            terminal.suspend(group);
            self.leash.order(Order::Signal(Signal::SIGCONT as i32));
        }
    }

    fn outcome(&self) -> Outcome {
        match (self.loss, self.ended, self.not_started) {
            (Some(loss), ..) => Outcome::Lost(loss),
            (None, Some(how), _) => Outcome::Ended(how),
            (None, None, Some(errno)) => Outcome::NotStarted(errno),
            (None, None, None) => Outcome::Unguarded,
        }
    }
}
