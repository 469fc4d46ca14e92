//! What holders believe, and until when: by it laws 1, 7 and 10 are judged.

use std::sync::Arc;

use lock_core::{Lease, LossReason, Moment};

use super::{
    clock::NodeClock,
    record::{self, End},
    truth::Broken,
    world::World,
};
use crate::history::{Event, F, Kind, Process};

/// Everything that somebody believes in, and everything that somebody waits for.
pub(super) struct Beliefs {
    holds: Vec<Hold>,
    /// By node: those that have not ended with their guard.
    open: Vec<Vec<usize>>,
    pub(super) waiting: Vec<Wait>,
    pub(super) waits: u64,
    /// By node: which life it is in.
    pub(super) lives: Vec<u32>,
    /// Since when nothing goes wrong any more.
    pub(super) quiet_from: u64,
}

/// A guard, as its holder sees it.
struct Hold {
    node: usize,
    lock: usize,
    /// Which of the lock's grants.
    grant: usize,
    lease: Lease,
    clock: Arc<NodeClock>,
    /// Its deadline when it was last looked at, on its node's clock; the clock's start once it ended.
    shown: Moment,
    /// Until when it is believed, in true time, if nothing ends it before.
    deadline: u64,
    /// When it ended before its deadline.
    ended: Option<u64>,
    told_lost: bool,
    releasing: Option<Event>,
}

impl Hold {
    fn end(&self) -> u64 {
        self.deadline.min(self.ended.unwrap_or(u64::MAX))
    }
}

/// A call that asks for a lock.
pub(super) struct Wait {
    pub(super) number: u64,
    pub(super) node: usize,
    pub(super) lock: usize,
    pub(super) since: u64,
    /// Whether it waits if it must.
    pub(super) patient: bool,
    pub(super) asked: Option<Event>,
}

impl Beliefs {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            holds: Vec::new(),
            open: vec![Vec::new(); nodes],
            waiting: Vec::new(),
            waits: 0,
            lives: vec![0; nodes],
            quiet_from: 0,
        }
    }

    pub(super) fn all_ended(&self) -> bool {
        self.open.iter().all(Vec::is_empty)
    }
}

impl World {
    /// The store made a new grant: nobody believes in the one before.
    pub(super) fn granted(&mut self, at: u64, lock: usize, idle: Option<(u64, bool)>) {
        if let Some(idle) = idle {
            self.check_hand_over(at, lock, idle);
        }
        self.locks[lock].freed = None;
        let before = self.locks[lock].grants.len().checked_sub(2);
        let Some(before) = before else { return };
        let mut broken = None;
        for hold in &self.locks[lock].holds {
            let hold = &self.beliefs.holds[*hold];
            if hold.grant == before && hold.end() > at {
                broken = Some((hold.node, hold.end()));
            }
        }
        let Some((node, end)) = broken else { return };
        if self.locks[lock].grants[before].revoked {
            self.counts.forced_overlaps += 1;
            return;
        }
        let lock = &self.locks[lock];
        let what = format!(
            "{}: granted under {} while node {node} believes in {} for {:.3} ms more",
            lock.name,
            lock.grants[before + 1].token,
            lock.grants[before].token,
            (end - at) as f64 / 1e6
        );
        self.broken(at, ("L1", what));
    }

    /// An acquire returned a guard.
    pub(super) fn began(
        &mut self,
        at: u64,
        node: usize,
        lock: usize,
        lease: &Lease,
        clock: &Arc<NodeClock>,
        call: u64,
    ) -> usize {
        let (owner, token) = (lease.owner(), lease.token().get());
        let grants = &self.locks[lock].grants;
        let grant = grants.iter().rposition(|grant| grant.owner == owner && grant.token == token);
        let Some(grant) = grant else {
            let what = format!("{}: a guard under {token} for {owner}, which the store never granted", lease.name());
            self.broken(at, ("L6", what));
            return usize::MAX;
        };
        let number = self.beliefs.holds.len();
        let hold = Hold {
            node,
            lock,
            grant,
            lease: lease.clone(),
            clock: clock.clone(),
            shown: Moment::from_nanos(u64::MAX),
            deadline: 0,
            ended: None,
            told_lost: false,
            releasing: None,
        };
        self.trace.of_node(at, node, format_args!("holds {} under {token}", lease.name()));
        self.beliefs.holds.push(hold);
        self.beliefs.open[node].push(number);
        self.locks[lock].holds.push(number);
        self.look(at, at, number);
        let place = self.beliefs.waiting.iter().position(|wait| wait.number == call);
        if let Some(place) = place {
            let wait = self.beliefs.waiting.swap_remove(place);
            let until = Moment::from_nanos(self.beliefs.holds[number].deadline.max(at));
            let asked = wait.asked.as_ref();
            self.record.ends(at, asked, &End::Done, |event| record::of(lease)(event).deadline(until));
        }
        number
    }

    /// The holder gives it up now, whatever the store makes of that.
    pub(super) fn lets_go(&mut self, at: u64, hold: usize) {
        let Some(hold) = self.beliefs.holds.get_mut(hold) else { return };
        if hold.ended.is_none() {
            hold.ended = Some(at);
            let process = Process::Client(self.beliefs.lives[hold.node] * 16 + hold.node as u32);
            hold.releasing = self.record.begins(at, process, F::Release, record::of(&hold.lease));
        }
    }

    /// The holder looked at this moment, and was told that it may go on.
    pub(super) fn is_sure(&mut self, at: u64, hold: usize) {
        let Some(hold) = self.beliefs.holds.get(hold) else { return };
        // As it is now: a renewal may have come in the same step.
        let deadline = hold.clock.true_at(hold.clock.peek(|| hold.lease.deadline()));
        if deadline > at {
            return;
        }
        let late = (at - deadline) as f64 / 1e6;
        let what = format!("the lease under {} is called valid {late:.3} ms after its deadline", hold.lease.token());
        self.broken(at, ("L1", what));
    }

    /// The guard is gone.
    pub(super) fn over(&mut self, at: u64, hold: usize, end: &End) {
        let Some(Hold { node, lock, .. }) = self.beliefs.holds.get(hold) else { return };
        let (node, lock) = (*node, *lock);
        self.lets_go(at, hold);
        self.look(at, at, hold);
        let releasing = self.beliefs.holds[hold].releasing.take();
        self.record.ends(at, releasing.as_ref(), end, |event| event);
        self.beliefs.open[node].retain(|open| *open != hold);
        // It still counts until the store has made the next grant.
        let grants = self.locks[lock].grants.len();
        let holds = &self.beliefs.holds;
        self.locks[lock].holds.retain(|open| holds[*open].grant + 1 >= grants);
    }

    /// A node is dead, and with it everything that it believed.
    pub(super) fn died(&mut self, at: u64, node: usize) {
        for hold in std::mem::take(&mut self.beliefs.open[node]) {
            self.beliefs.holds[hold].ended.get_or_insert(at);
        }
        self.record.told(at, self.beliefs.process(node), Kind::Info, F::Exit, |event| event);
        self.beliefs.lives[node] += 1;
        self.beliefs.waiting.retain(|wait| wait.node != node);
    }

    /// After a step of a node, which began at `from` and ended at `at`: what it believes now.
    pub(super) fn look_at(&mut self, from: u64, at: u64, node: usize) {
        for place in 0..self.beliefs.open[node].len() {
            let hold = self.beliefs.open[node][place];
            self.look(from, at, hold);
        }
    }

    fn look(&mut self, from: u64, at: u64, number: usize) {
        let hold = &mut self.beliefs.holds[number];
        let shown = hold.clock.peek(|| hold.lease.deadline());
        if shown == hold.shown {
            return;
        }
        hold.shown = shown;
        let state = hold.clock.peek(|| hold.lease.check());
        let (name, token) = (&self.locks[hold.lock].name, hold.lease.token());
        let broken: Broken = match state {
            Ok(()) => {
                let until = hold.clock.true_at(shown);
                if hold.deadline != 0 {
                    let process = Process::Client(self.beliefs.lives[hold.node] * 16 + hold.node as u32);
                    let looked = self.record.begins(at, process, F::Look, record::of(&hold.lease));
                    let seen = |event: Event| event.valid(true).deadline(Moment::from_nanos(until));
                    self.record.ends(at, looked.as_ref(), &End::Done, seen);
                }
                let before = std::mem::replace(&mut hold.deadline, until);
                let next = self.locks[hold.lock].grants.get(hold.grant + 1);
                let revoked = self.locks[hold.lock].grants[hold.grant].revoked;
                if hold.told_lost {
                    ("L10", format!("{name}: the lease under {token} was lost, and is live again"))
                } else if until < before {
                    let by = (before - until) as f64 / 1e6;
                    ("L1", format!("{name}: a renewal under {token} shortened the lease by {by:.3} ms"))
                } else if before != 0 && hold.end().min(before) < from {
                    let by = (from - hold.end().min(before)) as f64 / 1e6;
                    ("L10", format!("{name}: the lease under {token} came back {by:.3} ms after its end"))
                } else if let Some(next) = next.filter(|next| !revoked && hold.end() > next.at) {
                    let what = format!("{name}: {token} is believed in, and {} was granted", next.token);
                    ("L1", what)
                } else {
                    return;
                }
            }
            Err(lost) => {
                hold.ended.get_or_insert(at);
                if lost.reason == LossReason::Released || std::mem::replace(&mut hold.told_lost, true) {
                    return;
                }
                let reason = lost.reason;
                let process = Process::Client(self.beliefs.lives[hold.node] * 16 + hold.node as u32);
                self.record.told(at, process, Kind::Ok, F::Lost, |event| {
                    record::of(&hold.lease)(event).why(record::why(reason))
                });
                let node = hold.node;
                if reason == LossReason::AtMostFor {
                    self.counts.capped += 1;
                } else {
                    self.counts.lost += 1;
                }
                let what = format!("{name}: the lease under {token} was lost ({reason:?})");
                self.trace.of_node(at, node, format_args!("{what}"));
                let granted = self.locks[hold.lock].grants[hold.grant];
                if reason == LossReason::NotOurs
                    && self.locks[hold.lock].is_had_by(&granted, self.store_clock.shown_at(at))
                {
                    self.broken(at, ("L6", format!("{what}, which the store never said")));
                    return;
                }
                // Renewed, a lease outlives its ttl: nothing went wrong here.
                if !self.plan.is_calm() || reason == LossReason::AtMostFor {
                    return;
                }
                ("L7", format!("{what}, and nothing had gone wrong"))
            }
        };
        self.broken(at, broken);
    }
}
