//! One client: a process of the test's own binary, which lives until it is told to end, or is killed.

use std::{io::BufRead, process::ExitCode, sync::Arc, time::Duration};

use lock_core::{Fairness, LockProvider};
use lock_verify::history::{Process, Recorder};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::timeout,
};

use super::{
    chance::Chance,
    clock::WrongClock,
    control,
    holds::Holds,
    owners::{self, Owners},
    pen::Pen,
    recorded::Recorded,
    scene::{Scene, Site},
    tasks::{Bench, Values, keep, work, work_unfenced},
    words::{Plan, Said, Told, say},
};
use crate::{Failure, asker::sleep};

/// Names the plan of a process that is to be a client.
pub(super) const PLAN: &str = "LEASEHOLD_FIRE_CLIENT";

/// How long the releases behind dropped acquires may take at the end.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// The whole life of a process that is a client, if this one is.
pub(super) fn play<O>(open: O) -> Option<ExitCode>
where
    O: AsyncFn(Site) -> Result<Scene, Failure>,
{
    let plan = std::env::var(PLAN).ok()?;
    Some(match life(&plan, open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("a client under fire ends: {failure}");
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
    let clock = WrongClock::new(plan.ppm);
    let stopped = orders(clock.clone());
    let runtime = runtime()?;
    let lived = runtime.block_on(live(plan, clock, stopped, open));
    // What a driver left running in its threads is not waited for.
    runtime.shutdown_background();
    lived
}

fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Becomes true when the parent says so. A parent that is gone closes the pipe, which ends this process at once.
fn orders(clock: WrongClock) -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Told::Jump(micros)) => clock.jump(micros),
                Ok(Told::Stop) => _ = stop.send_replace(true),
                Err(error) => eprintln!("a client under fire is told what makes no sense: {error}"),
            }
        }
        if !*stop.borrow() {
            std::process::exit(1);
        }
    });
    stopped
}

async fn live<O>(plan: Plan, clock: WrongClock, stopped: watch::Receiver<bool>, open: O) -> Result<(), Failure>
where
    O: AsyncFn(Site) -> Result<Scene, Failure>,
{
    let file = |about: &str| Recorder::to_file(plan.folder.join(format!("{about}-{:05}.jsonl", plan.number)));
    let pen = Pen::new(file(HISTORY)?, Process::Client(plan.number));
    let control = Pen::new(file(control::HISTORY)?, Process::Client(plan.number));
    let site = Site {
        store: plan.store.clone(),
        place: plan.place.clone(),
        folder: plan.folder.clone(),
        clock: Arc::new(clock.clone()),
        loses_data: plan.loses_data,
    };
    let Some(scene) = connected(plan.client, &site, &open, stopped.clone()).await? else { return Ok(()) };
    let fair = scene.locks.capabilities().fairness == Fairness::Fifo;
    let owners = Owners::to_file(plan.folder.join(format!("{}-{:05}.jsonl", owners::FILES, plan.number)), plan.number)?;
    let recorded: Arc<dyn LockProvider> = Arc::new(Recorded::new(Arc::clone(&scene.locks), pen.clone(), owners));
    say(&Said::Ready)?;
    let chance = Chance::new(plan.seed);
    let bench = Arc::new(Bench {
        holds: Holds::new(recorded, clock, pen.clone(), plan.ttl, stopped),
        scene,
        control: control.clone(),
        unfenced: plan.folder.join(control::FILE),
        values: Values::of(plan.number),
        fair,
        kept: plan.kept,
    });
    let mut tasks: Vec<_> = (0..plan.tasks).map(|_| tokio::spawn(work(Arc::clone(&bench), chance.fork()))).collect();
    tasks.push(tokio::spawn(work_unfenced(Arc::clone(&bench), chance.fork())));
    if plan.keeps > 0 {
        tasks.push(tokio::spawn(keep(Arc::clone(&bench), 0..plan.keeps, chance.fork())));
    }
    for task in tasks {
        task.await?;
    }
    _ = timeout(SETTLES_WITHIN, bench.holds.locks.settled()).await;
    pen.finish()?;
    Ok(control.finish()?)
}

/// What the files of the history are called.
pub(super) const HISTORY: &str = "history";

/// Connects, however long that takes: servers may be down. `None` if the client is to end before.
///
/// Each new reason why it isn't yet goes to the run's errors, for people who ask why a client never was.
async fn connected<O>(
    client: usize,
    site: &Site,
    open: &O,
    mut stopped: watch::Receiver<bool>,
) -> Result<Option<Scene>, Failure>
where
    O: AsyncFn(Site) -> Result<Scene, Failure>,
{
    let mut last = String::new();
    loop {
        tokio::select! {
            opened = open(site.clone()) => match opened {
                Ok(scene) => return Ok(Some(scene)),
                Err(failure) => {
                    let failure = failure.to_string();
                    if failure != last {
                        eprintln!("client {client} isn't connected yet: {failure}");
                    }
                    last = failure;
                }
            },
            _ = stopped.wait_for(|stopped| *stopped) => {
                return if last.is_empty() { Ok(None) } else { Err(Failure::new(format!("it never connected: {last}"))) };
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}
