//! A small correct lock service and its clients, in simulated time: one seed is one history that breaks no law.
//!
//! Messages take 10 to 500 µs, some are lost; holders work, write, renew, stand still for longer than their lease, and try again
//! under the same owner when they don't know.

mod store;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use lock_core::{Entropy, FencingToken, Moment, OwnerId, SeededEntropy};
use lock_verify::{
    history::{Effect, Event, F, Kind, Process, Why},
    laws::Terms,
};
use store::Store;

/// The ttl of all grants.
pub(crate) const TTL: Duration = Duration::from_millis(50);
/// How long a client waits for an answer.
const ANSWER: Duration = Duration::from_millis(5);

/// What kind of run it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) clients: u32,
    /// How often each client asks for a lock.
    pub(crate) rounds: u32,
    /// Of a thousand messages, so many are lost.
    pub(crate) lossy: u64,
    /// Whether the store forgets who holds what, now and then.
    pub(crate) wiped: bool,
}

/// Under which terms these histories are to be judged.
pub(crate) fn terms() -> Terms {
    let settle = Duration::from_millis(10);
    Terms { poll: Duration::ZERO, settle, fair: true, silent: true, ..Terms::default() }
}

enum Action {
    /// The client decides what to do next.
    Go(u32),
    /// A request reaches the store.
    Arrive(Event),
    /// An answer reaches its client.
    Answer(Event),
    /// The client waits no longer.
    GiveUp(Event, Kind),
    /// A lease may be over.
    Expire,
    /// The store forgets.
    Wipe,
}

#[derive(Clone, Default)]
struct Client {
    rounds: u32,
    /// The call whose answer is awaited.
    current: Option<u64>,
    holds: Option<Event>,
    /// A grant that is over, and what is still tried with it.
    stale: Option<(Event, u32)>,
    retry: Option<Event>,
}

struct Run {
    plan: Plan,
    chance: SeededEntropy,
    now: Moment,
    queue: BinaryHeap<Reverse<(Moment, u64)>>,
    actions: BTreeMap<u64, Action>,
    scheduled: u64,
    calls: u64,
    clients: Vec<Client>,
    store: Store,
    events: Vec<Event>,
}

/// The history of one run.
pub(crate) fn run(plan: Plan) -> Vec<Event> {
    let mut run = Run {
        plan,
        chance: SeededEntropy::new(plan.seed),
        now: Moment::from_nanos(1_000_000_000),
        queue: BinaryHeap::new(),
        actions: BTreeMap::new(),
        scheduled: 0,
        calls: 0,
        clients: vec![Client { rounds: plan.rounds, ..Client::default() }; plan.clients as usize],
        store: Store::default(),
        events: Vec::new(),
    };
    (0..plan.clients).for_each(|client| run.after(Duration::ZERO, Action::Go(client)));
    if plan.wiped {
        run.after(Duration::from_millis(20), Action::Wipe);
    }
    while let Some(Reverse((at, number))) = run.queue.pop() {
        run.now = at;
        let action = run.actions.remove(&number).unwrap();
        run.act(action);
    }
    run.read_all();
    run.events
}

impl Run {
    fn draw(&mut self, below: u64) -> u64 {
        self.chance.next_u64() % below
    }

    fn lost(&mut self) -> bool {
        self.draw(1_000) < self.plan.lossy
    }

    fn delay(&mut self) -> Duration {
        Duration::from_nanos(10_000 + self.draw(490_000))
    }

    fn after(&mut self, delay: Duration, action: Action) {
        self.queue.push(Reverse((self.now + delay, self.scheduled)));
        self.actions.insert(self.scheduled, action);
        self.scheduled += 1;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Go(client) => self.go(client),
            Action::Arrive(event) => {
                let now = self.now;
                let answers = self.store.handle(&event, now);
                self.send(answers);
            }
            Action::Expire => {
                let answers = self.store.serve(self.now);
                self.send(answers);
            }
            Action::Wipe => {
                let fault = Event::invoke(self.now, Process::Nemesis, self.calls, F::Fault);
                let fault = fault.fault("wipe").effect(Effect::DataLoss);
                self.calls += 1;
                self.events.extend([fault.clone(), fault.info(self.now)]);
                let answers = self.store.wipe(self.now);
                self.send(answers);
                if self.clients.iter().any(|client| client.rounds > 0) {
                    let next = Duration::from_micros(20_000 + self.draw(100_000));
                    self.after(next, Action::Wipe);
                }
            }
            Action::Answer(event) => self.answered(event),
            Action::GiveUp(call, kind) => self.give_up(&call, kind),
        }
    }

    /// Answers leave the store; some never arrive.
    fn send(&mut self, answers: Vec<Event>) {
        for answer in answers {
            self.after(TTL, Action::Expire);
            if answer.f != F::Queued && self.lost() {
                self.after(ANSWER, Action::GiveUp(answer, Kind::Info));
            } else {
                let delay = self.delay();
                self.after(delay, Action::Answer(answer));
            }
        }
    }

    /// Makes a call.
    fn call(&mut self, client: u32, f: F, said: impl FnOnce(Event) -> Event) {
        let event = said(Event::invoke(self.now, Process::Client(client), self.calls, f));
        self.clients[client as usize].current = Some(self.calls);
        self.calls += 1;
        self.events.push(event.clone());
        match event.wait {
            Some(wait) if wait < Event::FOR_EVER => self.after(wait, Action::GiveUp(event.clone(), Kind::Fail)),
            Some(_) => {}
            None => self.after(ANSWER, Action::GiveUp(event.clone(), Kind::Info)),
        }
        if event.wait.is_some() || !self.lost() {
            let delay = self.delay();
            self.after(delay, Action::Arrive(event));
        }
    }

    fn go(&mut self, client: u32) {
        let state = &mut self.clients[client as usize];
        if let Some((grant, tries)) = state.stale.take().filter(|(_, tries)| *tries > 0) {
            state.stale = Some((grant.clone(), tries - 1));
            return self.work(client, &grant, true);
        }
        if let Some(grant) = state.holds.clone() {
            if self.now >= grant.deadline.unwrap() {
                self.tell_lost(client, &grant, Why::Expired);
                return self.go(client);
            }
            return self.work(client, &grant, false);
        }
        if let Some(retry) = state.retry.take() {
            return self.call(client, F::Acquire, |event| Event { wait: None, fair: false, ..said_of(event, &retry) });
        }
        if state.rounds > 0 {
            state.rounds -= 1;
            self.ask(client);
        }
    }

    fn ask(&mut self, client: u32) {
        let (lock, mode) = store::LOCKS[self.draw(store::LOCKS.len() as u64) as usize];
        let (owner, draw, wait) = (OwnerId::random(&self.chance), self.draw(4), self.draw(60));
        self.call(client, F::Acquire, |event| {
            let event = event.lock(lock).mode(mode(draw)).owner(owner).ttl(TTL);
            match draw {
                0 => event,
                1 => event.fair(true).wait(Duration::from_millis(1 + wait)),
                _ => event.fair(true).wait(Event::FOR_EVER),
            }
        });
    }

    /// What a holder does, or one that was.
    fn work(&mut self, client: u32, grant: &Event, stale: bool) {
        let of = |event: Event| Event { mode: None, ..said_of(event, grant) }.token(grant.token.unwrap());
        let choice = self.draw(if stale { 8 } else { 10 });
        match choice {
            0 | 1 => self.call(client, F::Renew, |event| of(event).ttl(TTL)),
            2..=4 => {
                let value = self.calls;
                let resource = grant.lock.clone().unwrap();
                self.call(client, F::Write, |event| Event { owner: None, ..of(event) }.resource(resource).value(value));
            }
            5 => {
                let look = of(Event::invoke(self.now, Process::Client(client), self.calls, F::Look));
                self.calls += 1;
                let valid = !stale && self.now < grant.deadline.unwrap();
                let deadline = grant.deadline.unwrap();
                self.events.extend([look.clone(), look.ok(self.now).valid(valid).deadline(deadline)]);
                let delay = self.delay();
                self.after(delay, Action::Go(client));
            }
            // Stands still, past the deadline.
            8 => {
                let long = TTL + Duration::from_micros(self.draw(50_000));
                self.after(long, Action::Go(client));
            }
            _ => {
                if !stale {
                    self.clients[client as usize].holds = None;
                }
                self.call(client, F::Release, of);
            }
        }
    }

    fn tell_lost(&mut self, client: u32, grant: &Event, why: Why) {
        let lost = Event::new(self.now, Process::Client(client), self.calls, Kind::Ok, F::Lost);
        self.calls += 1;
        self.events.push(Event { mode: None, ..said_of(lost, grant) }.token(grant.token.unwrap()).why(why));
        let tries = self.draw(4) as u32;
        let state = &mut self.clients[client as usize];
        (state.holds, state.stale) = (None, Some((grant.clone(), tries)));
    }

    fn answered(&mut self, answer: Event) {
        let Process::Client(client) = answer.process else { return };
        let state = &mut self.clients[client as usize];
        if state.current != Some(answer.call) {
            return;
        }
        let answer = Event { time: self.now, ..answer };
        if answer.f == F::Queued {
            return self.events.push(answer);
        }
        state.current = None;
        let good = answer.kind == Kind::Ok;
        match answer.f {
            F::Acquire if good => state.holds = Some(answer.clone()),
            F::Renew if good => {
                if let Some(held) = state.holds.as_mut().filter(|held| self.now < held.deadline.unwrap()) {
                    held.deadline = held.deadline.max(answer.deadline);
                }
            }
            _ => {}
        }
        let gone = (answer.f == F::Renew && !good).then(|| state.holds.clone()).flatten();
        self.events.push(answer);
        if let Some(grant) = gone {
            self.tell_lost(client, &grant, Why::NotOurs);
        }
        let delay = self.delay();
        self.after(delay, Action::Go(client));
    }

    fn give_up(&mut self, call: &Event, kind: Kind) {
        let Process::Client(client) = call.process else { return };
        if self.clients[client as usize].current != Some(call.call) {
            return;
        }
        let token = call.token.filter(|_| call.f != F::Acquire);
        let invoke = Event { kind: Kind::Invoke, token, deadline: None, why: None, ..call.clone() };
        if kind == Kind::Fail && !self.store.leave(call) {
            // It was granted meanwhile; the answer is under way.
            return self.after(ANSWER, Action::GiveUp(call.clone(), Kind::Info));
        }
        self.clients[client as usize].current = None;
        if kind == Kind::Fail {
            self.events.push(invoke.fail(self.now, Why::TimedOut));
        } else {
            self.events.push(invoke.info(self.now));
            if call.f == F::Acquire && self.draw(2) == 0 {
                self.clients[client as usize].retry = Some(invoke);
            }
        }
        let delay = self.delay();
        self.after(delay, Action::Go(client));
    }

    /// All that was written, when everybody is through, and a count of requests that is as low as it should be.
    fn read_all(&mut self) {
        let beginning = self.events[0].time;
        let count = Event::invoke(beginning, Process::Client(99), self.calls, F::Requests).waiters(3).ttl(TTL);
        self.calls += 1;
        self.events.extend([count.clone(), count.ok(self.now).count(3)]);
        for (lock, _) in store::LOCKS {
            let read = Event::invoke(self.now, Process::Client(99), self.calls, F::Read).resource(lock);
            self.calls += 1;
            let entries = self.store.log(lock);
            self.events.extend([read.clone(), read.ok(self.now + Duration::from_micros(1)).entries(entries)]);
        }
    }
}

/// The lock, owner and mode that another event tells of.
fn said_of(event: Event, other: &Event) -> Event {
    let (lock, owner, mode, ttl) = (other.lock.clone(), other.owner, other.mode, other.ttl);
    Event { lock, owner, mode, ttl, ..event }
}

/// Whether two events are of one lock.
pub(crate) fn same_lock(one: &Event, other: &Event) -> bool {
    one.lock == other.lock
}

/// Gives every event of this owner's grant another token.
pub(crate) fn retoken(events: &mut [Event], of: &Event, token: FencingToken) {
    let grant = (of.owner, of.token);
    for event in events.iter_mut().filter(|event| (event.owner, event.token) == grant) {
        event.token = Some(token);
    }
}
