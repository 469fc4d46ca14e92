//! What becomes of messages on their way.

use lock_core::{ErrorKind, Heard, StoreError};

use super::{
    chance::nanos,
    events::Event,
    network::{Body, Deliver, Message, Mouth, Question, Way, told},
    plan::Plan,
    world::{Shared, Subscriber, World},
};

impl World {
    pub(super) fn is_cut(&self, node: usize, at: u64) -> bool {
        self.cut_until[node] > at
    }

    /// How long a message takes.
    pub(super) fn delay(&mut self) -> u64 {
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

    pub(super) fn deliver(&mut self, at: u64, node: usize, life: u32, what: &'static str, deliver: Option<Deliver>) {
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
