//! Writers end with the program that started them, also those that stand still just then.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use libtest_mimic::Failed;

/// Half a minute, in steps.
const PATIENCE: u32 = 300;

/// Kills a run of this program, as a time-out of CI would, while one of its writers is frozen.
pub(crate) fn writers_end_with_their_program() -> Result<(), Failed> {
    let mut run = Command::new(std::env::current_exe()?)
        .args(["--exact", "memory::register"])
        .env("LEASEHOLD_FROZEN_SECONDS", "60")
        .stdout(Stdio::null())
        .spawn()?;
    let writers = with_one_frozen(run.id());
    run.kill()?;
    run.wait()?;
    let writers = writers?;
    for _ in 0..PATIENCE {
        // One that has ended may wait as a zombie for whoever inherited it.
        let left = writers.iter().filter(|writer| state(**writer).is_some_and(|(state, _)| state != 'Z'));
        if left.count() == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("some of {writers:?} go on").into())
}

/// The six writers of a run, once one of them is frozen.
fn with_one_frozen(run: u32) -> Result<Vec<u32>, Failed> {
    for _ in 0..PATIENCE {
        let processes = std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let writers: Vec<(u32, char)> = processes
            .filter_map(|process| Some((process, state(process)?)))
            .filter_map(|(process, (state, parent))| (parent == run).then_some((process, state)))
            .collect();
        if writers.len() == 6 && writers.iter().any(|(_, state)| *state == 'T') {
            return Ok(writers.into_iter().map(|(process, _)| process).collect());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("no writer was frozen within half a minute".into())
}

/// The state of a process, and its parent.
fn state(process: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
