//! `leasehold`: run a command while holding a distributed lock, and look after the locks.
//!
//! A `leasehold run` is two processes of this binary. The keeper (`run`, `supervise`) talks to the store, renews the
//! lease and passes signals on. The watchdog (`watchdog`) is the command's parent and ends it when the lease ends,
//! even when the keeper is frozen or killed. They talk over a socket (`channel`). The command starts as a third one,
//! which becomes it (`launch`).

mod args;
mod channel;
mod duration;
mod exit;
mod fence;
mod group;
mod launch;
mod leash;
mod logging;
mod outbox;
mod people;
mod run;
mod schema;
mod signals;
mod store;
mod supervise;
mod terminal;
mod voice;
mod watchdog;

use std::{ffi::OsString, fs::File, process::ExitCode};

use clap::Parser;

use crate::{
    args::{Cli, LogFormat, Task},
    exit::Failure,
    voice::Voice,
};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|mode| mode == leash::WATCHDOG_MODE) {
        return watchdog::main(arguments.get(2..).unwrap_or_default());
    }
    if arguments.get(1).is_some_and(|mode| mode == launch::COMMAND_MODE) {
        return launch::main(arguments.get(2..).unwrap_or_default());
    }
    if let Err(failure) = store::hide_password(&arguments) {
        return end(Voice { quiet: false, json: false }, Err(failure));
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(told) => {
            // Help and the version are asked for, and go to stdout.
            let code = if told.use_stderr() { exit::USAGE } else { exit::OK };
            let _ = told.print();
            return ExitCode::from(code);
        }
    };
    let speech = cli.task.speech();
    let voice = Voice { quiet: speech.quiet, json: speech.log_format == LogFormat::Json };
    logging::start(speech);

    if let Err(failure) = enough_descriptors() {
        return end(voice, Err(failure));
    }
    if matches!(cli.task, Task::Run(_)) {
        // Before there are threads, which inherit it: what comes from now on is kept until it can be told apart.
        signals::hold();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(voice, Err(Failure::internal(format!("no threads to work with: {error}")))),
    };
    let outcome = runtime.block_on(perform(&cli.task, voice));
    // A driver that still talks to a store must not hold us up. Nor are its tasks ended one by one: one that asks for another
    // that is gone already panics (mongodb 3.9 does), and says so on the user's terminal.
    std::mem::forget(runtime);
    end(voice, outcome)
}

/// The runtime doesn't say so when it lacks descriptors: it panics.
fn enough_descriptors() -> Result<(), Failure> {
    /// A `run` with a store in a file or a connection or two; measured, and some more.
    const NEEDED: usize = 24;
    let tried: Result<Vec<File>, _> = (0..NEEDED).map(|_| File::open("/dev/null")).collect();
    tried
        .map(drop)
        .map_err(|error| Failure::internal(format!("{NEEDED} more files must be open at once (ulimit -n): {error}")))
}

async fn perform(task: &Task, voice: Voice) -> Result<u8, Failure> {
    match task {
        Task::Run(task) => run::run(task, voice).await,
        Task::Status(task) => people::status(task).await,
        Task::List(task) => people::list(task).await,
        Task::Release(task) => people::release(task).await,
        Task::Fence(task) => fence::perform(task).await,
        Task::Schema(task) => schema::print(task),
    }
}

fn end(voice: Voice, outcome: Result<u8, Failure>) -> ExitCode {
    ExitCode::from(outcome.unwrap_or_else(|failure| {
        voice.fail(&failure.message);
        failure.code
    }))
}
