//! Runs seeds of the simulation: what `cargo xtask simulate` calls.

// A run is measured in real time; what it simulates isn't.
#![allow(clippy::disallowed_methods)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use lock_verify::{
    history::Recorder,
    simulation::{Counts, Outcome, Told, simulate},
};

/// Runs seeds of the simulation of the core.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// End after so many minutes, however many seeds were run
    #[arg(long)]
    minutes: Option<f64>,
    /// Seeds run at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Print the whole run of one seed
    #[arg(long, conflicts_with_all = ["seeds", "from", "minutes", "jobs"])]
    replay: Option<u64>,
    /// With --replay: write what the clients saw as a history, in JSON lines, to this new file
    #[arg(long, value_name = "FILE", requires = "replay")]
    history: Option<PathBuf>,
}

/// How many events before a violation are shown.
const LAST_EVENTS: usize = 60;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.replay {
        Some(seed) => replay(seed, arguments.history.as_deref()),
        None => run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn replay(seed: u64, history: Option<&Path>) -> std::io::Result<ExitCode> {
    if let Some(path) = history {
        let file = Recorder::to_file(path)?;
        let mut events = simulate(seed, Told::History)?.history.unwrap_or_default();
        events.sort_by_key(|event| event.time);
        events.into_iter().for_each(|event| file.record(event));
        file.finish()?;
    }
    let outcome = simulate(seed, Told::Trace)?;
    print!("{}", outcome.trace.as_deref().unwrap_or_default());
    Ok(match &outcome.violation {
        Some(violation) => {
            println!("seed {seed} breaks {violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    })
}

/// What all jobs came to so far.
#[derive(Default)]
struct Total {
    seeds: u64,
    lasted: u64,
    counts: Counts,
    broken: Option<Outcome>,
}

fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let begun = Instant::now();
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from.saturating_add(arguments.seeds);
    let over = AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    let time_is_up =
        || arguments.minutes.is_some_and(|minutes| begun.elapsed() >= Duration::from_secs_f64(minutes * 60.0));
    std::thread::scope(|scope| -> std::io::Result<()> {
        let jobs: Vec<_> = (0..arguments.jobs.max(1))
            .map(|_| {
                scope.spawn(|| -> std::io::Result<()> {
                    while !over.load(Relaxed) && !time_is_up() {
                        // A few at a time, so that the jobs don't wait for each other.
                        let first = next.fetch_add(16, Relaxed);
                        if first >= end {
                            break;
                        }
                        let mut own = Total::default();
                        for seed in first..end.min(first + 16) {
                            let outcome = simulate(seed, Told::Nothing)?;
                            own.seeds += 1;
                            own.lasted += outcome.lasted;
                            own.counts += outcome.counts;
                            if outcome.violation.is_some() {
                                own.broken = Some(outcome);
                                over.store(true, Relaxed);
                                break;
                            }
                        }
                        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                        total.seeds += own.seeds;
                        total.lasted += own.lasted;
                        total.counts += own.counts;
                        total.broken = total.broken.take().or(own.broken);
                    }
                    Ok(())
                })
            })
            .collect();
        let mut told = 0;
        while jobs.iter().any(|job| !job.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if begun.elapsed().as_secs() >= told + 10 {
                told = begun.elapsed().as_secs();
                progress(&total.lock().unwrap_or_else(PoisonError::into_inner), begun.elapsed());
            }
        }
        jobs.into_iter().try_for_each(|job| job.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    table(&total, begun.elapsed());
    match &total.broken {
        Some(broken) => tell(broken),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn progress(total: &Total, elapsed: Duration) {
    let per_second = |count: u64| count as f64 / elapsed.as_secs_f64();
    let faults: Vec<String> = total
        .counts
        .table()
        .into_iter()
        .filter_map(|(label, count)| Some(format!("{} {count}", label.strip_prefix("fault: ")?)))
        .collect();
    eprintln!(
        "{:>5} s: {} seeds ({:.0}/s), {} grants ({:.0}/s); {}",
        elapsed.as_secs(),
        total.seeds,
        per_second(total.seeds),
        total.counts.grants,
        per_second(total.counts.grants),
        faults.join(", ")
    );
}

fn table(total: &Total, elapsed: Duration) {
    println!("{:>14}  seeds", total.seeds);
    println!("{:>14.1}  seconds", elapsed.as_secs_f64());
    let cpu = cpu_time().as_secs_f64();
    println!("{cpu:>14.1}  seconds of CPU, {:.1} µs for each grant", cpu * 1e6 / total.counts.grants.max(1) as f64);
    println!("{:>14.1}  hours of simulated time", total.lasted as f64 / 3.6e12);
    for (label, count) in total.counts.table() {
        println!("{count:>14}  {label}");
    }
    let seconds = elapsed.as_secs_f64();
    println!("{:>14.0}  seeds a second", total.seeds as f64 / seconds);
    println!("{:>14.0}  grants a second", total.counts.grants as f64 / seconds);
}

/// What this process took of the machine: it may be shared.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A law was broken: how it came to that, and how to see it again.
fn tell(broken: &Outcome) -> std::io::Result<ExitCode> {
    let again = simulate(broken.seed, Told::Trace)?;
    let lines: Vec<&str> = again.trace.as_deref().unwrap_or_default().lines().collect();
    println!("\nthe last events of seed {}:", broken.seed);
    for line in &lines[lines.len().saturating_sub(LAST_EVENTS)..] {
        println!("{line}");
    }
    if let Some(violation) = &broken.violation {
        println!("\nseed {} breaks {violation}", broken.seed);
    }
    if again.violation != broken.violation {
        println!("run again it came to {:?}: the core is not deterministic", again.violation);
    }
    println!("replay: cargo xtask simulate --replay {}", broken.seed);
    Ok(ExitCode::FAILURE)
}
