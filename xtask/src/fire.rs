//! `cargo xtask fire`: clients in processes of their own, on servers that are broken at random, and the laws over all of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

/// All stores, in the order in which `--store all` burns them.
const STORES: [&str; 10] = [
    "sqlite",
    "postgres",
    "redis",
    "redis-sentinel",
    "redlock",
    "mongo",
    "etcd",
    "etcd-three",
    "zookeeper",
    "zookeeper-three",
];

/// What `--help` tells beyond the options.
pub(crate) const AFTER_HELP: &str = "\
Each run starts servers of its own (the testbed's shared ones are left alone), and client processes that count,
append under fences, write in transactions, queue, and keep many leases, while chance freezes and kills clients,
loses, holds and delays what passes between them and the servers, and freezes, kills, cuts off and restarts those, and sets their clocks.
All that happened is then judged: L1 to L11 must hold, L1 not where the store itself lost its data or its clock leapt by
more than the grace, which is counted; and L4 must break in a set that nothing fences, or the run was too tame.

Examples:
  cargo xtask fire --store postgres --minutes 5
  cargo xtask fire --store all --minutes 20 --at-once 3 --keep target/fire
  cargo xtask fire --store redis --faults help              what can be done to it
  cargo xtask fire --store redis --faults wiped,frozen,cut  these faults only
  cargo xtask fire --store mongo --faults server-clock-steps,server-clock-leaps,frozen
  cargo xtask fire --store etcd-three --minutes 5 --seed 7  the same chance again; the machine's timing isn't repeated
  cargo xtask fire --judge target/fire/etcd-three           a history that was kept, once more";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which store: sqlite, postgres, redis, redis-sentinel, redlock, mongo, etcd, etcd-three, zookeeper, zookeeper-three,
    /// or all of them
    #[arg(long, default_value = "all")]
    store: String,
    /// For how long there are faults, on each store
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// What all chance is drawn from; told at the end of a run that draws its own
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults, with commas between them; `help` lists them
    #[arg(long)]
    faults: Option<String>,
    /// How many stores burn at the same time; their clients mostly wait
    #[arg(long, default_value_t = 1)]
    at_once: usize,
    /// How many client processes, at least 3
    #[arg(long, default_value_t = 6)]
    clients: u32,
    /// How many leases the first client keeps
    #[arg(long, default_value_t = 500)]
    leases: u32,
    /// Keeps all histories in this folder, by store; otherwise those of runs that failed are kept
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Judges a history that was kept, and burns nothing
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["store", "faults", "keep"])]
    judge: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
    crate::packages::install_missing()?;
    if let Some(folder) = &options.judge {
        return test(&[("JUDGE", absolute(folder)?)], &[], 1);
    }
    let stores: Vec<&str> = match options.store.as_str() {
        "all" => STORES.to_vec(),
        one => STORES.into_iter().filter(|store| *store == one).collect(),
    };
    if stores.is_empty() {
        return Err(format!("there is no store {:?}; there are {}, and all", options.store, STORES.join(", ")));
    }
    if !options.minutes.is_finite() || options.minutes <= 0.0 {
        return Err("--minutes is a number above zero".to_owned());
    }
    let seconds = Duration::from_secs_f64(options.minutes * 60.0).as_secs().max(1);
    let mut wish = vec![
        ("SECONDS", seconds.to_string()),
        ("CLIENTS", options.clients.to_string()),
        ("KEPT", options.leases.to_string()),
    ];
    wish.push(("SEED", options.seed.map_or("any".to_owned(), |seed| seed.to_string())));
    wish.extend(options.faults.clone().map(|faults| ("FAULTS", faults)));
    wish.extend(options.keep.as_ref().map(absolute).transpose()?.map(|folder| ("FOLDER", folder)));
    test(&wish, &stores, options.at_once.max(1))
}

/// The test program that burns these stores; in an optimised build.
fn test(wish: &[(&str, String)], stores: &[&str], at_once: usize) -> Result<ExitCode, String> {
    let mut cargo = crate::cargo();
    cargo.args([
        "test",
        "--quiet",
        "--release",
        "-p",
        "conformance-tests",
        "--features",
        "fire",
        "--test",
        "fire",
        "--",
    ]);
    cargo.args(["--test-threads", &at_once.to_string(), "--exact", "--nocapture"]);
    for store in STORES.iter().filter(|store| !stores.contains(store)) {
        cargo.args(["--skip", store]);
    }
    for (name, value) in wish {
        cargo.env(format!("LEASEHOLD_FIRE_{name}"), value);
    }
    // A server that isn't there was not burnt: nobody may take that for a pass.
    cargo.env("CI", "1");
    eprintln!("xtask: building all stores with optimisation, which takes minutes the first time");
    let status =
        cargo.current_dir(crate::test::root()).status().map_err(|error| format!("can't run cargo: {error}"))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn absolute(folder: &PathBuf) -> Result<String, String> {
    let folder = std::path::absolute(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder.display().to_string())
}
