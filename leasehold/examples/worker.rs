//! A worker as an orchestrator runs it: one of its replicas is active, and SIGTERM hands over at once.
//!
//! ```text
//! cargo run -p leasehold --example worker
//! LEASEHOLD_STORE=postgres://app@db/prod cargo run -p leasehold --features postgres --example worker
//! ```
//!
//! Start it twice over one store: the second waits. End the first by `kill`, and the second takes over without waiting for
//! a ttl, since the first gave the lock back. End it by `kill -9`, and the second takes over once the ttl is over.

use std::{error::Error, time::Duration};

use leasehold::prelude::*;
use tokio::signal::unix::{SignalKind, signal};

/// One piece of work. It is whole before the worker ends: SIGTERM is looked at between two of them.
async fn piece_of_work(lease: &Lease) -> Result<(), Lost> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    lease.check()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut ended = signal(SignalKind::terminate())?;
    let store = std::env::var("LEASEHOLD_STORE").unwrap_or_else(|_| "memory:".to_owned());
    let locks = leasehold::connect(&store).await?;
    // Kubernetes gives 30 s between SIGTERM and SIGKILL: the ttl is what a SIGKILL costs.
    let lock = locks.lock("worker").ttl(Duration::from_secs(15)).label("the active replica");
    println!("waiting to be the active one");
    let guard = tokio::select! {
        guard = lock.acquire() => guard?,
        _ = ended.recv() => {
            // The place in line is given up behind the dropped call.
            locks.settled().await;
            println!("ended while waiting");
            return Ok(());
        }
    };
    println!("active under token {}", guard.token());
    loop {
        tokio::select! {
            biased;
            reason = guard.lost() => return Err(format!("no longer the active one: {reason}").into()),
            _ = ended.recv() => break,
            done = piece_of_work(&guard) => done?,
        }
    }
    guard.release().await?;
    println!("handed over");
    Ok(())
}
