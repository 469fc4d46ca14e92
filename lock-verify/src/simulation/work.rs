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
    resource::{Fate, Write},
};

/// A task of a node.
pub(super) struct Worker {
    pub(super) line: Line,
    pub(super) locks: Locks,
    pub(super) plan: Arc<Plan>,
    pub(super) chance: Chance,
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

    fn lock(&mut self, name: &str) -> Lock {
        let ttl = self.chance.pick(&self.plan.ttls);
        let mut lock = self.locks.lock(name).ttl(ttl);
        if self.chance.percent(4) {
            lock = lock.at_most_for(ttl.mul_f64(self.chance.pick(&[0.1, 0.5, 1.5])));
        } else if self.chance.percent(4) {
            lock = lock.at_least_for(ttl.mul_f64(self.chance.pick(&[0.05, 0.3])));
        }
        if self.chance.percent(30) {
            let most = ttl * 2;
            lock = lock.wait_at_most(self.chance.span(Duration::from_millis(1), most));
        }
        lock
    }

    /// Waits for a guard; what came of it is counted.
    async fn wait_for(&mut self, name: &str, lock: Lock) -> Option<LeaseGuard> {
        let number = self.waits(name);
        let outcome = lock.acquire().await;
        self.waited(number, &outcome);
        outcome.ok()
    }

    fn waits(&self, name: &str) -> u64 {
        let mut world = self.line.shared.world();
        let lock = LockName::new(name).map_or(0, |name| world.lock(&name));
        world.waits(self.now(), self.line.node, lock)
    }

    fn waited<T>(&self, number: u64, outcome: &Result<T, LockError>) {
        let mut world = self.line.shared.world();
        world.waited(self.now(), number, matches!(outcome, Err(LockError::Busy(_))));
        self.count(&mut world, outcome);
    }

    fn count<T>(&self, world: &mut super::world::World, outcome: &Result<T, LockError>) {
        let Err(error) = outcome else { return };
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

    fn began(&self, lease: &Lease) -> usize {
        let mut world = self.line.shared.world();
        let lock = world.lock(lease.name());
        world.began(self.now(), self.line.node, lock, lease, &self.line.clock)
    }

    fn over(&self, hold: usize) {
        self.line.shared.world().over(self.now(), hold);
    }

    /// Waits for a lock, holds it, and gives it back in one way or another.
    async fn hold(&mut self, name: &str) {
        let lock = self.lock(name);
        let Some(guard) = self.wait_for(name, lock).await else { return };
        self.keep(guard).await;
    }

    /// Holds a lock for a while, writes under it, and gives it back.
    async fn keep(&mut self, guard: LeaseGuard) {
        let hold = self.began(guard.lease());
        self.toil(&guard, hold).await;
        if self.chance.percent(10) {
            // Another task has a share in it for a little longer.
            let (share, clock, shared) = (guard.share(), self.line.clock.clone(), self.line.shared.clone());
            let span = self.chance.span(Duration::ZERO, self.plan.think * 2);
            tokio::spawn(async move {
                clock.pause(span).await;
                drop(share);
                shared.world().over(clock.true_now(), hold);
            });
            drop(guard);
            return;
        }
        self.line.shared.world().lets_go(self.now(), hold);
        if self.chance.percent(70) {
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
        } else {
            drop(guard);
        }
        self.over(hold);
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
        let write = Write { lock, fence, pass, number };
        let passed = self.line.ask(|mouth| Question::Write(write, mouth)).await;
        if passed.is_ok_and(|passed| passed == [true]) {
            self.line.shared.world().writes[number].acknowledged = true;
        }
    }

    /// Asks for a lock and is dropped before it has an answer, or just after.
    async fn drop_half_way(&mut self, name: &str) {
        let lock = self.lock(name);
        let most = Duration::from_nanos(self.plan.delay.1 * 4);
        let span = self.chance.span(Duration::ZERO, most);
        let number = self.waits(name);
        let outcome = tokio::select! {
            biased;
            outcome = lock.acquire() => Some(outcome),
            () = self.line.clock.pause(span) => None,
        };
        match outcome {
            Some(outcome) => {
                self.waited(number, &outcome);
                if let Ok(guard) = outcome {
                    self.keep(guard).await;
                }
            }
            None => {
                let mut world = self.line.shared.world();
                world.waited(self.now(), number, false);
                world.counts.cancelled += 1;
            }
        }
    }

    async fn try_once(&mut self, name: &str) {
        let lock = self.lock(name).no_wait();
        let outcome = lock.acquire().await;
        {
            let mut world = self.line.shared.world();
            self.count(&mut world, &outcome);
        }
        if let Ok(guard) = outcome {
            self.keep(guard).await;
        }
    }

    /// Runs work under a lock, some of which asks for the same lock within.
    async fn run(&mut self, name: &str) {
        let (lock, again) = (self.lock(name), self.chance.percent(50));
        let inner = self.locks.lock(name).reentrant();
        let (number, hold) = (self.waits(name), Arc::new(AtomicUsize::new(usize::MAX)));
        let outcome = {
            let worker = &mut *self;
            let held = hold.clone();
            lock.run(|lease| async move {
                worker.line.shared.world().waited(worker.now(), number, false);
                let hold = worker.began(&lease);
                held.store(hold, Relaxed);
                if again {
                    worker.run_within(&lease, hold, inner).await;
                } else {
                    worker.toil(&lease, hold).await;
                }
            })
            .await
        };
        self.waited(number, &outcome);
        self.over(hold.load(Relaxed));
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
        let mut lock = self.locks.lock(&name).ttl(self.chance.pick(&self.plan.ttls)).tick(tick).no_wait();
        let retried = self.chance.percent(30);
        if retried {
            lock = lock.retry();
        }
        let hold = Arc::new(AtomicUsize::new(usize::MAX));
        let outcome = {
            let worker = &mut *self;
            let held = hold.clone();
            lock.run_or_skip(|lease| async move {
                let hold = worker.began(&lease);
                held.store(hold, Relaxed);
                let first = worker.line.shared.world().runs_tick(&name, tick, retried);
                if !first {
                    let what = format!("{name}: {tick:?} is run a second time");
                    worker.line.shared.world().broken(worker.now(), ("L2", what));
                }
                worker.toil(&lease, hold).await;
            })
            .await
        };
        self.over(hold.load(Relaxed));
        let mut world = self.line.shared.world();
        match &outcome {
            Ok(Outcome::Skipped(Skipped::Finished(_))) => world.counts.finished += 1,
            Ok(_) => {}
            Err(_) => self.count(&mut world, &outcome),
        }
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
            let outcome = self.locks.lock(name).ttl(ttl).no_wait().acquire().await;
            self.count(&mut self.line.shared.world(), &outcome);
            if let Ok(guard) = outcome {
                let hold = self.began(guard.lease());
                held.push((guard, hold));
            }
        }
        let times = self.chance.pick(&[0.1, 0.5, 1.5, 2.5]);
        self.line.clock.pause(ttl.mul_f64(times)).await;
        for (guard, hold) in held {
            if self.chance.percent(50) {
                self.line.shared.world().lets_go(self.now(), hold);
                drop(guard);
                self.over(hold);
            } else {
                self.line.shared.world().lets_go(self.now(), hold);
                let _ = guard.release().await;
                self.over(hold);
            }
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
