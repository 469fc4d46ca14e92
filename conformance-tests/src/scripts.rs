//! What child processes do; the other side of `child.rs`.

use std::{
    collections::HashMap,
    io::{BufRead, Write},
    process::ExitCode,
    time::Duration,
};

use lock_core::{Locks, ReleaseOutcome};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinHandle,
};

use crate::{
    Failure, Harness,
    asker::{SOON, client_of, now, sleep},
    child::{SCRIPT, STORE},
};

/// Plays a script if this process was started to.
pub(crate) fn play<H: Harness>() -> Option<ExitCode> {
    let script = std::env::var(SCRIPT).ok()?;
    let played = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(async { act::<H>(&script).await }));
    Some(match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("child process, script {script}: {failure}");
            ExitCode::FAILURE
        }
    })
}

async fn act<H: Harness>(script: &str) -> Result<(), Failure> {
    let locks = client_of(H::open_in_child(&std::env::var(STORE)?).await?);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match (script, &*arguments) {
        ("hold", [name, millis]) => hold(&locks, name, Duration::from_millis(millis.parse()?)).await,
        ("queue", [name, millis]) => queue(&locks, name, Duration::from_millis(millis.parse()?)).await,
        ("count", [name, file, rounds]) => count(&locks, name, file, rounds.parse()?).await,
        _ => Err(Failure::new(format!("there is no such script with these arguments: {arguments:?}"))),
    }
}

/// Holds a lock, and says on demand whether it believes so.
async fn hold(locks: &Locks, name: &str, ttl: Duration) -> Result<(), Failure> {
    let guard = locks.lock(name).ttl(ttl).acquire().await?;
    say(&format!("held {}", guard.token()))?;
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        match &*order {
            "look" => say(&format!("valid {}", guard.is_valid()))?,
            "release" => {
                return say(match guard.release().await? {
                    ReleaseOutcome::Released => "released",
                    ReleaseOutcome::AlreadyLost(_) => "lost",
                    ReleaseOutcome::StillShared => "shared",
                });
            }
            other => return Err(Failure::new(format!("there is no such order: {other}"))),
        }
    }
    Ok(())
}

/// Lets waiters stand in line, one for each number that it is told; each says when it had the lock. `-` and a number: that
/// one gives up.
async fn queue(locks: &Locks, name: &str, ttl: Duration) -> Result<(), Failure> {
    let mut waiters = HashMap::new();
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        if let Some(number) = order.strip_prefix('-') {
            let waiter: JoinHandle<Result<(), Failure>> =
                waiters.remove(number).ok_or_else(|| Failure::new(format!("nobody waits as {number}")))?;
            waiter.abort();
            continue;
        }
        let lock = locks.lock(name).ttl(ttl).fair();
        let number = order.clone();
        let waiter = tokio::spawn(async move {
            let guard = lock.acquire().await?;
            // The clock is the host's, the same for all its processes.
            let had = (now().as_nanos(), guard.token());
            guard.release().await?;
            say(&format!("{number} {} {}", had.0, had.1))
        });
        waiters.insert(order, waiter);
    }
    Ok(())
}

/// Counts a file up, by read, sleep and write, which only a lock makes right.
async fn count(locks: &Locks, name: &str, file: &str, rounds: u32) -> Result<(), Failure> {
    say("ready")?;
    orders().recv().await;
    for _ in 0..rounds {
        let guard = locks.lock(name).ttl(SOON * 3).acquire().await?;
        let seen: u32 = std::fs::read_to_string(file)?.parse()?;
        sleep(Duration::from_millis(1)).await;
        std::fs::write(file, (seen + 1).to_string())?;
        guard.release().await?;
    }
    say("done")
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The parent's lines. A parent that ends closes the pipe, and the script with it.
fn orders() -> UnboundedReceiver<String> {
    let (orders, received) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if orders.send(line).is_err() {
                return;
            }
        }
    });
    received
}
