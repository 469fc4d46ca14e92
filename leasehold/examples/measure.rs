//! How quick a store is, from where you are:
//!
//! ```console
//! $ LEASEHOLD_STORE=redis://localhost cargo run --release -p leasehold --features full --example measure
//! ```
//!
//! Prints one line of JSON. Everything is durations of whole operations as an application sees them, by way of the client
//! with its guards and its grouping.

#![allow(clippy::disallowed_methods, reason = "it measures, on a machine that doesn't sleep meanwhile")]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use leasehold::prelude::*;

/// One at a time, and hand-offs.
const ROUNDS: usize = 201;
/// Different locks at once.
const TASKS: usize = 64;
const PAIRS_PER_TASK: usize = 30;

const TTL: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Not from the command line, which everybody on the host can read.
    let url = std::env::var("LEASEHOLD_STORE").map_err(|_| "which store? set LEASEHOLD_STORE to its URL")?;
    let (one, two) = (leasehold::connect(&url).await?, leasehold::connect(&url).await?);
    // Unlike those of another run.
    let run = format!("measure-{}-{:?}", std::process::id(), Instant::now());
    let series = series(&one, &run).await?;
    let at_once = at_once(&one, &run).await?;
    let hand_off = hand_off([&one, &two], &run).await?;
    println!(
        "{{\"store\":\"{}\",\"pair_p50_ms\":{:.2},\"pair_p90_ms\":{:.2},\"pairs_per_second_of_64_tasks\":{at_once:.0},\
         \"hand_off_p50_ms\":{:.2},\"hand_off_p90_ms\":{:.2}}}",
        one.provider().capabilities().store,
        millis(&series, 50),
        millis(&series, 90),
        millis(&hand_off, 50),
        millis(&hand_off, 90),
    );
    Ok(())
}

/// Acquire and release of one free lock after the other.
async fn series(locks: &Locks, run: &str) -> Result<Vec<Duration>, LockError> {
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("{run}-series-{}", round % 8);
        let begun = Instant::now();
        locks.lock(name).ttl(TTL).acquire().await?.release().await?;
        took.push(begun.elapsed());
    }
    took.sort();
    Ok(took)
}

/// Pairs of acquire and release per second, of tasks with locks of their own.
async fn at_once(locks: &Locks, run: &str) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (locks, name) = (locks.clone(), format!("{run}-at-once-{task}"));
            tokio::spawn(async move {
                for _ in 0..PAIRS_PER_TASK {
                    locks.lock(name.as_str()).ttl(TTL).acquire().await?.release().await?;
                }
                Ok::<_, LockError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let pairs = (TASKS * PAIRS_PER_TASK) as f64;
    Ok(pairs / begun.elapsed().as_secs_f64())
}

/// From the release by one client to the grant to another that waits.
async fn hand_off(clients: [&Locks; 2], run: &str) -> Result<Vec<Duration>, Box<dyn Error + Send + Sync>> {
    let lock = |round: usize| clients[round % 2].lock(format!("{run}-hand-off")).ttl(TTL);
    let mut guard = lock(0).acquire().await?;
    let mut took = Vec::new();
    for round in 1..=ROUNDS {
        let waiter = tokio::spawn(lock(round).acquire());
        // Long enough to be waiting by then; one that isn't would only look quicker or slower by its own way there.
        tokio::time::sleep(Duration::from_millis(60)).await;
        let released = Instant::now();
        guard.release().await?;
        guard = waiter.await??;
        took.push(released.elapsed());
    }
    guard.release().await?;
    took.sort();
    Ok(took)
}

fn millis(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1e3
}
