//! What the nodes do with their locks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lock_core::{
    ErrorKind, Lease, LeaseGuard, Lock, LockError, LockName, Locks, Outcome, Pass, ReleaseOutcome, Skipped, Tick,
};

use super::{
    chance::Chance,
    network::{Line, Question},
    plan::Plan,
    record::End,
    resource::{Fate, Write},
    world::World,
};
use crate::history::{F, Why};

/// A task of a node.
pub(super) struct Worker {
    pub(super) line: Line,
    pub(super) locks: Locks,
    pub(super) plan: Arc<Plan>,
    pub(super) chance: Chance,
}

/// A lock as it is wanted.
struct Wish {
    lock: Lock,
    ttl: Duration,
    /// How long it may take; `None` for ever.
    most: Option<Duration>,
}

/// Names of the locks that all contend for.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Does one thing after the other, as long as its node has something to do.
pub(super) async fn work(mut worker: Worker) {
    while worker.line.shared.world().takes_deed(worker.line.node) {
        let name = NAMES[worker.chance.below(worker.plan.locks as u64) as usize];
        match worker.chance.below(100) {
            0..55 => worker.hold(name).await,
            55..63 => worker.drop_half_way(name).await,
            63..75 => worker.run(name).await,
            75..83 => worker.try_once(name).await,
            83..93 => worker.run_tick(name).await,
            _ => worker.hold_many().await,
        }
        let think = worker.chance.span(Duration::ZERO, worker.plan.think * 2);
        worker.line.clock.pause(think).await;
    }
    // Nothing is left behind by those that were dropped half-way.
    worker.locks.settled().await;
    worker.line.shared.world().ends(worker.line.node);
}

impl Worker {
    fn now(&self) -> u64 {
        self.line.clock.true_now()
    }

    fn lock(&mut self, name: &str) -> Wish {
        let ttl = self.chance.pick(&self.plan.ttls);
        let mut lock = self.locks.lock(name).ttl(ttl);
        if self.chance.percent(4) {
            lock = lock.at_most_for(ttl.mul_f64(self.chance.pick(&[0.1, 0.5, 1.5])));
        } else if self.chance.percent(4) {
            lock = lock.at_least_for(ttl.mul_f64(self.chance.pick(&[0.05, 0.3])));
        }
        let mut most = None;
        if self.chance.percent(30) {
            let span = self.chance.span(Duration::from_millis(1), ttl * 2);
            (lock, most) = (lock.wait_at_most(span), Some(span));
        }
        Wish { lock, ttl, most }
    }

    /// Asks for a guard; what came of it is counted.
    async fn ask(&mut self, name: &str, wish: Wish) -> Option<(LeaseGuard, usize)> {
        let number = self.asks(name, wish.ttl, wish.most);
        let outcome = wish.lock.acquire().await;
        self.asked(number, &outcome, wish.most != Some(Duration::ZERO));
        let guard = outcome.ok()?;
        let hold = self.began(guard.lease(), number);
        Some((guard, hold))
    }

    fn asks(&self, name: &str, ttl: Duration, most: Option<Duration>) -> u64 {
        let mut world = self.line.shared.world();
        let lock = LockName::new(name).map_or(0, |name| world.lock(&name));
        world.asks(self.now(), self.line.node, lock, ttl, most)
    }

    /// A call that came to no guard is over; what came of others, [`began`](Self::began) says.
    fn asked<T>(&self, number: u64, outcome: &Result<T, LockError>, waits: bool) {
        let Err(error) = outcome else { return };
        let mut world = self.line.shared.world();
        world.asked(self.now(), number, &End::of_error(error, waits));
        self.count(&mut world, error);
    }

    fn count(&self, world: &mut World, error: &LockError) {
        let (at, node) = (self.now(), self.line.node);
        world.trace.of_node(at, node, format_args!("has no lock: {}", reason(error)));
        match error {
            LockError::Busy(_) => world.counts.busy += 1,
            LockError::Finished(_) => world.counts.finished += 1,
            LockError::Lost(_) => {}
            // Its own time was over while the store was asked, and no reply is ever late where nothing goes wrong.
            LockError::Store(error) if error.kind() == ErrorKind::Timeout => world.counts.failed += 1,
            error => {
                world.counts.failed += 1;
                if world.plan.is_calm() {
                    world.broken(at, ("L7", format!("a call failed though nothing had gone wrong: {}", reason(error))));
                }
            }
        }
    }

    fn began(&self, lease: &Lease, call: u64) -> usize {
        let mut world = self.line.shared.world();
        let lock = world.lock(lease.name());
        world.began(self.now(), self.line.node, lock, lease, &self.line.clock, call)
    }

    fn over(&self, hold: usize, end: &End) {
        self.line.shared.world().over(self.now(), hold, end);
    }

    /// Waits for a lock, holds it, and gives it back in one way or another.
    async fn hold(&mut self, name: &str) {
        let wish = self.lock(name);
        let Some((guard, hold)) = self.ask(name, wish).await else { return };
        self.keep(guard, hold).await;
    }

    /// Holds a lock for a while, writes under it, and gives it back.
    async fn keep(&mut self, guard: LeaseGuard, hold: usize) {
        self.toil(&guard, hold).await;
        if self.chance.percent(10) {
            // Another task has a share in it for a little longer.
            let (share, clock, shared) = (guard.share(), self.line.clock.clone(), self.line.shared.clone());
            let span = self.chance.span(Duration::ZERO, self.plan.think * 2);
            tokio::spawn(async move {
                clock.pause(span).await;
                drop(share);
                shared.world().over(clock.true_now(), hold, &End::Unknown);
            });
            drop(guard);
            return;
        }
        self.line.shared.world().lets_go(self.now(), hold);
        let end = if self.chance.percent(70) {
            let outcome = guard.release().await;
            let calm = self.plan.is_calm();
            let fine = matches!(
                outcome,
                Ok(ReleaseOutcome::Released | ReleaseOutcome::AlreadyLost(lock_core::LossReason::AtMostFor))
            );
            if calm && !fine {
                let what = format!("a release came to {outcome:?} though nothing had gone wrong");
                self.line.shared.world().broken(self.now(), ("L5", what));
            }
            End::of_release(&outcome)
        } else {
            drop(guard);
            End::Unknown
        };
        self.over(hold, &end);
    }

    /// Work under a lease: a few steps, and writes between them.
    async fn toil(&mut self, lease: &Lease, hold: usize) {
        let ttl = self.plan.ttls[0];
        let long = self.chance.percent(self.plan.long_holds);
        let heeds = self.chance.percent(70);
        for _ in 0..self.chance.between(0, 3) {
            let most = if long { ttl } else { self.plan.think };
            let span = self.chance.span(Duration::ZERO, most);
            if heeds {
                tokio::select! {
                    biased;
                    _ = lease.lost() => return,
                    () = self.line.clock.pause(span) => {}
                }
            } else {
                self.line.clock.pause(span).await;
            }
            // Looked at first, as it should be, and written all the same if the process stands still in between.
            let looked = self.now();
            if lease.check().is_err() {
                return;
            }
            self.line.shared.world().is_sure(looked, hold);
            if self.chance.percent(60) {
                self.write(lease).await;
            }
        }
    }

    /// A write under a lease, on its way to the resource.
    async fn write(&mut self, lease: &Lease) {
        let Ok(fence) = lease.fence() else { return };
        let pass = if self.chance.percent(10) { Pass::Once } else { Pass::Again };
        let (number, lock) = {
            let mut world = self.line.shared.world();
            world.writes.push(Fate::default());
            (world.writes.len() - 1, world.lock(lease.name()))
        };
        let began = {
            let world = &mut *self.line.shared.world();
            let (process, resource) = (world.beliefs.process(self.line.node), world.resource(lock));
            let told = super::record::of(lease);
            let said = |event| told(event).resource(resource).value(number as u64);
            world.record.begins(self.now(), process, F::Write, said)
        };
        let write = Write { lock, fence, pass, number };
        let passed = self.line.ask(|mouth| Question::Write(write, mouth)).await;
        let mut world = self.line.shared.world();
        let end = match passed.as_deref() {
            Ok([true]) => {
                world.writes[number].acknowledged = true;
                End::Done
            }
            // Unless it was doubled, and the other one let through.
            Ok(_) if !world.writes[number].applied => End::Failed(Why::Stale),
            _ => End::Unknown,
        };
        world.record.ends(self.now(), began.as_ref(), &end, |event| event);
    }

    /// Asks for a lock and is dropped before it has an answer, or just after.
    async fn drop_half_way(&mut self, name: &str) {
        let wish = self.lock(name);
        let most = Duration::from_nanos(self.plan.delay.1 * 4);
        let span = self.chance.span(Duration::ZERO, most);
        let number = self.asks(name, wish.ttl, wish.most);
        let outcome = tokio::select! {
            biased;
            outcome = wish.lock.acquire() => Some(outcome),
            () = self.line.clock.pause(span) => None,
        };
        if let Some(outcome) = outcome {
            self.asked(number, &outcome, true);
            if let Ok(guard) = outcome {
                let hold = self.began(guard.lease(), number);
                self.keep(guard, hold).await;
            }
        } else {
            let mut world = self.line.shared.world();
            world.asked(self.now(), number, &End::Unknown);
            world.counts.cancelled += 1;
        }
    }

    async fn try_once(&mut self, name: &str) {
        let Wish { lock, ttl, .. } = self.lock(name);
        let wish = Wish { lock: lock.no_wait(), ttl, most: Some(Duration::ZERO) };
        if let Some((guard, hold)) = self.ask(name, wish).await {
            self.keep(guard, hold).await;
        }
    }

    /// Runs work under a lock, some of which asks for the same lock within.
    async fn run(&mut self, name: &str) {
        let (wish, again) = (self.lock(name), self.chance.percent(50));
        let inner = self.locks.lock(name).reentrant();
        let number = self.asks(name, wish.ttl, wish.most);
        let held = Arc::new(AtomicUsize::new(usize::MAX));
        let outcome = {
            let (worker, held) = (&mut *self, held.clone());
            wish.lock
                .run(|lease| async move {
                    let hold = worker.began(&lease, number);
                    held.store(hold, Relaxed);
                    if again {
                        worker.run_within(&lease, hold, inner).await;
                    } else {
                        worker.toil(&lease, hold).await;
                    }
                    // What follows is the release.
                    worker.line.shared.world().lets_go(worker.now(), hold);
                })
                .await
        };
        self.asked(number, &outcome, true);
        self.over(held.load(Relaxed), &End::Unknown);
    }

    async fn run_within(&mut self, lease: &Lease, hold: usize, inner: Lock) {
        let token = lease.token();
        let worker = &mut *self;
        let joined = inner
            .run(|lease| async move {
                worker.line.shared.world().counts.rejoined += 1;
                worker.toil(&lease, hold).await;
                lease.token()
            })
            .await;
        if let Ok(other) = joined
            && other != token
        {
            let what = format!("{}: work joined {token} and got {other}", lease.name());
            self.line.shared.world().broken(self.now(), ("L3", what));
        }
    }

    /// Runs a job once per tick.
    async fn run_tick(&mut self, name: &str) {
        let period = self.plan.think * 20 + Duration::from_millis(20);
        // By true time, so that nodes whose wall clocks differ ask for the same ticks.
        let tick = Tick(1 + self.now() / 1000 / period.as_micros() as u64);
        let name = format!("tick-{name}");
        let mut lock = self.locks.lock(&name).tick(tick).no_wait();
        let retried = self.chance.percent(30);
        if retried {
            lock = lock.retry();
        }
        let ttl = self.plan.ttls[0];
        let number = self.asks(&name, ttl, Some(Duration::ZERO));
        let held = Arc::new(AtomicUsize::new(usize::MAX));
        let outcome = {
            let (worker, held) = (&mut *self, held.clone());
            lock.ttl(ttl)
                .run_or_skip(|lease| async move {
                    let hold = worker.began(&lease, number);
                    held.store(hold, Relaxed);
                    let first = retried || worker.line.shared.world().runs_tick(&name, tick);
                    if !first {
                        let what = format!("{name}: {tick:?} is run a second time");
                        worker.line.shared.world().broken(worker.now(), ("L2", what));
                    }
                    worker.toil(&lease, hold).await;
                    worker.line.shared.world().lets_go(worker.now(), hold);
                })
                .await
        };
        self.over(held.load(Relaxed), &End::Unknown);
        let outcome = match outcome {
            Ok(Outcome::Skipped(Skipped::Finished(finished))) => Err(finished.into()),
            Ok(Outcome::Skipped(Skipped::Held(busy))) => Err(busy.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        self.asked(number, &outcome, false);
    }

    /// Holds many locks of its own at once, which are renewed together.
    async fn hold_many(&mut self) {
        let (node, life) = (self.line.node, self.line.life);
        let ttl = self.plan.ttls[0];
        let mut held = Vec::new();
        let count = self.chance.between(3, 12);
        for place in 0..count {
            // Each worker's own: nobody else asks for them.
            let name = format!("own-{node}-{life}-{:x}-{place}", self.chance.below(1 << 20));
            let lock = self.locks.lock(&name).ttl(ttl).no_wait();
            held.extend(self.ask(&name, Wish { lock, ttl, most: Some(Duration::ZERO) }).await);
        }
        let times = self.chance.pick(&[0.1, 0.5, 1.5, 2.5]);
        self.line.clock.pause(ttl.mul_f64(times)).await;
        for (guard, hold) in held {
            self.line.shared.world().lets_go(self.now(), hold);
            let end = if self.chance.percent(50) {
                drop(guard);
                End::Unknown
            } else {
                End::of_release(&guard.release().await)
            };
            self.over(hold, &end);
        }
    }
}

/// Why there is no lock, without what tells of this process.
fn reason(error: &LockError) -> String {
    match error {
        LockError::Busy(busy) => format!("busy after {:?}", busy.waited),
        error => error.to_string(),
    }
}
