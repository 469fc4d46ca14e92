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
    chance::{Chance, nanos},
    clock::NodeClock,
    events::{Event, Events},
    network::{Body, Deliver, Message, Mouth, Question, Way, told},
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
    events: Arc<Events>,
    pub(super) plan: Arc<Plan>,
    pub(super) chance: Chance,
    pub(super) store: MemoryLocks,
    pub(super) store_clock: Arc<NodeClock>,
    pub(super) locks: Vec<Lock>,
    by_name: HashMap<LockName, usize>,
    resources: Vec<Option<Written>>,
    pub(super) writes: Vec<Fate>,
    subscribers: Vec<Subscriber>,
    pub(super) beliefs: Beliefs,
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

struct Subscriber {
    node: usize,
    life: u32,
    tell: UnboundedSender<Heard>,
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

    fn checked<T>(&mut self, at: u64, outcome: Result<T, Broken>) -> Option<T> {
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

    fn is_cut(&self, node: usize, at: u64) -> bool {
        self.cut_until[node] > at
    }

    /// How long a message takes.
    fn delay(&mut self) -> u64 {
        let (least, most) = self.plan.delay;
        let (late, by) = self.plan.late;
        if self.ill && self.chance.ppm(late) {
            self.counts.late += 1;
            return self.chance.between(most, most + by);
        }
        self.chance.between(least, most)
    }

    /// A node sends something.
    pub(super) fn send(shared: &Shared, node: usize, life: u32, at: u64, question: Question) {
        let mut world = shared.world();
        let given_up_at = at + nanos(world.plan.patience);
        world.trace.sent(at, node, &question);
        let to_store = !matches!(question, Question::Write(..));
        world.sent += u64::from(to_store);
        let unreachable = world.is_cut(node, at) || to_store && world.down_until > at;
        if unreachable {
            world.counts.given_up += 1;
            if world.chance.percent(50) {
                let error = StoreError::refused(ErrorKind::Unreachable, "no connection");
                let soon = at + world.chance.between(10_000, 1_000_000);
                world.deliver(soon, node, life, "is refused", question.fail(&error));
            } else {
                world.give_up(given_up_at, node, life, question);
            }
            return;
        }
        let ill = world.ill;
        if ill && !matches!(question, Question::Listen(..)) {
            let plan = world.plan.clone();
            if world.chance.ppm(plan.lost) {
                world.counts.requests_lost += 1;
                world.give_up(given_up_at, node, life, question);
                return;
            }
            if world.chance.ppm(plan.doubled)
                && let Some(double) = question.double()
            {
                world.counts.doubled += 1;
                let way = Way { lost: true, delay: 0, given_up_at };
                // Long after, now and then: when the lease it is about is over.
                let apart = nanos(plan.ttls[0]);
                let arrives = at + world.delay() + if world.chance.percent(50) { 0 } else { world.chance.below(apart) };
                let message = Message { node, life, body: Body::Question(double, way) };
                world.events.push(arrives, Event::Message(Box::new(message)));
            }
        }
        let arrives = at + world.delay();
        let lost = ill && {
            let lost = world.plan.reply_lost;
            world.chance.ppm(lost)
        };
        let way = Way { lost, delay: world.delay(), given_up_at };
        let message = Message { node, life, body: Body::Question(question, way) };
        world.events.push(arrives, Event::Message(Box::new(message)));
    }

    fn deliver(&mut self, at: u64, node: usize, life: u32, what: &'static str, deliver: Option<Deliver>) {
        if let Some(deliver) = deliver {
            let message = Message { node, life, body: Body::Answer(what, deliver) };
            self.events.push(at, Event::Message(Box::new(message)));
        }
    }

    fn give_up(&mut self, at: u64, node: usize, life: u32, question: Question) {
        let error = StoreError::unknown(ErrorKind::Timeout, "no answer came");
        self.deliver(at, node, life, "gives up waiting", question.fail(&error));
    }

    /// Something arrives at the store, or at a resource.
    pub(super) fn arrives(&mut self, at: u64, node: usize, life: u32, question: Question, way: Way) {
        let to_store = !matches!(question, Question::Write(..));
        if to_store && self.down_until > at || self.is_cut(node, at) {
            self.counts.given_up += 1;
            return self.give_up(way.given_up_at.max(at), node, life, question);
        }
        self.store_clock.bring_to(at);
        match question {
            Question::Acquire(requests, mouth) => {
                let answers = requests.iter().map(|request| self.acquire(at, node, request)).collect();
                self.reply(at, node, life, way, mouth, answers);
            }
            Question::Renew(requests, mouth) => {
                let answers = requests.iter().map(|request| self.renew(at, node, request)).collect();
                self.reply(at, node, life, way, mouth, answers);
            }
            Question::Release(requests, mouth) => {
                let answers = requests.iter().map(|request| self.release(at, node, request)).collect();
                self.reply(at, node, life, way, mouth, answers);
            }
            Question::Listen(tell, mouth) => {
                self.subscribers.retain(|subscriber| !subscriber.tell.is_closed());
                self.subscribers.push(Subscriber { node, life, tell });
                self.reply(at, node, life, way, mouth, vec![Ok(())]);
            }
            Question::Write(write, mouth) => {
                let passed = match &mut self.resources[write.lock] {
                    Some(resource) => resource.arrives(&write, &mut self.counts),
                    None => Ok(false),
                };
                let passed = self.checked(at, passed).unwrap_or(false);
                self.trace.note(at, "resource", format_args!("write {} under {}: {passed}", write.number, write.fence));
                self.writes[write.number].applied |= passed;
                self.reply(at, node, life, way, mouth, vec![Ok(passed)]);
            }
        }
    }

    fn reply<A: Send + 'static>(
        &mut self,
        at: u64,
        node: usize,
        life: u32,
        way: Way,
        mouth: Mouth<A>,
        mut answers: Vec<Result<A, StoreError>>,
    ) {
        if mouth.is_none() {
            return;
        }
        let mut arrives = at + way.delay;
        let lost = way.lost || self.is_cut(node, at) || arrives > way.given_up_at;
        if lost {
            self.counts.replies_lost += 1;
            let error = StoreError::unknown(ErrorKind::Timeout, "no answer came");
            answers = answers.iter().map(|_| Err(error.clone())).collect();
            arrives = way.given_up_at.max(at);
        }
        let what = if lost { "gives up waiting" } else { "has its answer" };
        self.deliver(arrives, node, life, what, told(mouth, answers));
    }

    fn acquire(&mut self, at: u64, node: usize, request: &lock_core::AcquireRequest) -> Result<Acquired, StoreError> {
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

    fn renew(&mut self, at: u64, node: usize, request: &lock_core::RenewRequest) -> Result<Renewed, StoreError> {
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

    fn release(&mut self, at: u64, node: usize, request: &lock_core::ReleaseRequest) -> Result<Released, StoreError> {
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

    /// The subscriptions of a node (of all, for `None`) end; it learns of that after a while.
    pub(super) fn unsubscribe(&mut self, at: u64, whose: Option<usize>) {
        let (cut, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.subscribers)
            .into_iter()
            .partition(|subscriber| whose.is_none_or(|node| node == subscriber.node));
        self.subscribers = kept;
        for Subscriber { node, life, tell } in cut {
            let noticed = at + self.chance.between(1_000_000, Plan::NOTICED_AFTER);
            self.deliver(noticed, node, life, "hears", Some(Box::new(move || drop(tell.send(Heard::Cut)))));
        }
    }
}

fn unanswered<A>() -> Result<A, StoreError> {
    Err(StoreError::unknown(ErrorKind::Other, "the store in memory did not answer at once"))
}
