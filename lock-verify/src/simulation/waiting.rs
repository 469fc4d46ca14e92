//! Who waits for what, and whether in vain: law 7.

use std::time::Duration;

use lock_core::Moment;

use super::{
    belief::Wait,
    record::{self, End},
    world::World,
};
use crate::history::{F, Why};

impl World {
    /// A call begins to ask, waiting for so long, or not at all.
    pub(super) fn asks(&mut self, at: u64, node: usize, lock: usize, ttl: Duration, most: Option<Duration>) -> u64 {
        self.beliefs.waits += 1;
        let (number, patient) = (self.beliefs.waits, most != Some(Duration::ZERO));
        let name = &self.locks[lock].name;
        let asked = self.record.begins(at, self.beliefs.process(node), F::Acquire, |event| {
            let event = event.lock(name.as_str()).ttl(ttl);
            if patient { event.wait(record::wait(most)) } else { event }
        });
        self.beliefs.waiting.push(Wait { number, node, lock, since: at, patient, asked });
        number
    }

    /// It asks no more. Told to have waited in vain, the lock must not have lain idle.
    pub(super) fn asked(&mut self, at: u64, number: u64, end: &End) {
        let Some(place) = self.beliefs.waiting.iter().position(|wait| wait.number == number) else { return };
        let Wait { lock, patient, .. } = self.beliefs.waiting[place];
        if patient && matches!(end, End::Failed(Why::TimedOut)) {
            self.check_idle(at, lock);
        }
        let wait = self.beliefs.waiting.swap_remove(place);
        self.record.ends(at, wait.asked.as_ref(), end, |event| event);
    }

    /// Since when, in true time, the lock could have been had, and whether that was told by an event.
    pub(super) fn idle_since(&self, lock: usize, at: u64) -> Option<(u64, bool)> {
        let lock = &self.locks[lock];
        if lock.until() > self.store_clock.shown_at(at) {
            return None;
        }
        let over = self.store_clock.true_at(Moment::from_nanos(lock.until()));
        Some(lock.freed.map_or((over, false), |freed| (freed, true)))
    }

    /// Law 7, while it waits: a lock that can be had isn't left lying while somebody waits for it.
    pub(super) fn check_idle(&mut self, at: u64, lock: usize) {
        if let Some(idle) = self.idle_since(lock, at) {
            self.check_hand_over(at, lock, idle);
        }
    }

    pub(super) fn check_all_idle(&mut self, at: u64) {
        for lock in 0..self.locks.len() {
            self.check_idle(at, lock);
        }
    }

    pub(super) fn check_hand_over(&mut self, at: u64, lock: usize, (free, by_event): (u64, bool)) {
        let oldest =
            self.beliefs.waiting.iter().filter(|wait| wait.patient && wait.lock == lock).min_by_key(|wait| wait.since);
        let Some(oldest) = oldest else { return };
        let (node, began) = (oldest.node, free.max(oldest.since).max(self.beliefs.quiet_from));
        // After a time of faults somebody may still be in a pause that began in it.
        let settled = self.plan.is_calm() || began > self.beliefs.quiet_from + 6_000_000_000 + self.plan.idle_by_law();
        let most = if by_event && settled { self.plan.idle_at_most() } else { self.plan.idle_by_law() };
        let idle = at.saturating_sub(began);
        if self.ill || idle <= most {
            return;
        }
        let name = &self.locks[lock].name;
        let what = format!(
            "{name} lay idle for {:.3} ms, at most {:.3} were due, while node {node} waited for it",
            idle as f64 / 1e6,
            most as f64 / 1e6
        );
        self.broken(at, ("L7", what));
    }
}
