//! One node: asks for each tick when its own clock says so.

use std::{
    io::Write,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use leasehold::{LockError, Locks, Outcome, Skipped, Tick};
use serde::{Deserialize, Serialize};

/// The variable that makes a process a node.
pub(crate) const PLAN: &str = "LEASEHOLD_FLEET_PLAN";

/// What a node is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) url: String,
    pub(crate) lock: String,
    /// The first tick, in microseconds since the epoch; one a second from there on.
    pub(crate) first: u64,
    pub(crate) ticks: u64,
    /// The first of them that this node is to look at.
    pub(crate) from: u64,
    /// How much later than ours this node's clock is.
    pub(crate) behind: Duration,
    pub(crate) ticked: bool,
}

/// What a node says, to whom it may concern.
pub(crate) type Say = Arc<dyn Fn(Said) + Send + Sync>;

/// What a node says of tick number `n`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// It is about to ask for it.
    Asks(u64),
    /// It runs it, under this token.
    Runs(u64, u64),
    /// Its call returned, and it had run.
    Ran(u64),
    /// Its call returned: somebody else has used it up.
    Finished(u64),
    /// Its call returned: somebody else held the lock for as long as it waited.
    Held(u64),
    /// Its call failed.
    Failed(u64, String),
}

const SECOND: Duration = Duration::from_secs(1);

/// Longer than any hold, and than it takes to be rid of a killed node.
const PATIENCE: Duration = Duration::from_secs(60);

impl Plan {
    pub(crate) fn new(ticks: u64) -> Self {
        let begins = Tick::slot(SystemTime::now(), SECOND).0 + 3_000_000;
        let lock = format!("fleet-{begins}-{}", std::process::id());
        Self { url: String::new(), lock, first: begins, ticks, from: 0, behind: Duration::ZERO, ticked: true }
    }

    pub(crate) fn of_this_process() -> Option<Self> {
        Some(serde_json::from_str(&std::env::var(PLAN).ok()?).unwrap())
    }

    pub(crate) fn without_ticks(self) -> Self {
        Self { ticked: false, ..self }
    }

    pub(crate) fn on_node(&self, behind: Duration) -> Self {
        Self { behind, ..self.clone() }
    }

    /// For a node that starts anew: what is over is not its business.
    pub(crate) fn starting_anew(self) -> Self {
        let now = Tick::from(SystemTime::now() - self.behind).0;
        Self { from: now.saturating_sub(self.first).div_ceil(1_000_000), ..self }
    }

    pub(crate) fn length(&self) -> Duration {
        SECOND * u32::try_from(self.ticks).unwrap()
    }

    fn planned(&self, number: u64) -> SystemTime {
        SystemTime::from(Tick(self.first + number * 1_000_000))
    }
}

#[leasehold::locked(
    name = "{plan.lock}",
    locks = locks,
    ttl = ttl,
    wait = PATIENCE,
    tick = plan.planned(number)
)]
async fn job(plan: &Plan, locks: &Locks, ttl: Duration, number: u64, say: &Say) {
    work(number, say).await;
}

#[leasehold::locked(name = "{plan.lock}", locks = locks, ttl = ttl, wait = PATIENCE)]
async fn without_tick(plan: &Plan, locks: &Locks, ttl: Duration, number: u64, say: &Say) {
    work(number, say).await;
}

async fn work(number: u64, say: &Say) {
    say(Said::Runs(number, leasehold::lease!().token().get()));
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Asks for each tick in turn, none before its time and none left out, however late it is.
pub(crate) async fn work_through(plan: &Plan, locks: &Locks, say: &Say) {
    let ttl = locks.provider().capabilities().ttl.min.max(SECOND * 2);
    for number in plan.from..plan.ticks {
        // When this node's clock, which is behind, says so.
        let at = plan.planned(number) + plan.behind;
        while let Ok(left) = at.duration_since(SystemTime::now()) {
            tokio::time::sleep(left + Duration::from_micros(1)).await;
        }
        say(Said::Asks(number));
        let outcome = match plan.ticked {
            true => job(plan, locks, ttl, number, say).await,
            false => without_tick(plan, locks, ttl, number, say).await,
        };
        say(match outcome {
            Ok(Outcome::Ran(())) => Said::Ran(number),
            Ok(Outcome::Skipped(Skipped::Finished(_))) => Said::Finished(number),
            Ok(Outcome::Skipped(_)) => Said::Held(number),
            Err(LockError::Store(error)) => Said::Failed(number, error.to_string()),
            Err(error) => Said::Failed(number, error.to_string()),
        });
    }
}

/// The whole life of a process that is a node: it says what it does on its standard output, a line each.
pub(crate) fn play(plan: Plan) -> ExitCode {
    let say: Say = Arc::new(|said| {
        let mut line = serde_json::to_string(&said).unwrap();
        line.push('\n');
        // In one write: a node that is killed says all of it or nothing.
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let locks = connected(&plan.url).await;
        work_through(&plan, &locks, &say).await;
        locks.settled().await;
    });
    ExitCode::SUCCESS
}

/// A node that can't reach its store when it starts tries again: the fleet is about what comes after.
async fn connected(url: &str) -> Locks {
    for _ in 0..20 {
        match leasehold::connect(url).await {
            Ok(locks) => return locks,
            Err(error) => eprintln!("a node starts, and is told: {error}"),
        }
        tokio::time::sleep(SECOND / 2).await;
    }
    panic!("the store is not there");
}
