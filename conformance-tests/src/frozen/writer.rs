//! One writer: a process that takes its turns at the lock, and appends while it holds it.

use std::{
    io::{BufRead, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use lock_core::{Applied, Entropy, LeaseGuard, LockError, LockProvider, Locks, SeededEntropy};
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::timeout,
};

use super::{
    list::FencedList,
    words::{Entry, Said},
};
use crate::{
    Failure,
    asker::{client_of, now, sleep, ttl},
    ensure,
};

/// Names the plan of a process that is to be a writer.
pub(super) const PLAN: &str = "LEASEHOLD_FROZEN_WRITER";

/// How long an append may take before its outcome is given up as unknown.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often in a row the store may fail before that is the writer's failure.
const FAILURES: u32 = 60;

/// Where the writers of one run write: what was given to [`FrozenWriters::new`](super::FrozenWriters::new), and a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Site {
    /// Which kind of list, as the test program calls it.
    pub list: String,
    /// Where it is: a URL, a path.
    pub place: String,
    /// The list's own name, of this run only. The lock is called so too.
    pub name: String,
}

/// What a writer works with: the lock's store and the list, each by connections of its own.
pub struct Scene {
    locks: Locks,
    ttl: Duration,
    list: Arc<dyn FencedList>,
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scene").field("locks", &self.locks).finish_non_exhaustive()
    }
}

impl Scene {
    /// Locks of this store, to write to this list.
    pub fn new(locks: impl LockProvider, list: Arc<dyn FencedList>) -> Self {
        Self::shared(Arc::new(locks), list)
    }

    /// The same, for a store that is shared already.
    pub fn shared(locks: Arc<dyn LockProvider>, list: Arc<dyn FencedList>) -> Self {
        Self { locks: client_of(locks), ttl: Duration::ZERO, list }
    }
}

/// What one process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) site: Site,
    pub(super) ttl: Duration,
    pub(super) fenced: bool,
    pub(super) writer: usize,
    pub(super) seed: u64,
}

/// The shortest and the longest thought between the look at the lease and the write.
const THOUGHT: [u64; 2] = [10, 25];

/// The fewest and the most appends of one turn; the longest turns outlive a lease of a second or two, and need renewal.
const TURN: [u64; 2] = [20, 120];

/// The whole life of a process that is a writer, if this one is.
pub(super) fn play<O>(open: O) -> Option<ExitCode>
where
    O: AsyncFn(Site) -> Result<Scene, Failure>,
{
    let plan = std::env::var(PLAN).ok()?;
    Some(match life(&plan, open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("a writer ends: {failure}; it was to do {plan}");
            ExitCode::FAILURE
        }
    })
}

fn life<O>(plan: &str, open: O) -> Result<(), Failure>
where
    O: AsyncFn(Site) -> Result<Scene, Failure>,
{
    // Also while it is frozen, when it doesn't hear that the pipe is closed.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let plan: Plan = serde_json::from_str(plan)?;
    let stop = orders();
    let runtime = runtime_of(plan.writer)?;
    let lived = runtime.block_on(write(&plan, open, stop));
    // What a driver left running in its threads is not waited for.
    runtime.shutdown_background();
    lived
}

/// Both kinds that applications have: where all tasks share the thread that thinks, and where others go on meanwhile.
fn runtime_of(writer: usize) -> Result<Runtime, Failure> {
    let mut builder =
        if writer.is_multiple_of(2) { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    Ok(builder.worker_threads(2).enable_all().build()?)
}

/// Becomes true when the parent says so. A parent that is gone closes the pipe, which ends this process at once.
fn orders() -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    std::thread::spawn(move || {
        let mut lines = std::io::stdin().lock().lines();
        if let Some(Ok(_)) = lines.next() {
            stop.send_replace(true);
        }
        if lines.next().is_none() && !*stop.borrow() {
            std::process::exit(1);
        }
    });
    stopped
}

/// In one write, and far shorter than what a pipe takes in one piece: nobody reads half a line.
fn say(said: &Said) -> Result<(), Failure> {
    let mut line = serde_json::to_string(said)?;
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}

/// How a turn ended.
enum Turn {
    /// With its end, a refusal, a loss or the order to stop.
    Over,
    /// With a failure of the store: it is connected to anew, as after a freeze connections and sessions may be dead.
    Broken,
}

async fn write<O>(plan: &Plan, open: O, mut stopped: watch::Receiver<bool>) -> Result<(), Failure>
where
    O: AsyncFn(Site) -> Result<Scene, Failure>,
{
    let chance = SeededEntropy::new(plan.seed);
    let mut scene = connected(plan, &open).await?;
    say(&Said::Ready)?;
    let (mut number, mut failures) = (0, 0);
    while !*stopped.borrow() {
        ensure!(failures < FAILURES, "the store failed {failures} times in a row");
        let lock = scene.locks.lock(plan.site.name.as_str()).ttl(scene.ttl);
        let acquired = tokio::select! {
            acquired = lock.acquire() => acquired,
            _ = stopped.changed() => break,
        };
        let guard = match acquired {
            Ok(guard) => guard,
            // The answer came when the lease was over.
            Err(LockError::Lost(_)) => continue,
            Err(LockError::Store(error)) if error.is_transient() => {
                failures += 1;
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        say(&Said::Holds(guard.token().get(), now().as_nanos()))?;
        let turn = turn(plan, &scene, &guard, &stopped, &chance, &mut number).await?;
        say(&Said::Ends(now().as_nanos()))?;
        // What could not be given back is free after its ttl.
        _ = guard.release().await;
        match turn {
            Turn::Over => failures = 0,
            Turn::Broken => {
                failures += 1;
                scene = connected(plan, &open).await?;
            }
        }
    }
    _ = timeout(PATIENCE / 3, scene.locks.settled()).await;
    Ok(())
}

/// Look, think, write; and again.
async fn turn(
    plan: &Plan,
    scene: &Scene,
    guard: &LeaseGuard,
    stopped: &watch::Receiver<bool>,
    chance: &SeededEntropy,
    number: &mut u64,
) -> Result<Turn, Failure> {
    let lease = guard.lease();
    for _ in 0..between(TURN, chance) {
        if *stopped.borrow() || lease.check().is_err() {
            break;
        }
        // Blocks its thread: nothing wakes the writer to look again before it writes. Most freezes fall in here.
        std::thread::sleep(Duration::from_millis(between(THOUGHT, chance)));
        *number += 1;
        let entry = Entry { token: lease.token().get(), writer: plan.writer, number: *number };
        let text = entry.to_string();
        say(&Said::Tries(entry, now().as_nanos()))?;
        let append = async {
            if plan.fenced { scene.list.append(lease, &text).await } else { scene.list.append_unfenced(&text).await }
        };
        let outcome = timeout(PATIENCE, append).await;
        let at = now().as_nanos();
        let (said, turn) = match outcome {
            Ok(Ok(())) => (Said::Acked(entry, at), None),
            Ok(Err(error)) if error.is_refusal() => (Said::Refused(entry, at), Some(Turn::Over)),
            Ok(Err(error)) if error.applied() == Applied::No => {
                (Said::NotDone(entry, at, error.to_string()), Some(Turn::Broken))
            }
            Ok(Err(error)) => (Said::InDoubt(entry, at, error.to_string()), Some(Turn::Broken)),
            Err(_) => (Said::InDoubt(entry, at, format!("no answer within {PATIENCE:?}")), Some(Turn::Broken)),
        };
        say(&said)?;
        if let Some(turn) = turn {
            return Ok(turn);
        }
        // A thread that thinks again at once would leave its runtime no time for renewals.
        tokio::task::yield_now().await;
    }
    Ok(Turn::Over)
}

async fn connected<O>(plan: &Plan, open: &O) -> Result<Scene, Failure>
where
    O: AsyncFn(Site) -> Result<Scene, Failure>,
{
    let mut last = Failure::new("it was not tried");
    for _ in 0..20 {
        match open(plan.site.clone()).await {
            Ok(mut scene) => {
                let millis = u64::try_from(plan.ttl.as_millis())?;
                scene.ttl = ttl(scene.locks.provider(), millis);
                return Ok(scene);
            }
            Err(failure) => last = failure,
        }
        sleep(Duration::from_millis(250)).await;
    }
    Err(last)
}

/// A number from the first to the last of a range, both among them.
fn between([first, last]: [u64; 2], chance: &dyn Entropy) -> u64 {
    first + chance.next_u64() % (last - first + 1)
}
