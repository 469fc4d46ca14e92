//! What the nodes do besides holding one lock: work that is run under one, jobs per tick, many locks at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lock_core::{Lease, Lock, Outcome, Skipped, Tick};

use super::{
    record::End,
    work::{Wish, Worker},
};

impl Worker {
    /// Runs work under a lock, some of which asks for the same lock within.
    pub(super) async fn run(&mut self, name: &str) {
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
    pub(super) async fn run_tick(&mut self, name: &str) {
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
    pub(super) async fn hold_many(&mut self) {
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
