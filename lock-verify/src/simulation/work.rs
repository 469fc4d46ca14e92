//! What the nodes do with their locks.

use std::{sync::Arc, time::Duration};

use lock_core::{ErrorKind, Lease, LeaseGuard, Lock, LockError, LockName, Locks, Pass, ReleaseOutcome};

use super::{
    chance::{Chance, nanos},
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
    /// The longest time for which it has wanted a lock to be taken at least.
    pub(super) least: Duration,
}

/// A lock as it is wanted.
pub(super) struct Wish {
    pub(super) lock: Lock,
    pub(super) ttl: Duration,
    /// How long it may take; `None` for ever.
    pub(super) most: Option<Duration>,
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
    pub(super) fn now(&self) -> u64 {
        self.line.clock.true_now()
    }

    pub(super) fn lock(&mut self, name: &str) -> Wish {
        let ttl = self.chance.pick(&self.plan.ttls);
        let mut lock = self.locks.lock(name).ttl(ttl);
        if self.chance.percent(4) {
            lock = lock.at_most_for(ttl.mul_f64(self.chance.pick(&[0.1, 0.5, 1.5])));
        } else if self.chance.percent(4) {
            let least = ttl.mul_f64(self.chance.pick(&[0.05, 0.3]));
            self.least = self.least.max(least);
            lock = lock.at_least_for(least);
        }
        let mut most = None;
        if self.chance.percent(30) {
            let span = self.chance.span(Duration::from_millis(1), ttl * 2);
            (lock, most) = (lock.wait_at_most(span), Some(span));
        }
        Wish { lock, ttl, most }
    }

    /// Asks for a guard; what came of it is counted.
    pub(super) async fn ask(&mut self, name: &str, wish: Wish) -> Option<(LeaseGuard, usize)> {
        let number = self.asks(name, wish.ttl, wish.most);
        let outcome = wish.lock.acquire().await;
        self.asked(number, &outcome, wish.most != Some(Duration::ZERO));
        let guard = outcome.ok()?;
        let hold = self.began(guard.lease(), number);
        Some((guard, hold))
    }

    pub(super) fn asks(&self, name: &str, ttl: Duration, most: Option<Duration>) -> u64 {
        let mut world = self.line.shared.world();
        let lock = LockName::new(name).map_or(0, |name| world.lock(&name));
        world.asks(self.now(), self.line.node, lock, ttl, most)
    }

    /// A call that came to no guard is over; what came of others, [`began`](Self::began) says.
    pub(super) fn asked<T>(&self, number: u64, outcome: &Result<T, LockError>, waits: bool) {
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

    pub(super) fn began(&self, lease: &Lease, call: u64) -> usize {
        let mut world = self.line.shared.world();
        let lock = world.lock(lease.name());
        world.taken_until = world.taken_until.max(self.now() + nanos(self.least));
        world.began(self.now(), self.line.node, lock, lease, &self.line.clock, call)
    }

    pub(super) fn over(&self, hold: usize, end: &End) {
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
    pub(super) async fn toil(&mut self, lease: &Lease, hold: usize) {
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
}

/// Why there is no lock, without what tells of this process.
fn reason(error: &LockError) -> String {
    match error {
        LockError::Busy(busy) => format!("busy after {:?}", busy.waited),
        error => error.to_string(),
    }
}
