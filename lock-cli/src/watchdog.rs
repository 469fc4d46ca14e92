//! The watchdog: the command's parent, which ends it when the lease ends, whatever becomes of the keeper.
//!
//! A process of its own, in a process group of its own: freezing or killing the keeper, or the keeper's
//! whole group, leaves it standing. It is one thread that blocks every signal that can be blocked and
//! waits for three things: the keeper's orders, its children, and the lease's deadline on a clock that
//! ticks through suspend. It never talks to a store.
//!
//! Its promises:
//! - the command is sent SIGTERM in time for SIGKILL to be over *before* the deadline;
//! - when the keeper's end of the channel closes, everything is killed at once;
//! - when the command ends and others of its group are left, they are ended too;
//! - the group being gone is an event: orphans become the watchdog's children (it is their subreaper).
//!
//! On a loss it also ends processes that left the group by setsid(2). After a *normal* end it lets these
//! go: that is how a command starts a daemon on purpose.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    time::Duration,
};

use leasehold::{Clock, Moment, SystemClock};
use nix::{
    errno::Errno,
    sys::{
        prctl::set_child_subreaper,
        signal::{SigSet, SigmaskHow, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};

use crate::{
    channel::{Ended, Limits, Order, Report, next_order, receive_start},
    exit,
    group::{descendants, group_is_empty, lives, signal_group, signal_strays},
    launch::launch,
    outbox::Outbox,
};

/// How often to look again when no event is due: for processes whose parent left the group and that it
/// alone is told about, and for those that were forked while the others were being killed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How many changes of children are taken in before the clock is looked at again: a command can stop and go on for ever.
const AT_ONCE: usize = 64;

/// Runs the watchdog: the hidden mode of the binary. `command` is a program and its arguments.
pub(crate) fn main(command: &[OsString]) -> ExitCode {
    match watch(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leasehold: the watchdog can't work (it is started by `leasehold run` and not by hand): {error}");
            ExitCode::from(exit::INTERNAL)
        }
    }
}

fn watch(command: &[OsString]) -> io::Result<()> {
    SigSet::all().thread_block()?;
    set_child_subreaper(true)?;
    let children =
        SignalFd::with_flags(&SigSet::from(Signal::SIGCHLD), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (limits, stdin, stdout) = receive_start(&channel)?;

    let mut watchdog = Watchdog {
        outbox: Outbox::new(channel.try_clone()?),
        channel: Some(channel),
        children,
        timer,
        limits,
        stage: Stage::Running,
        lost: false,
        ended: None,
        group: None,
        more_to_reap: false,
    };
    watchdog.start(command, stdin, stdout);
    // A command may have ended while no signal was blocked: that SIGCHLD is not seen again.
    watchdog.reap();
    while !watchdog.is_done() {
        watchdog.wait()?;
    }
    watchdog.outbox.put(Report::Gone);
    watchdog.outbox.finish();
    Ok(())
}

struct Watchdog {
    /// `None` once the keeper is gone.
    channel: Option<UnixStream>,
    outbox: Outbox,
    children: SignalFd,
    timer: OwnedFd,
    limits: Limits,
    stage: Stage,
    /// The lease is over, so nobody may be left, in the group or out of it.
    lost: bool,
    /// How the command itself ended, once it did.
    ended: Option<Ended>,
    /// The command's process group, whose leader it is; `None` if it could not be started.
    group: Option<Pid>,
    /// Not all changes of children were taken in.
    more_to_reap: bool,
}

/// How far the group's end is.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// It may run.
    Running,
    /// It was sent SIGTERM, and is sent SIGKILL then.
    Asked(Moment),
    /// It was sent SIGKILL.
    Killed,
}

impl Watchdog {
    fn start(&mut self, command: &[OsString], stdin: OwnedFd, stdout: OwnedFd) {
        if SystemClock.now() >= self.ask_at() {
            // The keeper was frozen between the grant and now: nothing may start under this lease any more.
            return self.outbox.put(Report::Overdue);
        }
        let (limits, patience) = (self.limits, self.ask_at());
        match with_no_signal_blocked(|| launch(command, (stdin, stdout), limits, patience)) {
            Ok(group) => {
                self.group = Some(group);
                self.outbox.put(Report::Started(group.as_raw()));
            }
            Err(error) => self.outbox.put(Report::NotStarted(error.raw_os_error().unwrap_or(Errno::EINVAL as i32))),
        }
    }

    /// Waits for the next event and answers it.
    fn wait(&mut self) -> io::Result<()> {
        self.set_timer()?;
        let mut events = vec![PollFd::new(&self.children, PollFlags::IN), PollFd::new(&self.timer, PollFlags::IN)];
        let of_channel = if self.outbox.needs_room() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        events.extend(self.channel.as_ref().map(|channel| PollFd::new(channel, of_channel)));
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut events, self.more_to_reap.then_some(&at_once)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let told = events.get(2).is_some_and(|channel| !(channel.revents() - PollFlags::OUT).is_empty());
        // The deadline first: whatever else there is to do takes time.
        self.look_at_the_clock();
        if told {
            self.obey();
        }
        // One of a kind is pending at most.
        let _ = self.children.read_signal();
        self.reap();
        self.outbox.flush();
        Ok(())
    }

    fn obey(&mut self) {
        let order = self.channel.as_ref().and_then(next_order);
        match order {
            // Once it is lost, a renewal doesn't revive it.
            Some(Order::Deadline(at)) if !self.lost => self.limits.deadline = at,
            Some(Order::Deadline(_) | Order::Start(_)) => {}
            Some(Order::Signal(number)) => {
                if let (Some(group), Ok(signal)) = (self.group, Signal::try_from(number)) {
                    signal_group(group, signal);
                }
            }
            Some(Order::End) => {
                self.lost = true;
                self.ask();
            }
            None => {
                self.channel = None;
                self.outbox.close();
                self.lost = true;
                self.kill();
            }
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = SystemClock.now();
        if !self.lost && now >= self.ask_at() {
            self.lost = true;
            self.outbox.put(Report::Overdue);
            self.ask();
        }
        match self.stage {
            Stage::Asked(kill_at) if now >= kill_at || now >= self.kill_at() => self.kill(),
            Stage::Killed => self.kill(),
            _ => {}
        }
    }

    fn ask(&mut self) {
        if matches!(self.stage, Stage::Killed) {
            return;
        }
        self.signal_all(Signal::SIGTERM);
        let kill_at = SystemClock.now() + self.limits.kill_after;
        self.stage = match self.stage {
            Stage::Asked(before) => Stage::Asked(before.min(kill_at)),
            _ => Stage::Asked(kill_at),
        };
    }

    fn kill(&mut self) {
        self.signal_all(Signal::SIGKILL);
        self.stage = Stage::Killed;
    }

    fn signal_all(&self, signal: Signal) {
        if let Some(group) = self.group {
            signal_group(group, signal);
        }
        if self.lost {
            signal_strays(Pid::this(), self.group, signal);
        }
    }

    /// Collects the children whose state changed: the command, and orphans of its descendants.
    fn reap(&mut self) {
        let changes = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED;
        self.more_to_reap = false;
        for _ in 0..AT_ONCE {
            match waitpid(None, Some(changes)) {
                Ok(WaitStatus::Exited(child, code)) => self.note_end(child, Ended::Exited(code)),
                Ok(WaitStatus::Signaled(child, signal, _)) => self.note_end(child, Ended::Signalled(signal as i32)),
                Ok(WaitStatus::Stopped(child, signal)) if Some(child) == self.group => {
                    self.outbox.note_stop(Some(signal as i32));
                }
                Ok(WaitStatus::Continued(child)) if Some(child) == self.group => self.outbox.note_stop(None),
                Ok(WaitStatus::StillAlive) => return,
                // Somebody else collected its end: it is over, however it ended.
                Err(Errno::ECHILD) => {
                    return self.group.into_iter().for_each(|group| self.note_end(group, Ended::Unknown));
                }
                Ok(_) | Err(_) => {}
            }
        }
        self.more_to_reap = true;
    }

    fn note_end(&mut self, child: Pid, how: Ended) {
        if Some(child) == self.group && self.ended.is_none() {
            self.ended = Some(how);
            self.outbox.put(Report::Ended(how));
            if matches!(self.stage, Stage::Running) && self.group.is_some_and(|group| !group_is_empty(group)) {
                self.ask();
            }
        }
    }

    /// Whether nobody is left who must not be.
    fn is_done(&self) -> bool {
        let Some(group) = self.group else { return true };
        let group_gone = self.ended.is_some() && group_is_empty(group);
        group_gone && (!self.lost || !descendants(Pid::this()).into_iter().any(lives))
    }

    /// The last moment for SIGKILL.
    fn kill_at(&self) -> Moment {
        self.limits.deadline - self.limits.margin
    }

    /// The last moment for SIGTERM.
    fn ask_at(&self) -> Moment {
        self.kill_at() - self.limits.kill_after
    }

    fn set_timer(&self) -> io::Result<()> {
        let look_again = SystemClock.now() + LOOK_AGAIN;
        let at = match self.stage {
            Stage::Running => self.ask_at(),
            Stage::Asked(kill_at) if self.ended.is_some() => kill_at.min(self.kill_at()).min(look_again),
            Stage::Asked(kill_at) => kill_at.min(self.kill_at()),
            Stage::Killed => look_again,
        };
        let at = self.outbox.due().map_or(at, |due| at.min(due));
        let nanos = at.as_nanos().max(1);
        let value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }
}

/// Does it with no signal blocked, as a child inherits that; a signal that ends us in this moment is answered by the
/// keeper, which sees the channel close.
fn with_no_signal_blocked<T>(act: impl FnOnce() -> T) -> T {
    let before = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let done = act();
    // It failed if we had none to begin with, and a wrong argument is the only other reason.
    let _ = before.unwrap_or_else(|_| SigSet::all()).thread_set_mask();
    done
}
