//! The world outside the nodes: the network's moods, the store, the resources, and what the checker knows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::FutureExt;
use lock_core::{
    Acquired, ErrorKind, Heard, ListRequest, LockName, LockProvider, LockStatus, MemoryLocks, Released, Renewed,
    StoreError, Tick,
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    belief::Beliefs,
    chance::Chance,
    clock::NodeClock,
    events::Events,
    plan::Plan,
    record::{End, Record},
    report::{Counts, Violation},
    resource::{Fate, Written},
    trace::Trace,
    truth::{Broken, Lock},
};

/// What all parts of a run share.
pub(super) struct Shared {
    pub(super) events: Arc<Events>,
    world: Mutex<World>,
}

pub(super) struct World {
    pub(super) events: Arc<Events>,
    pub(super) plan: Arc<Plan>,
    pub(super) chance: Chance,
    pub(super) store: MemoryLocks,
    pub(super) store_clock: Arc<NodeClock>,
    pub(super) locks: Vec<Lock>,
    by_name: HashMap<LockName, usize>,
    pub(super) resources: Vec<Option<Written>>,
    pub(super) writes: Vec<Fate>,
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) beliefs: Beliefs,
    /// Until when a lock may be taken though everybody has given it back, since it was wanted for at least a while.
    pub(super) taken_until: u64,
    /// Whether faults may fall.
    pub(super) ill: bool,
    /// Until when each node is cut off, and the store down.
    pub(super) cut_until: Vec<u64>,
    pub(super) down_until: u64,
    /// By node: things still to be done, and tasks that do them.
    deeds: Vec<u32>,
    running: Vec<usize>,
    /// Ticks that a grant used up, and of which lock, as those who ran them saw it.
    ticks: Vec<(String, Tick)>,
    /// Requests that were sent to the store so far.
    pub(super) sent: u64,
    pub(super) counts: Counts,
    pub(super) violation: Option<Violation>,
    pub(super) trace: Trace,
    pub(super) record: Record,
}

/// A subscription in force.
pub(super) struct Subscriber {
    pub(super) node: usize,
    pub(super) life: u32,
    pub(super) tell: UnboundedSender<Heard>,
}

impl Shared {
    pub(super) fn new(events: Arc<Events>, world: World) -> Self {
        Self { events, world: Mutex::new(world) }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    pub(super) fn new(
        events: Arc<Events>,
        plan: Arc<Plan>,
        chance: Chance,
        store_clock: Arc<NodeClock>,
        trace: Trace,
    ) -> Self {
        let nodes = plan.nodes;
        Self {
            events,
            chance,
            store: MemoryLocks::with_clock(store_clock.clone()),
            store_clock,
            locks: Vec::new(),
            by_name: HashMap::new(),
            resources: Vec::new(),
            writes: Vec::new(),
            subscribers: Vec::new(),
            beliefs: Beliefs::new(nodes),
            taken_until: 0,
            ill: !plan.is_calm(),
            cut_until: vec![0; nodes],
            down_until: 0,
            deeds: vec![plan.deeds; nodes],
            running: vec![0; nodes],
            ticks: Vec::new(),
            sent: 0,
            counts: Counts::default(),
            violation: None,
            trace,
            record: Record::default(),
            plan,
        }
    }

    /// The number of this lock.
    pub(super) fn lock(&mut self, name: &LockName) -> usize {
        if let Some(lock) = self.by_name.get(name) {
            return *lock;
        }
        let lock = self.locks.len();
        // Never refused, and answered at once: it is this process's memory.
        let watch = self.store.watch(name, lock_core::OwnerId::from_u128(0)).now_or_never().and_then(Result::ok);
        self.locks.push(Lock::new(name.clone(), watch));
        self.resources.push(Written::new(name.as_str()));
        self.by_name.insert(name.clone(), lock);
        lock
    }

    /// So many tasks of a node begin.
    pub(super) fn begins(&mut self, node: usize, tasks: usize) {
        self.running[node] = tasks;
    }

    /// A task of a node has nothing more to do.
    pub(super) fn ends(&mut self, node: usize) {
        self.running[node] = self.running[node].saturating_sub(1);
    }

    pub(super) fn all_done(&self) -> bool {
        self.running.iter().all(|running| *running == 0)
    }

    /// Whether the node has something to do still; then it is one less.
    pub(super) fn takes_deed(&mut self, node: usize) -> bool {
        let left = self.deeds[node];
        self.deeds[node] = left.saturating_sub(1);
        left != 0
    }

    /// A job is run for a tick that its grant used up; `false` if that was so before, and nobody deleted what is known of it.
    pub(super) fn runs_tick(&mut self, name: &str, tick: Tick) -> bool {
        let run = (name.to_owned(), tick);
        let first = !self.ticks.contains(&run);
        self.ticks.push(run);
        first || self.counts.deleted > 0
    }

    /// A law was broken; the first time counts.
    pub(super) fn broken(&mut self, at: u64, (law, what): Broken) {
        let violation = Violation { law, what, at };
        self.trace.note(at, "checker", format_args!("VIOLATION {violation}"));
        self.violation.get_or_insert(violation);
    }

    pub(super) fn checked<T>(&mut self, at: u64, outcome: Result<T, Broken>) -> Option<T> {
        outcome.map_err(|broken| self.broken(at, broken)).ok()
    }

    /// The name of what is written under a lock.
    pub(super) fn resource(&self, lock: usize) -> String {
        self.resources[lock].as_ref().map(|resource| resource.accepted().0).unwrap_or_default()
    }

    /// The store's records.
    pub(super) fn all_locks(&self) -> Vec<LockStatus> {
        let all = ListRequest { prefix: String::new(), after: None, limit: u32::MAX };
        // In this process's memory everything is answered at once.
        self.store.list(&all).now_or_never().and_then(Result::ok).unwrap_or_default()
    }

    /// By resource: all accepted writes, in their order.
    pub(super) fn accepted(&self) -> Vec<(String, Vec<(u64, u64)>)> {
        self.resources.iter().flatten().map(Written::accepted).filter(|(_, writes)| !writes.is_empty()).collect()
    }

    pub(super) fn acquire(
        &mut self,
        at: u64,
        node: usize,
        request: &lock_core::AcquireRequest,
    ) -> Result<Acquired, StoreError> {
        let lock = self.lock(&request.name);
        // In this process's memory everything is answered at once.
        let answer = self.store.acquire(request).now_or_never().unwrap_or_else(unanswered)?;
        let now = self.store_clock.shown_at(at);
        self.trace.acquired(at, node, request, &answer);
        let idle = self.idle_since(lock, at);
        let outcome = self.locks[lock].acquired(request, &answer, now, at);
        if self.checked(at, outcome) == Some(true) {
            self.counts.grants += 1;
            self.granted(at, lock, idle);
        }
        self.after(at, lock, now);
        Ok(answer)
    }

    pub(super) fn renew(
        &mut self,
        at: u64,
        node: usize,
        request: &lock_core::RenewRequest,
    ) -> Result<Renewed, StoreError> {
        let lock = self.lock(&request.name);
        let answer = self.store.renew(request).now_or_never().unwrap_or_else(unanswered)?;
        let now = self.store_clock.shown_at(at);
        self.trace.renewed(at, node, request, answer);
        let outcome = self.locks[lock].renewed(request, answer, now);
        self.checked(at, outcome);
        self.counts.renewals += u64::from(answer != Renewed::Lost);
        self.after(at, lock, now);
        Ok(answer)
    }

    pub(super) fn release(
        &mut self,
        at: u64,
        node: usize,
        request: &lock_core::ReleaseRequest,
    ) -> Result<Released, StoreError> {
        let lock = self.lock(&request.name);
        let answer = self.store.release(request).now_or_never().unwrap_or_else(unanswered)?;
        let now = self.store_clock.shown_at(at);
        self.trace.released(at, node, request, answer);
        let outcome = self.locks[lock].released(request, answer, now, at);
        self.checked(at, outcome);
        self.after(at, lock, now);
        Ok(answer)
    }

    /// An operator takes a lock away, or deletes its record.
    pub(super) fn take_away(&mut self, at: u64, lock: usize, delete: bool) {
        self.store_clock.bring_to(at);
        let name = self.locks[lock].name.clone();
        if delete {
            self.store.delete_record(&name);
            self.counts.deleted += 1;
        } else {
            // Never refused by this process's memory.
            let _ = self.store.force_release(&name).now_or_never();
            self.counts.forced += 1;
        }
        let process = crate::history::Process::Nemesis;
        if delete {
            let effect = crate::history::Effect::TakesLeases;
            self.record.fault(at, at, |event| event.fault("record deleted").target(name.as_str()).effect(effect));
        } else {
            let f = crate::history::F::ForceRelease;
            let began = self.record.begins(at, process, f, |event| event.lock(name.as_str()));
            self.record.ends(at, began.as_ref(), &End::Done, |event| event);
        }
        self.trace.note(at, "operator", format_args!("{} {name}", if delete { "deletes" } else { "takes away" }));
        let now = self.store_clock.shown_at(at);
        self.locks[lock].taken_away(now, at, delete);
        self.after(at, lock, now);
    }

    /// After each step at the store: its record is what it should be, and whoever listens is told.
    fn after(&mut self, at: u64, lock: usize, now: u64) {
        let status = self.store.inspect(&self.locks[lock].name).now_or_never().and_then(Result::ok).flatten();
        let outcome = self.locks[lock].recorded(status.as_ref(), now);
        self.checked(at, outcome);
        let woken = match &mut self.locks[lock].watch {
            Some(watch) => watch.woken().now_or_never().is_some(),
            None => false,
        };
        if !woken {
            return;
        }
        let subscribers: Vec<_> = self.subscribers.iter().map(|s| (s.node, s.life, s.tell.clone())).collect();
        for (node, life, tell) in subscribers {
            let heard = Heard::Lock(self.locks[lock].name.as_str().to_owned());
            let arrives = at + self.delay();
            self.deliver(arrives, node, life, "hears", Some(Box::new(move || drop(tell.send(heard)))));
        }
    }
}

fn unanswered<A>() -> Result<A, StoreError> {
    Err(StoreError::unknown(ErrorKind::Other, "the store in memory did not answer at once"))
}
