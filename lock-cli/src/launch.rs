//! The last step to the command: a hidden mode of this binary that becomes the command.
//!
//! It exists for what a process can only ask for itself: to be killed when its parent, the watchdog, dies, even if
//! the keeper dies in the same instant.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::MetadataExt,
            net::UnixStream,
            process::{CommandExt, parent_id},
        },
    },
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use leasehold::{Clock, Moment, SystemClock};
use nix::{errno::Errno, unistd::Pid};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{
    channel::{FRAME, Limits, Report, receive_start, send_start},
    exit,
};

/// The first argument of this mode; the watchdog's process id, the program and its arguments follow.
pub(crate) const COMMAND_MODE: &str = "__command";

/// This program, by a name under which `pgrep` and `killall` find it; by the kernel's own name for it when the file
/// was replaced meanwhile, as by an upgrade.
pub(crate) fn ourselves() -> PathBuf {
    const RUNNING: &str = "/proc/self/exe";
    let same = |path: &PathBuf| match (fs::metadata(path), fs::metadata(RUNNING)) {
        (Ok(named), Ok(running)) => (named.dev(), named.ino()) == (running.dev(), running.ino()),
        _ => false,
    };
    std::env::current_exe().ok().filter(same).unwrap_or_else(|| RUNNING.into())
}

/// Starts the command, in a process group of its own that it leads. Waits until it runs, at most until `patience`
/// is over: whether it could be started is then told by its exit code alone.
///
/// # Errors
/// The system's reason why it can't be started.
pub(crate) fn launch(
    command: &[OsString],
    (stdin, stdout): (OwnedFd, OwnedFd),
    limits: Limits,
    patience: Moment,
) -> io::Result<Pid> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
    send_start(&ours, limits, [stdin.as_fd(), stdout.as_fd()])?;
    // Its end is collected with that of all other children.
    let child = Command::new(ourselves())
        .arg0("leasehold")
        .args([OsStr::new(COMMAND_MODE), OsStr::new(&std::process::id().to_string())])
        .args(command)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(null)
        .process_group(0)
        .spawn()?;
    ours.set_read_timeout(Some(patience.since(SystemClock.now()).max(Duration::from_millis(1))))?;
    let mut frame = [0; FRAME];
    // The other end closes when the program runs.
    match ours.read_exact(&mut frame).map(|()| Report::from_frame(&frame)) {
        Ok(Some(Report::NotStarted(errno))) => Err(io::Error::from_raw_os_error(errno)),
        _ => Ok(Pid::from_raw(child.id().cast_signed())),
    }
}

/// Becomes the command: the hidden mode. Returns if that failed.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let channel = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(channel) => UnixStream::from(channel),
        Err(_) => return ExitCode::from(exit::INTERNAL),
    };
    let error = become_command(arguments, &channel);
    let errno = error.raw_os_error().unwrap_or(Errno::EINVAL as i32);
    // A watchdog that waits no more sees the exit code.
    let _ = (&channel).write_all(&Report::NotStarted(errno).to_frame());
    ExitCode::from(if errno == Errno::ENOENT as i32 { exit::NOT_FOUND } else { exit::NOT_EXECUTABLE })
}

fn become_command(arguments: &[OsString], channel: &UnixStream) -> io::Error {
    let prepared = receive_start(channel).and_then(|(_, stdin, stdout)| {
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(stdout)?;
        Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
    });
    if let Err(error) = prepared {
        return error;
    }
    let Some((watchdog, [program, rest @ ..])) = arguments.split_first() else {
        return io::Error::from_raw_os_error(Errno::ENOENT as i32);
    };
    // Who died before we asked sends no signal any more.
    if *watchdog != *parent_id().to_string() {
        return io::Error::from_raw_os_error(Errno::ESRCH as i32);
    }
    // As a shell does, execvp(3) hands a script without an interpreter line to /bin/sh.
    Command::new(program).args(rest).exec()
}
