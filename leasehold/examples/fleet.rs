//! A job every second on three nodes, by `tokio-cron-scheduler`: one of them runs it each time, though one crashes.
//!
//! ```text
//! cargo run -p leasehold --example fleet
//! LEASEHOLD_STORE=postgres://app@db/prod cargo run -p leasehold --features postgres --example fleet
//! ```
//!
//! The program starts itself three times: three processes, as three hosts would be. The first node crashes in the midst of
//! the second run that it gets. That tick is used up, for its job may have done half of its work; the next one is run by
//! the others as soon as the lock of the dead node is free.

#![allow(clippy::disallowed_methods, reason = "this is where the program's time comes from")]

use std::{
    collections::BTreeMap,
    error::Error,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime},
};

use leasehold::prelude::*;
use tokio_cron_scheduler::{Job, JobScheduler};

const SECOND: Duration = Duration::from_secs(1);
const SECONDS: u64 = 12;

/// The job. The scheduler doesn't say for which second it fires, so that is cut from the clock: all nodes whose clocks
/// are in the same second mean the same tick.
#[leasehold::locked(name = "fleet-{fleet}", ttl = "2s", wait = "5s", tick = tick)]
async fn report(fleet: &str, node: &str, tick: Tick) {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    println!("{tick} run by {node} under token {}", lease!().token());
    tokio::time::sleep(Duration::from_millis(50)).await;
    if node == "node-1" && RUNS.fetch_add(1, Ordering::SeqCst) == 1 {
        println!("{tick} crash of {node}");
        std::process::abort();
    }
}

async fn node(name: &'static str, fleet: &'static str, store: &str) -> Result<(), Box<dyn Error>> {
    leasehold::install(leasehold::connect(store).await?);
    let scheduler = JobScheduler::new().await?;
    let job = Job::new_async("* * * * * *", move |_, _| {
        let tick = Tick::slot(SystemTime::now(), SECOND);
        Box::pin(async move {
            match report(fleet, name, tick).await {
                Ok(Outcome::Ran(()) | Outcome::Skipped(_)) => {}
                Err(error) => eprintln!("{name}, tick {tick}: {error}"),
            }
        })
    })?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    tokio::time::sleep(SECOND * u32::try_from(SECONDS)?).await;
    Ok(())
}

fn start(name: &str, fleet: &str, store: &str) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    // In the environment, since a URL may hold a password, which everybody could read in the command's arguments.
    command.args([name, fleet]).env("LEASEHOLD_STORE", store).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let own_file = std::env::temp_dir().join(format!("leasehold-fleet-{}.db", std::process::id()));
    let store = std::env::var("LEASEHOLD_STORE").unwrap_or_else(|_| format!("sqlite:{}", own_file.display()));
    if let [name, fleet] = arguments.try_into().unwrap_or_else(|_| [String::new(), String::new()])
        && !name.is_empty()
    {
        return node(name.leak(), fleet.leak(), &store).await;
    }

    let fleet = format!("{}-{}", std::process::id(), Tick::from(SystemTime::now()).0);
    let mut nodes = ["node-1", "node-2", "node-3"].map(|name| start(name, &fleet, &store));
    let mut runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    for node in &mut nodes {
        let node = node.as_mut().map_err(|error| error.to_string())?;
        let lines = BufReader::new(node.stdout.take().ok_or("a node without an output")?).lines();
        let told = told.clone();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| told.send(line)));
    }
    drop(told);
    while let Some(line) = tells.recv().await {
        println!("{line}");
        if let Some((tick, rest)) = line.split_once(" run by ") {
            runs.entry(tick.to_owned()).or_default().push(rest.to_owned());
        }
    }
    for node in nodes {
        node?.wait()?;
    }
    let twice: Vec<_> = runs.iter().filter(|(_, by)| by.len() > 1).collect();
    println!("{} ticks ran, {} of them twice", runs.len(), twice.len());
    for ending in ["", "-wal", "-shm"] {
        // Ours alone, if it is there at all.
        let _ = std::fs::remove_file(format!("{}{ending}", own_file.display()));
    }
    if twice.is_empty() { Ok(()) } else { Err(format!("run twice: {twice:?}").into()) }
}
