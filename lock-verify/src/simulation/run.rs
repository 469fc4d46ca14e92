//! One run: events one after the other, until everything is done and nothing is left.

use std::sync::Arc;

use lock_core::LockState;

use super::{
    chance::{Chance, nanos},
    clock::NodeClock,
    events::{Due, Event, Events},
    faults::{Kind, Mischief},
    network::Body,
    node::Node,
    plan::Plan,
    report::Outcome,
    trace::Trace,
    world::{Shared, World},
};

/// What is to be told of a run, besides what it came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Nothing: much faster.
    #[default]
    Nothing,
    /// All events in words.
    Trace,
    /// What the clients did and saw, as a [`History`](crate::history::History).
    History,
}

/// Runs a seed.
///
/// The same seed gives the same run, to the byte of its trace, on each machine and in each build.
///
/// # Errors
/// When the system has no runtime to give.
pub fn simulate(seed: u64, told: Told) -> std::io::Result<Outcome> {
    let mut run = Run::new(seed, told);
    let ended = run.start().map(|()| run.until_done());
    // Tasks hold on to the world and the events on to tasks.
    run.nodes.iter_mut().for_each(Node::die);
    run.shared.events.clear();
    ended?;
    let mut world = run.shared.world();
    for node in &run.nodes {
        world.counts.stopped += node.clock.stops().count;
    }
    world.record_resources(run.at);
    let (counts, violation) = (world.counts, world.violation.take());
    let (trace, history) = (world.trace.0.take(), world.record.events.take());
    Ok(Outcome { seed, counts, violation, trace, history, lasted: run.at })
}

struct Run {
    plan: Arc<Plan>,
    chance: Chance,
    shared: Arc<Shared>,
    nodes: Vec<Node>,
    at: u64,
}

/// How often it is looked whether somebody waits in vain.
const LOOK_EVERY: u64 = 500_000_000;

impl Run {
    fn new(seed: u64, told: Told) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Arc::new(Plan::of(&mut chance));
        let events = Arc::new(Events::new());
        let clock = |node: usize, chance: &mut Chance, stops| {
            Arc::new(NodeClock::new(node, plan.rates[node], events.clone(), chance.fork(), stops))
        };
        // The store takes no part in the stops: it answers or it doesn't.
        let store_clock = clock(plan.nodes, &mut chance, (0, 0));
        let nodes = (0..plan.nodes).map(|node| Node::new(clock(node, &mut chance, plan.stops))).collect();
        let trace = Trace((told == Told::Trace).then(|| format!("seed {seed}: {plan:?}\n")));
        let mut world = World::new(events.clone(), plan.clone(), chance.fork(), store_clock, trace);
        world.record.events = (told == Told::History).then(Vec::new);
        Self { plan, chance, shared: Arc::new(Shared::new(events, world)), nodes, at: 0 }
    }

    fn start(&mut self) -> std::io::Result<()> {
        for node in 0..self.nodes.len() {
            self.nodes[node].start(0, node, &self.shared, &mut self.chance)?;
        }
        if !self.plan.is_calm() {
            self.shared.events.push(self.plan.heals_at, Event::Mischief(Mischief::Heal));
            if !self.plan.mischief.is_empty() {
                self.shared.events.push(self.plan.between_mischief / 2, Event::Mischief(Mischief::Next));
            }
        }
        for _ in 0..self.plan.cuts {
            let at = self.chance.below(20 * nanos(self.plan.ttls[0]));
            self.shared.events.push(at, Event::Mischief(Mischief::Cut));
        }
        self.shared.events.push(LOOK_EVERY, Event::Look);
        Ok(())
    }

    /// Until everybody is done, and then until nothing may be left of it.
    fn until_done(&mut self) {
        // Far more than all the holds and waits of a run take, one after the other.
        let each = self.plan.idle_by_law() + 20 * nanos(self.plan.longest_ttl());
        let most = self.plan.heals_at + each * u64::from(self.plan.deeds) * self.plan.nodes as u64;
        while let Some(due) = self.shared.events.pop() {
            self.at = due.at;
            self.happens(due);
            let mut world = self.shared.world();
            if world.violation.is_some() {
                return;
            }
            if world.all_done() && !world.ill {
                break;
            }
            if self.at > most {
                world.broken(self.at, ("L7", "somebody is still waiting".to_owned()));
                return;
            }
        }
        if !self.shared.world().all_done() {
            self.shared.world().broken(self.at, ("L7", "nothing happens any more, and somebody waits".to_owned()));
            return;
        }
        self.settle();
    }

    /// Everybody is done: after the longest lease, a subscription's last look, and what was under way, all is free and
    /// silent.
    fn settle(&mut self) {
        if self.plan.is_calm() {
            self.let_go();
        }
        let until = self.at + nanos(self.plan.longest_ttl()) * 2 + nanos(self.plan.patience) * 4 + 12_000_000_000;
        let silent_from = until - 2_000_000_000;
        let mut sent = None;
        while let Some(due) = self.shared.events.pop() {
            if due.at > until {
                break;
            }
            self.at = due.at;
            if matches!(due.event, Event::Look) {
                continue;
            }
            if due.at > silent_from {
                sent.get_or_insert(self.shared.world().sent);
            }
            self.happens(due);
            if self.shared.world().violation.is_some() {
                return;
            }
        }
        let mut world = self.shared.world();
        self.at = until;
        world.store_clock.bring_to(until);
        if sent.is_some_and(|sent| sent != world.sent) {
            world.broken(until, ("L11", "the store is still asked, and nobody wants anything".to_owned()));
        }
        if !world.beliefs.all_ended() {
            world.broken(until, ("L10", "a guard is still there, and nobody has it".to_owned()));
        }
        if let Some(left) = world.all_locks().into_iter().find(|status| status.state != LockState::Free) {
            world.broken(until, ("L6", format!("left behind: {}, under {:?}", left.name, left.last_token)));
        }
        if world.writes.iter().any(|write| write.acknowledged && !write.applied) {
            world.broken(until, ("L4", "a write was acknowledged and is not there".to_owned()));
        }
    }

    /// Where nothing goes wrong nothing is left to its ttl: what was dropped half-way as well is given back at once, but where
    /// it is to be taken at least for a while.
    fn let_go(&mut self) {
        let from = self.at.max(self.shared.world().taken_until);
        let until = from + nanos(self.plan.think) * 4 + self.plan.delay.1 * 10 + 10_000_000;
        while let Some(due) = self.shared.events.pop() {
            if due.at > until {
                let at = due.at;
                self.shared.events.put_off(due, at);
                break;
            }
            self.at = due.at;
            self.happens(due);
        }
        let mut world = self.shared.world();
        world.store_clock.bring_to(until);
        let held = world.all_locks().into_iter().find(|status| matches!(status.state, LockState::Held(_)));
        if let Some(held) = held {
            world.broken(until, ("L6", format!("left to its ttl: {}, under {:?}", held.name, held.last_token)));
        }
    }

    fn happens(&mut self, due: Due) {
        let at = due.at;
        let reaches = match &due.event {
            Event::Timer { waker: None, .. } => return,
            Event::Timer { node, .. } => Some(*node),
            Event::Message(message) if matches!(message.body, Body::Answer(..)) => Some(message.node),
            _ => None,
        };
        if let Some(node) = reaches
            && self.nodes[node].busy_until > at
        {
            let mut until = self.nodes[node].busy_until;
            if self.nodes[node].suspended && matches!(due.event, Event::Timer { .. }) {
                // A timer that stood still is looked at again within half a second.
                until += self.chance.below(500_000_000);
            }
            self.shared.events.put_off(due, until);
            return;
        }
        match due.event {
            Event::Timer { node, waker } => self.step(node, at, || {
                if let Some(waker) = waker {
                    waker.wake();
                }
            }),
            Event::Message(message) => {
                let (node, life) = (message.node, message.life);
                match message.body {
                    Body::Question(question, way) => self.shared.world().arrives(at, node, life, question, way),
                    // To a life that is over.
                    Body::Answer(..) if self.nodes[node].life != life => {}
                    Body::Answer(what, deliver) => {
                        self.shared.world().trace.of_node(at, node, format_args!("{what}"));
                        self.step(node, at, deliver);
                    }
                }
            }
            Event::Mischief(Mischief::Heal) => self.heal(at),
            Event::Mischief(Mischief::Cut) => {
                let mut world = self.shared.world();
                world.counts.unsubscribed += 1;
                world.trace.note(at, "fate", format_args!("cuts all subscriptions"));
                world.unsubscribe(at, None);
            }
            Event::Mischief(Mischief::Next) => self.mischief(at),
            Event::Look => {
                self.shared.world().check_all_idle(at);
                self.shared.events.push(at + LOOK_EVERY, Event::Look);
            }
        }
    }

    fn step(&mut self, node: usize, at: u64, work: impl FnOnce() + Unpin) {
        let through = self.nodes[node].step(at, work);
        let mut world = self.shared.world();
        if through > at {
            let stood = (through - at) as f64 / 1e6;
            world.record.fault(at, through, |event| event.fault("stopped in a step").target(format!("node {node}")));
            world.trace.of_node(through, node, format_args!("had stood still for {stood:.3} ms in the midst of that"));
        }
        world.look_at(at, through, node);
    }

    /// From now on nothing goes wrong.
    fn heal(&mut self, at: u64) {
        let mut world = self.shared.world();
        world.ill = false;
        world.down_until = at;
        world.cut_until.fill(at);
        world.trace.note(at, "fate", format_args!("all is well from now on"));
        let mut quiet = at;
        for node in &self.nodes {
            node.clock.set_stops(0);
            quiet = quiet.max(node.busy_until);
        }
        // What is under way may still be late.
        world.beliefs.quiet_from = quiet + self.plan.late.1 + nanos(self.plan.patience);
    }

    fn mischief(&mut self, at: u64) {
        if !self.shared.world().ill {
            return;
        }
        let next = at + self.chance.between(1, 2 * self.plan.between_mischief);
        self.shared.events.push(next, Event::Mischief(Mischief::Next));
        let kind = self.chance.pick(&self.plan.mischief);
        let node = self.chance.below(self.plan.nodes as u64) as usize;
        let ttl = nanos(self.plan.ttls[0]);
        let span = self.chance.between(ttl / 10, ttl * 5 / 2);
        let shared = self.shared.clone();
        let mut world = shared.world();
        world.trace.of_node(at, node, format_args!("or others: {kind:?}, {:.3} ms if it lasts", span as f64 / 1e6));
        let lasts = match kind {
            Kind::Frozen | Kind::Suspended | Kind::CutOff | Kind::Down => at + span,
            // Until it is noticed.
            Kind::Unsubscribed => at + Plan::NOTICED_AFTER,
            _ => at,
        };
        if !matches!(kind, Kind::Forced | Kind::Deleted) {
            world.record.fault(at, lasts, |event| event.fault(format!("{kind:?}")).target(format!("node {node}")));
        }
        match kind {
            Kind::Frozen | Kind::Suspended => {
                let stopped = &mut self.nodes[node];
                stopped.suspended = kind == Kind::Suspended;
                stopped.busy_until = stopped.busy_until.max(at) + span;
                if stopped.suspended { world.counts.suspended += 1 } else { world.counts.frozen += 1 }
            }
            Kind::CutOff => {
                world.counts.cut_off += 1;
                world.cut_until[node] = at + span;
                world.unsubscribe(at, Some(node));
            }
            Kind::Down => {
                world.counts.down += 1;
                world.down_until = at + span;
                world.unsubscribe(at, None);
            }
            Kind::Unsubscribed => {
                world.counts.unsubscribed += 1;
                world.unsubscribe(at, Some(node));
            }
            Kind::Crashed => {
                world.counts.crashed += 1;
                world.died(at, node);
                drop(world);
                self.nodes[node].die();
                // Without a runtime the node stays dead, which the checker takes for somebody who waits for ever.
                let _ = self.nodes[node].start(at, node, &self.shared, &mut self.chance);
            }
            Kind::NodeClock | Kind::StoreClockAhead | Kind::StoreClockBack => {
                world.counts.stepped += 1;
                let micros = self.chance.between(1, 3_600_000_000) as i64;
                match kind {
                    Kind::StoreClockAhead => world.store_clock.step_wall(micros),
                    Kind::StoreClockBack => world.store_clock.step_wall(-micros),
                    _ => self.nodes[node].clock.step_wall(micros - 1_800_000_000),
                }
            }
            Kind::Forced | Kind::Deleted => {
                let lock = self.chance.below(world.locks.len().max(1) as u64) as usize;
                if lock < world.locks.len() {
                    world.take_away(at, lock, kind == Kind::Deleted);
                }
            }
        }
    }
}
