//! The processes that came of a command: its group, and those that left the group.

use std::fs;

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, getpgid},
};

/// Sends a signal to everybody in the group. A group that is gone already is no error.
///
/// A stopped process takes notice of SIGTERM only once it is continued, so the other signals that a
/// command can handle are followed by SIGCONT.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    // The only other answers are that nobody is there, or that they all became another user's: no way on from either.
    let _ = killpg(group, signal);
    if signal == Signal::SIGTERM {
        let _ = killpg(group, Signal::SIGCONT);
    }
}

/// Whether nobody is left in the group. A zombie is nobody: its parent may never look after it, and then no event
/// and no signal ends it.
pub(crate) fn group_is_empty(group: Pid) -> bool {
    if killpg(group, None) == Err(Errno::ESRCH) {
        return true;
    }
    // Twice: one that we had not come to yet may have forked behind us before it ended.
    !(0..2).any(|_| anybody_lives(group))
}

/// Whether a process of the group lives. So it is taken to be where that can't be seen.
fn anybody_lives(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.map(Pid::from_raw).any(|process| getpgid(Some(process)) == Ok(group) && lives(process))
}

/// Whether this process has a thread that isn't over. The first may be a zombie while others go on (proc(5)).
pub(crate) fn lives(process: Pid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok()).any(|stat| {
        // The name before it is in parentheses, and may hold any character.
        !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// Sends a signal to everybody who descends from `ancestor` now and isn't of `group`, whatever their session.
///
/// An orphan of a subreaper's (prctl(2), `PR_SET_CHILD_SUBREAPER`) is the subreaper's child, so nobody
/// escapes by double forking. Who forks in between is found the next time.
pub(crate) fn signal_strays(ancestor: Pid, group: Option<Pid>, signal: Signal) {
    for process in descendants(ancestor) {
        if group.is_some() && getpgid(Some(process)).ok() == group {
            continue;
        }
        let _ = kill(process, signal);
        if signal == Signal::SIGTERM {
            let _ = kill(process, Signal::SIGCONT);
        }
    }
}

/// Everybody who descends from `ancestor` now. Empty on a kernel without `CONFIG_PROC_CHILDREN`.
pub(crate) fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut found = children(ancestor);
    let mut looked_at = 0;
    while let Some(process) = found.get(looked_at).copied() {
        looked_at += 1;
        // Ids may be reused while we look; nobody is to be asked twice.
        let more: Vec<Pid> = children(process).into_iter().filter(|child| !found.contains(child)).collect();
        found.extend(more);
    }
    found
}

fn children(process: Pid) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .map(Pid::from_raw)
        .collect()
}
