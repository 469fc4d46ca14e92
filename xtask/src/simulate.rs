//! `cargo xtask simulate`: seeds of the simulated core.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed: the same numbers are the same runs
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    from: u64,
    /// End after so many minutes, however many seeds were run by then
    #[arg(long)]
    minutes: Option<f64>,
    /// How many seeds are run at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Print the whole run of this one seed, event by event, and run no other
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from", "minutes", "jobs"])]
    replay: Option<u64>,
    /// With --replay: write what the clients saw as a history, in JSON lines, to this file
    #[arg(long, value_name = "FILE", requires = "replay")]
    history: Option<std::path::PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let mut cargo = crate::cargo();
    cargo.args(["run", "--quiet", "--release", "-p", "lock-verify", "--bin", "simulate", "--"]);
    if let Some(seed) = arguments.replay {
        cargo.args(["--replay", &seed.to_string()]);
    } else {
        let Arguments { seeds, from, jobs, .. } = arguments;
        cargo.args(["--seeds", &seeds.to_string(), "--from", &from.to_string(), "--jobs", &jobs.to_string()]);
    }
    if let Some(minutes) = arguments.minutes {
        cargo.args(["--minutes", &minutes.to_string()]);
    }
    if let Some(history) = &arguments.history {
        // It runs in the root of the project, and the path is the caller's.
        let path = std::path::absolute(history).map_err(|error| format!("{}: {error}", history.display()))?;
        cargo.arg("--history").arg(path);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let status = cargo.current_dir(root).status().map_err(|error| format!("can't run cargo: {error}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
