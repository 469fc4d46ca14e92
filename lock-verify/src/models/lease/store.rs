//! What the store and the resource do: judged by the core's own functions, and each judgement by the laws.

use std::time::Duration;

use lock_core::{
    AcquireRequest, Acquired, Fence, FencingToken, HolderInfo, LockName, Moment, OwnerId, Pass, Record, ReleaseRequest,
    RenewRequest, Renewed, Resource, Timing, admit,
};

use super::{
    flaws::Flaw,
    laws::Law,
    state::{Kept, LOCKS, Lock, MOST_CALLS},
};

/// In ticks. A renewal asks for less than the acquire did, so that it must not shorten the lease.
pub(super) const TTL: u8 = 4;
pub(super) const RENEWAL_TTL: u8 = 3;

const TICK: Duration = Duration::from_secs(1);
const NOW: Moment = Moment::from_nanos(1_000_000_000_000);

/// Tokens are ranks, so there are never more than may matter at once.
const MOST_TOKENS: u8 = 24;

/// The requests that can be made, made once.
#[derive(Debug)]
pub(super) struct Store {
    flaw: Option<Flaw>,
    locks: Vec<Requests>,
    resource: Resource,
    timing: Timing,
}

#[derive(Debug)]
struct Requests {
    acquire: Vec<AcquireRequest>,
    /// By owner, then by token.
    renew: Vec<Vec<RenewRequest>>,
    release: Vec<Vec<ReleaseRequest>>,
    /// By token.
    fences: Vec<Fence>,
}

/// What became of a lock by a step, and what the asker is told of it.
pub(super) struct Judged<A> {
    pub(super) answer: A,
    pub(super) lock: Lock,
    pub(super) broken: Option<Law>,
}

impl Store {
    #[expect(clippy::expect_used, reason = "names and tokens are fixed")]
    pub(super) fn new(flaw: Option<Flaw>) -> Self {
        let name = |at: usize| LockName::new(format!("lock-{at}")).expect("a name");
        let (ttl, renewal_ttl) = (ticks(TTL), ticks(RENEWAL_TTL));
        let owners = || (0..MOST_CALLS).map(|at| owner_id(at as u8));
        let tokens = || (0..MOST_TOKENS).map(token);
        let locks = (0..LOCKS).map(name).map(|name| Requests {
            acquire: owners().map(|owner| AcquireRequest::new(name.clone(), owner, ttl)).collect(),
            renew: owners()
                .map(|owner| tokens().map(|token| RenewRequest::new(name.clone(), owner, token, renewal_ttl)).collect())
                .collect(),
            release: owners()
                .map(|owner| {
                    let known = |token: FencingToken| Some(token).filter(|token| token.get() > 0);
                    tokens().map(|token| ReleaseRequest::new(name.clone(), owner, known(token))).collect()
                })
                .collect(),
            fences: tokens()
                .map(|token| Fence::new(name.clone(), token.max(FencingToken::new(1))).expect("a token"))
                .collect(),
        });
        let resource = Resource::new("accounts").expect("a resource");
        // A tick is what clocks may differ by over a lease, and the least that a margin can be.
        let timing = Timing::default().margin(TICK);
        Self { flaw, locks: locks.collect(), resource, timing }
    }

    /// The owner's id of a call.
    pub(super) fn owner(&self, call: usize) -> u8 {
        if self.flaw == Some(Flaw::OwnerPerHost) { 0 } else { call as u8 }
    }

    /// For how many ticks a client may believe, given how long ago it asked: the core's arithmetic.
    pub(super) fn belief(&self, age: u8, ttl: u8) -> u8 {
        let age = if self.flaw == Some(Flaw::DeadlineFromReply) { 0 } else { age };
        let sent = NOW - ticks(age);
        let deadline = match self.flaw {
            Some(Flaw::DeadlineWithoutMargin) => sent + ticks(ttl),
            _ => self.timing.deadline(sent, ticks(ttl), Duration::ZERO),
        };
        deadline.since(NOW).as_nanos().div_ceil(TICK.as_nanos()) as u8
    }

    /// Judges an acquire; the token if it was granted.
    pub(super) fn acquire(&self, lock: u8, call: usize, before: Lock, again: bool) -> Judged<Option<u8>> {
        let owner = self.owner(call);
        let request = &self.locks[usize::from(lock)].acquire[usize::from(owner)];
        // While there is a record the wall clock may stand anywhere: it is as far back as can be. Where there is none, it has
        // gone on since the last grant.
        let wall = match before.record {
            Some(_) => 0,
            None if self.flaw == Some(Flaw::CounterDeletedOnRelease) => 1,
            None => before.highest + 1,
        };
        let mine = before.record.filter(|kept| kept.left > 0 && kept.owner == Some(owner));
        let verdict = Record::acquire(before.record.map(Kept::record).as_ref(), request, NOW, u64::from(wall));
        let mut answer = match verdict.answer {
            Acquired::Granted(grant) => Some(grant.token.get() as u8),
            _ => None,
        };
        let mut after = verdict.change.map_or(before.record, |record| Some(Kept::of(&record)));
        match (self.flaw, mine) {
            (Some(Flaw::TokenRaisedByReentry), Some(kept)) => {
                answer = Some(kept.token + 1);
                after = Some(Kept { token: kept.token + 1, left: TTL, ..kept });
            }
            (Some(Flaw::OwnerPerAttempt), Some(_)) if again => (answer, after) = (None, before.record),
            (Some(Flaw::RetryAddsUp), Some(kept)) => after = Some(Kept { left: kept.left + TTL, ..kept }),
            _ => {}
        }
        let mut next = Lock { record: after, ..before };
        let broken = match (mine, answer) {
            (Some(kept), Some(token)) => (kept.token != token).then_some(Law::Stability),
            (Some(_), None) => Some(Law::Doubt),
            (None, Some(token)) => {
                next.highest = before.highest.max(token);
                (token <= before.highest).then_some(Law::Fence)
            }
            (None, None) => (before.record != after).then_some(Law::Strangers),
        };
        Judged { answer, lock: next, broken }
    }

    /// Judges a renewal: whether the lease goes on.
    pub(super) fn renew(&self, lock: u8, call: usize, token: u8, before: Lock) -> Judged<bool> {
        let owner = self.owner(call);
        let request = &self.locks[usize::from(lock)].renew[usize::from(owner)][usize::from(token)];
        let verdict = Record::renew(before.record.map(Kept::record).as_ref(), request, NOW);
        let mut answer = matches!(verdict.answer, Renewed::Held(_));
        let mut after = verdict.change.map_or(before.record, |record| Some(Kept::of(&record)));
        match (self.flaw, before.record) {
            (Some(Flaw::TokenRaisedByRenewal), Some(kept)) if answer => {
                after = Some(Kept { token: kept.token + 1, ..kept });
            }
            (Some(Flaw::RenewalShortens), Some(kept)) if answer => after = Some(Kept { left: RENEWAL_TTL, ..kept }),
            (Some(Flaw::ExpiredIsRenewed), Some(kept)) if kept.owner == Some(owner) && kept.token == token => {
                (answer, after) = (true, Some(Kept { left: kept.left.max(RENEWAL_TTL), ..kept }));
            }
            _ => {}
        }
        self.by_owner(before, after, answer, owner, Some(token))
    }

    /// Judges a release: whether it was the asker's.
    pub(super) fn release(&self, lock: u8, call: usize, token: u8, before: Lock) -> Judged<bool> {
        let owner = self.owner(call);
        let request = &self.locks[usize::from(lock)].release[usize::from(owner)][usize::from(token)];
        let verdict = Record::release(before.record.map(Kept::record).as_ref(), request, NOW);
        let mut after = verdict.change.as_ref().map_or(before.record, |record| Some(Kept::of(record)));
        match self.flaw {
            Some(Flaw::ReleaseByName) => {
                after = before.record.map(|kept| Kept { left: 0, owner: None, ..kept });
            }
            Some(Flaw::CounterDeletedOnRelease) if verdict.change.is_some() => after = None,
            _ => {}
        }
        let answer = matches!(verdict.answer, lock_core::Released::Released);
        self.by_owner(before, after, answer, owner, Some(token).filter(|token| *token > 0))
    }

    /// Judges a forced release, by people.
    pub(super) fn force_release(before: Lock) -> Lock {
        let verdict = Record::force_release(before.record.map(Kept::record).as_ref(), NOW);
        Lock { record: verdict.change.map_or(before.record, |record| Some(Kept::of(&record))), ..before }
    }

    /// Whether the resource accepts a write, and what it keeps.
    pub(super) fn write(&self, lock: u8, token: u8, before: Lock) -> Judged<bool> {
        let fences = &self.locks[usize::from(lock)].fences;
        let highest = Some(&fences[usize::from(before.register)]).filter(|_| before.register > 0);
        let passes = match self.flaw {
            Some(Flaw::NoFence) => true,
            Some(Flaw::FenceByInequality) => before.register != token,
            _ => admit(highest, &self.resource, &fences[usize::from(token)], Pass::Again).is_ok(),
        };
        if !passes {
            return Judged { answer: false, lock: before, broken: None };
        }
        let broken = (token < before.register).then_some(Law::Resource);
        Judged { answer: true, lock: Lock { register: token, ..before }, broken }
    }

    /// Whether a record without a lease may be swept; what is still held may never be.
    pub(super) fn may_sweep(&self, lock: Lock) -> bool {
        lock.record.is_some_and(|kept| kept.left == 0 || self.flaw == Some(Flaw::RetentionUnderHold))
    }

    /// Whether each record there can be stays as it is whatever is asked by who doesn't hold it: by its former owner, by
    /// its owner under another token, by anybody else.
    pub(super) fn strangers_change_nothing(&self) -> bool {
        let records = (0..MOST_TOKENS).flat_map(|token| {
            let owners = (0..MOST_CALLS as u8).map(Some).chain([None]);
            owners.flat_map(move |owner| (0..=TTL).map(move |left| Kept { token, left, owner }))
        });
        let unchanged = |kept: Kept| {
            let before = Lock { record: Some(kept), highest: kept.token, register: 0 };
            (0..MOST_CALLS).all(|call| {
                (0..MOST_TOKENS).all(|token| {
                    let broken =
                        [self.renew(0, call, token, before).broken, self.release(0, call, token, before).broken];
                    broken == [None, None]
                })
            })
        };
        records.into_iter().all(unchanged)
    }

    /// What only the owner of this very grant may do while it is live.
    fn by_owner<A>(&self, before: Lock, after: Option<Kept>, answer: A, owner: u8, token: Option<u8>) -> Judged<A> {
        let its = before
            .record
            .filter(|kept| kept.left > 0 && kept.owner == Some(owner) && token.is_none_or(|token| token == kept.token));
        let broken = match (its, after) {
            (None, _) => (before.record != after).then_some(Law::Strangers),
            (Some(kept), Some(after)) => (kept.token != after.token).then_some(Law::Stability),
            (Some(_), None) => None,
        };
        let highest = before.highest.max(after.map_or(0, |kept| kept.token));
        Judged { answer, lock: Lock { record: after, highest, ..before }, broken }
    }
}

impl Kept {
    fn record(self) -> Record {
        Record {
            token: token(self.token),
            taken_until: NOW + ticks(self.left),
            lease: self.owner.map(|owner| (owner_id(owner), HolderInfo::default())),
            last_tick: None,
        }
    }

    fn of(record: &Record) -> Self {
        let left = record.taken_until.since(NOW).as_nanos() / TICK.as_nanos();
        let owner = record.lease.as_ref().map(|(owner, _)| (owner.as_u128() - 1) as u8);
        Self { token: record.token.get() as u8, left: left as u8, owner }
    }
}

fn owner_id(at: u8) -> OwnerId {
    OwnerId::from_u128(u128::from(at) + 1)
}

fn token(rank: u8) -> FencingToken {
    FencingToken::new(u64::from(rank))
}

fn ticks(count: u8) -> Duration {
    TICK * u32::from(count)
}
