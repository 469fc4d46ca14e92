//! A job by cron's rules without a scheduler: `croner` says when, a plain loop does the rest.
//!
//! ```text
//! cargo run -p leasehold --example plain_loop
//! LEASEHOLD_STORE=redis://localhost cargo run -p leasehold --features redis --example plain_loop
//! ```
//!
//! Start it twice over one store, and the two share the ticks.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use chrono::Utc;
use croner::Cron;
use leasehold::prelude::*;

/// What `croner` hands out may have the fraction of the second at which it was asked: cut, it is the same on all nodes.
fn tick_of(planned: chrono::DateTime<Utc>) -> Tick {
    Tick::slot(SystemTime::from(planned), Duration::from_secs(1))
}

#[leasehold::locked(name = "plain-loop", ttl = "10s", at_most_for = "30s", tick = tick)]
async fn report(tick: Tick) -> Result<(), std::io::Error> {
    println!("{tick}: the report, under token {}", lease!().token());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = std::env::var("LEASEHOLD_STORE").unwrap_or_else(|_| "memory:".to_owned());
    leasehold::install(leasehold::connect(&store).await?);
    let schedule: Cron = "* * * * * *".parse()?;
    let mut last = Utc::now();
    for _ in 0..3 {
        // After the last one and not after now: a run that takes long makes the next one late, and leaves none out.
        let planned = schedule.find_next_occurrence(&last, false)?;
        last = planned;
        tokio::time::sleep((planned - Utc::now()).to_std().unwrap_or_default()).await;
        match report(tick_of(planned)).await {
            Ok(Outcome::Ran(Ok(()))) => {}
            Ok(Outcome::Ran(Err(error))) => eprintln!("the report failed: {error}"),
            Ok(Outcome::Skipped(why)) => println!("left to another node: {why}"),
            Err(error) => eprintln!("the job was cut short, or could not begin: {error}"),
        }
    }
    Ok(())
}
