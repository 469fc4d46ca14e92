//! The terminal: the command's group gets it, so that Ctrl-C and the like reach the command directly.

use std::{
    fs::{File, OpenOptions},
    io::{IsTerminal, stdin, stdout},
    os::{fd::AsFd, unix::fs::FileTypeExt},
};

use nix::{
    sys::signal::{SigSet, Signal, raise},
    unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp},
};

/// The controlling terminal of a `leasehold run`.
#[derive(Debug)]
pub(crate) struct Terminal {
    tty: File,
    /// Our own group.
    ours: Pid,
    /// Whether the command's group gets it before it asks.
    at_once: bool,
    given: bool,
}

impl Terminal {
    /// The controlling terminal, if there is one. To be called while stdin and stdout are still the command's.
    pub(crate) fn find() -> Option<Self> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        // With stdout a pipe, somebody further down (a pager) may need the terminal more than the command does.
        let at_once = stdin().is_terminal() && !is_pipe();
        Some(Self { tty, ours: getpgrp(), at_once, given: false })
    }

    /// Gives the terminal to a command that has just started, if it is ours to give.
    pub(crate) fn lend_to_new(&mut self, group: Pid) {
        if self.at_once {
            self.lend(group);
        }
    }

    /// Gives the terminal to the command's group, if it is ours to give; whether the group has it now.
    pub(crate) fn lend(&mut self, group: Pid) -> bool {
        if tcgetpgrp(&self.tty) == Ok(self.ours) {
            self.given = set_foreground(&self.tty, group);
        }
        self.given
    }

    /// Takes it back.
    pub(crate) fn take_back(&mut self) {
        if std::mem::take(&mut self.given) {
            set_foreground(&self.tty, self.ours);
        }
    }

    /// Stops this process, as its command was stopped, so that the shell gets its prompt back (job control).
    /// Returns when the shell continues it; if that put us in the foreground, the command's group gets the terminal.
    pub(crate) fn suspend(&mut self, group: Pid) {
        self.take_back();
        // Only a wrong signal number could fail.
        let _ = raise(Signal::SIGSTOP);
        self.lend(group);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Who isn't in the foreground is sent SIGTTOU for this, unless it blocks it (tcsetpgrp(3)).
fn set_foreground(tty: &File, group: Pid) -> bool {
    let ttou = SigSet::from(Signal::SIGTTOU);
    let blocked = ttou.thread_block();
    let done = tcsetpgrp(tty, group).is_ok();
    if blocked.is_ok() {
        let _ = ttou.thread_unblock();
    }
    done
}

fn is_pipe() -> bool {
    let stdout = stdout().as_fd().try_clone_to_owned().map(File::from);
    stdout.and_then(|stdout| stdout.metadata()).is_ok_and(|metadata| metadata.file_type().is_fifo())
}
