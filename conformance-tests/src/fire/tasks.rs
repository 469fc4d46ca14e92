//! What clients do with locks: one task does one thing after the other, as chance has it.

use std::{fs, io::Write, path::Path, sync::Arc, time::Duration};

use lock_core::{Applied, FenceError, Lease};
use lock_verify::history::{Event, F, Why};
use tokio::time::timeout;

use super::{
    chance::Chance,
    control,
    holds::{Hold, Holds, Wish},
    pen::Pen,
    scene::Scene,
    words::{Said, say},
};
use crate::FencedList;

/// How long an append may take before its outcome is given up as unknown. It goes on behind that.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all tasks of a client share.
pub(super) struct Bench {
    pub(super) holds: Holds,
    pub(super) scene: Scene,
    /// Writes of the set that nothing fences: judged apart, for they must break law 4.
    pub(super) control: Pen,
    pub(super) unfenced: std::path::PathBuf,
    pub(super) values: Values,
    pub(super) fair: bool,
    pub(super) kept: usize,
}

/// Numbers that no other write has.
#[derive(Debug)]
pub(super) struct Values {
    process: u64,
    next: std::sync::atomic::AtomicU64,
}

impl Values {
    pub(super) fn of(process: u32) -> Self {
        Self { process: u64::from(process), next: std::sync::atomic::AtomicU64::new(1) }
    }

    fn next(&self) -> u64 {
        self.process * 10_000_000 + self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

/// An entry as lists have it.
pub(super) fn entry(token: u64, value: u64) -> String {
    format!("{token}-{value}")
}

/// One task, until the client is to end.
pub(super) async fn work(bench: Arc<Bench>, chance: Chance) {
    while !bench.holds.is_stopped() {
        let sets = bench.scene.sets.len();
        match chance.below(4 + 3 * sets) {
            0 => count(&bench, &chance).await,
            1 => transact(&bench, &chance).await,
            2 => hand_off(&bench, &chance).await,
            3 if chance.once_in(2) => bench.holds.be_a_stranger(&chance).await,
            3 => look_at_a_kept_one(&bench, &chance).await,
            other => {
                let (name, list) = &bench.scene.sets[(other - 4) % sets];
                append(&bench, name, list, &chance).await;
            }
        }
        bench.holds.pause(chance.between(Duration::ZERO, Duration::from_millis(30))).await;
    }
}

/// The task whose writes nothing fences: somebody always holds that lock, to be frozen while it writes.
pub(super) async fn work_unfenced(bench: Arc<Bench>, chance: Chance) {
    while !bench.holds.is_stopped() {
        write_unfenced(&bench, &chance).await;
        bench.holds.pause(chance.between(Duration::ZERO, Duration::from_millis(100))).await;
    }
}

/// Keeps these leases, and takes up again what is lost.
pub(super) async fn keep(bench: Arc<Bench>, names: std::ops::Range<usize>, chance: Chance) {
    let keepers = names.map(|number| {
        let (bench, chance) = (Arc::clone(&bench), chance.fork());
        tokio::spawn(async move {
            let name = kept(number);
            let wish = Wish { ttl: bench.holds.ttl * KEPT_TTLS, wait: Some(bench.holds.ttl * KEPT_TTLS), fair: false };
            while !bench.holds.is_stopped() {
                if let Some(hold) = bench.holds.hold(&name, wish).await {
                    tokio::select! {
                        _ = hold.guard.lost() => {}
                        () = bench.holds.stopped() => {}
                    }
                    bench.holds.give_back(hold).await;
                }
                bench.holds.pause(chance.between(Duration::ZERO, bench.holds.ttl)).await;
            }
        })
    });
    for keeper in keepers.collect::<Vec<_>>() {
        // One that panicked has said so on stderr, and its lease isn't kept.
        _ = keeper.await;
    }
}

/// Many leases are kept for longer each, so that the history isn't of their renewals.
const KEPT_TTLS: u32 = 4;

fn kept(number: usize) -> String {
    format!("kept-{number}")
}

async fn look_at_a_kept_one(bench: &Bench, chance: &Chance) {
    let wish = Wish { ttl: bench.holds.ttl, wait: Some(Duration::ZERO), fair: false };
    if let Some(hold) = bench.holds.hold(&kept(chance.below(bench.kept)), wish).await {
        bench.holds.give_back(hold).await;
    }
}

/// A wish as most are: some wait for as long as it takes, some give up.
fn wish(bench: &Bench, chance: &Chance) -> Wish {
    let ttl = bench.holds.ttl;
    let patience = chance.between(ttl / 4, ttl * 3);
    Wish { ttl, wait: chance.once_in(3).then_some(patience), fair: false }
}

/// Works for a while; a long one needs renewal. False if the lease was lost meanwhile.
async fn think(bench: &Bench, lease: &Lease, chance: &Chance) -> bool {
    let ttl = bench.holds.ttl;
    let time = if chance.once_in(25) {
        chance.between(ttl / 2, ttl * 3 / 2)
    } else {
        chance.between(Duration::ZERO, Duration::from_millis(15))
    };
    tokio::select! {
        _ = lease.lost() => false,
        () = bench.holds.pause(time) => true,
    }
}

/// Reads a number, thinks, and writes one more.
async fn count(bench: &Bench, chance: &Chance) {
    let Some(hold) = bench.holds.hold("counter", wish(bench, chance)).await else { return };
    let lease = hold.guard.lease().clone();
    let counter = &bench.scene.counter;
    if let Ok(Ok(value)) = timeout(PATIENCE, counter.read(&lease)).await
        && think(bench, &lease, chance).await
    {
        // The value is what is written, so that the end tells how many writes there were: each is one more.
        let begun = bench.holds.pen.invoke(F::Write, |event| {
            event.resource("counter").lock("counter").token(lease.token()).value(bench.values.next())
        });
        wrote(&bench.holds.pen, &begun, Some(counter.write(&lease, value + 1).await));
    }
    bench.holds.give_back(hold).await;
}

/// Several writes under one hold; each looks, thinks and writes.
async fn append(bench: &Bench, name: &'static str, list: &Arc<dyn FencedList>, chance: &Chance) {
    let Some(hold) = bench.holds.hold(name, wish(bench, chance)).await else { return };
    let lease = hold.guard.lease().clone();
    for _ in 0..=chance.below(4) {
        if lease.check().is_err() || !think(bench, &lease, chance).await || bench.holds.is_stopped() {
            break;
        }
        let value = bench.values.next();
        let begun = bench.holds.pen.invoke(F::Write, |event| {
            event.resource(name).lock(lease.name().as_str()).token(lease.token()).value(value)
        });
        // In a task of its own: some drivers don't bear that their futures are dropped.
        let text = entry(lease.token().get(), value);
        let append = tokio::spawn({
            let (list, lease) = (Arc::clone(list), lease.clone());
            async move { list.append(&lease, &text).await }
        });
        let outcome = timeout(PATIENCE, append).await.ok().and_then(Result::ok);
        let failed = !matches!(outcome, Some(Ok(())));
        wrote(&bench.holds.pen, &begun, outcome);
        if failed {
            break;
        }
    }
    bench.holds.give_back(hold).await;
}

/// Records what became of a write; `None` if there was no answer.
fn wrote(pen: &Pen, begun: &Event, outcome: Option<Result<(), FenceError>>) {
    match outcome {
        Some(Ok(())) => pen.ok(begun, |event| event),
        Some(Err(error)) if error.is_refusal() => pen.fail_with(begun, Why::Stale, &error),
        Some(Err(error)) if error.applied() == Applied::No => pen.fail_with(begun, Why::Error, &error),
        Some(Err(error)) => pen.info_with(begun, &error),
        None => pen.info_with(begun, &"no answer"),
    }
}

/// Appends to what takes whatever comes: it looks, thinks, and writes without another look.
async fn write_unfenced(bench: &Bench, chance: &Chance) {
    let wish = Wish { ttl: bench.holds.ttl, wait: Some(bench.holds.ttl * 3), fair: false };
    let Some(hold) = bench.holds.hold(control::SET, wish).await else { return };
    let lease = hold.guard.lease().clone();
    for _ in 0..=chance.below(10) {
        if lease.check().is_err() || bench.holds.is_stopped() {
            break;
        }
        _ = say(&Said::Tries);
        // Most freezes fall in here: nothing but the thought is long, and longer than it takes a slow machine to hear of it.
        tokio::time::sleep(chance.between(Duration::from_millis(20), Duration::from_millis(120))).await;
        let value = bench.values.next();
        let begun = bench.control.invoke(F::Write, |event| {
            event.resource(control::SET).lock(control::SET).token(lease.token()).value(value)
        });
        match append_line(&bench.unfenced, &entry(lease.token().get(), value)) {
            Ok(()) => bench.control.ok(&begun, |event| event),
            Err(error) => bench.control.info_with(&begun, &error),
        }
    }
    bench.holds.give_back(hold).await;
}

/// In one write at the end of the file, so that lines are whole and in order.
fn append_line(file: &Path, line: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(format!("{line}\n").as_bytes())
}

/// Writes in a transaction of the store, on a thread for that: its futures don't move between threads.
async fn transact(bench: &Arc<Bench>, chance: &Chance) {
    let wish = Wish { wait: Some(bench.holds.ttl * 3), ..wish(bench, chance) };
    let (bench, runtime) = (Arc::clone(bench), tokio::runtime::Handle::current());
    // One that panicked has said so on stderr; its calls stay without an end.
    _ = tokio::task::spawn_blocking(move || runtime.block_on(transact_as(&bench, wish))).await;
}

async fn transact_as(bench: &Bench, wish: Wish) {
    let Some(set) = &bench.scene.transacted else { return };
    let asked = bench.holds.asks(TRANSACTED, wish);
    let value = bench.values.next();
    // What the transaction came to while it ran: its grant with whoever watches over it, and its write.
    let seen = std::sync::Mutex::new(None);
    let begun = |lease: &Lease| {
        let watching = bench.holds.granted(&asked, lease);
        let write = bench
            .holds
            .pen
            .invoke(F::Write, |event| event.resource(TRANSACTED).lock(TRANSACTED).token(lease.token()).value(value));
        *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((watching, write));
        entry(lease.token().get(), value)
    };
    let outcome = set.append(bench.holds.lock(TRANSACTED, wish, &asked), &begun).await;
    let seen = seen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if seen.is_some() {
        _ = say(&Said::Ends(TRANSACTED.to_owned()));
    }
    let pen = &bench.holds.pen;
    match (seen, outcome) {
        (Some((_watching, write)), Ok(())) => pen.ok(&write, |event| event),
        (Some((_watching, write)), Err(error)) if error.applied == Applied::Maybe => pen.info_with(&write, &error.text),
        (Some((_watching, write)), Err(error)) => {
            pen.fail_with(&write, if error.refused { Why::Stale } else { Why::Error }, &error.text);
        }
        (None, Err(error)) if error.busy => pen.gave_up(&asked, Why::TimedOut),
        // It may have been granted: what became of it before the work began isn't told.
        (None, Err(error)) => pen.info_with(&asked, &error.text),
        (None, Ok(())) => pen.info_with(&asked, &"committed without having begun"),
    }
}

/// The resource and the lock of transactions.
pub(super) const TRANSACTED: &str = "transacted";

/// Waits in a line that goes on fast, and hands over.
async fn hand_off(bench: &Bench, chance: &Chance) {
    let ttl = bench.holds.ttl;
    let wait = chance.between(ttl / 4, ttl * 4);
    let wish = Wish { ttl, wait: Some(wait), fair: bench.fair };
    if let Some(hold) = bench.holds.hold("queue", wish).await {
        pass_on(bench, hold, chance).await;
    }
}

async fn pass_on(bench: &Bench, hold: Hold, chance: &Chance) {
    think(bench, &hold.guard.lease().clone(), chance).await;
    bench.holds.give_back(hold).await;
}
