//! The judgement of a store that keeps a record of each lock: what the record says to a request, and what becomes of it.
//!
//! Pure, so that a store that can read and write records in a transaction needs to add nothing but the transaction: see
//! [`MemoryLocks`](crate::MemoryLocks). Stores that judge in their own language (SQL, Lua) follow the same rules there.

use crate::{
    clock::Moment,
    name::LockName,
    owner::{HolderInfo, OwnerId},
    request::{
        AcquireRequest, Acquired, Grant, Held, Holding, LockState, LockStatus, ReleaseRequest, Released, RenewRequest,
        Renewed,
    },
    tick::Tick,
    token::FencingToken,
};

/// What is kept of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The token of the last grant.
    pub token: FencingToken,
    /// Until when nobody else may have it, on the store's clock.
    pub taken_until: Moment,
    /// Who has it until then; nobody after a release that keeps it taken.
    pub lease: Option<(OwnerId, HolderInfo)>,
    /// The last tick that was used up. It outlives leases, releases and forced releases.
    pub last_tick: Option<Tick>,
}

/// An answer, and the record to be written with it; `None` if nothing changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<A> {
    /// What the asker is told, once the change is committed.
    pub answer: A,
    /// The lock's record from now on.
    pub change: Option<Record>,
}

impl<A> Verdict<A> {
    fn unchanged(answer: A) -> Self {
        Self { answer, change: None }
    }
}

impl Record {
    /// Whether nobody else may have the lock now.
    #[must_use]
    pub fn is_taken(&self, now: Moment) -> bool {
        self.taken_until > now
    }

    /// Whether this owner holds it now, under this token if it knows one.
    fn is_held_by(&self, owner: OwnerId, token: Option<FencingToken>, now: Moment) -> bool {
        let owns = self.lease.as_ref().is_some_and(|(holder, _)| *holder == owner);
        owns && token.is_none_or(|token| token == self.token) && self.is_taken(now)
    }

    /// Judges an acquire by the lock's record, if there is one. `now` and `wall_micros` are the store's clocks, read once
    /// nobody else can change the record; the request was checked.
    #[must_use]
    pub fn acquire(
        before: Option<&Self>,
        request: &AcquireRequest,
        now: Moment,
        wall_micros: u64,
    ) -> Verdict<Acquired> {
        let granted = |token| Acquired::Granted(Grant { token, ttl: request.ttl });
        match before {
            Some(record) if record.is_held_by(request.owner, None, now) => {
                Verdict { answer: granted(record.token), change: record.extended(now + request.ttl) }
            }
            Some(Self { last_tick: Some(last), .. }) if request.is_finished(Some(*last)) => {
                Verdict::unchanged(Acquired::Finished(*last))
            }
            Some(record) if record.is_taken(now) => Verdict::unchanged(Acquired::Held(Held {
                holder: record.lease.as_ref().map(|(_, holder)| holder.clone()),
                remaining: Some(record.taken_until.since(now)),
                position: None,
            })),
            idle => {
                let token = FencingToken::next(idle.map(|record| record.token), wall_micros);
                let lease = Some((request.owner, request.holder.clone().bounded()));
                let last_tick = idle.and_then(|record| record.last_tick).max(request.used_by_grant());
                let record = Self { token, taken_until: now + request.ttl, lease, last_tick };
                Verdict { answer: granted(token), change: Some(record) }
            }
        }
    }

    /// Judges a renewal.
    #[must_use]
    pub fn renew(before: Option<&Self>, request: &RenewRequest, now: Moment) -> Verdict<Renewed> {
        match before {
            Some(record) if record.is_held_by(request.owner, Some(request.token), now) => {
                Verdict { answer: Renewed::Held(request.ttl), change: record.extended(now + request.ttl) }
            }
            _ => Verdict::unchanged(Renewed::Lost),
        }
    }

    /// Judges a release; after [`Released::Released`] the watchers are to be woken.
    #[must_use]
    pub fn release(before: Option<&Self>, request: &ReleaseRequest, now: Moment) -> Verdict<Released> {
        match before {
            Some(record) if record.is_held_by(request.owner, request.token, now) => Verdict {
                answer: Released::Released,
                change: Some(Self {
                    token: record.token,
                    taken_until: now + request.keep_for,
                    lease: None,
                    last_tick: record.last_tick.max(request.done),
                }),
            },
            _ => Verdict::unchanged(Released::NotHeld),
        }
    }

    /// Judges a forced release: whether somebody held it. It also ends what an at-least-for kept taken.
    #[must_use]
    pub fn force_release(before: Option<&Self>, now: Moment) -> Verdict<bool> {
        match before {
            Some(record) if record.is_taken(now) => Verdict {
                answer: record.lease.is_some(),
                change: Some(Self { taken_until: now, lease: None, ..record.clone() }),
            },
            _ => Verdict::unchanged(false),
        }
    }

    /// What people are told of it.
    #[must_use]
    pub fn status(&self, name: &LockName, now: Moment) -> LockStatus {
        let remaining = self.taken_until.since(now);
        let state = match &self.lease {
            _ if !self.is_taken(now) => LockState::Free,
            None => LockState::Resting(remaining),
            Some((owner, holder)) => {
                LockState::Held(Holding { owner: *owner, token: self.token, remaining, holder: holder.clone() })
            }
        };
        LockStatus { name: name.clone(), state, last_token: Some(self.token), waiters: None }
    }

    /// The record with a later end; `None` if it ends later already: a delayed renewal never shortens a lease.
    fn extended(&self, until: Moment) -> Option<Self> {
        (until > self.taken_until).then(|| Self { taken_until: until, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::TickUse;
    use std::time::Duration;

    const TTL: Duration = Duration::from_secs(10);
    const NOW: Moment = Moment::from_nanos(86_400_000_000_000);

    fn ask(owner: u128) -> AcquireRequest {
        AcquireRequest::new(LockName::new("x").unwrap(), OwnerId::from_u128(owner), TTL)
    }

    fn granted(before: Option<&Record>, owner: u128, now: Moment) -> Record {
        let verdict = Record::acquire(before, &ask(owner), now, 1_000_000);
        assert!(matches!(verdict.answer, Acquired::Granted(_)), "{verdict:?}");
        verdict.change.unwrap()
    }

    fn renew(record: &Record, owner: u128, ttl: Duration) -> RenewRequest {
        let owner = OwnerId::from_u128(owner);
        RenewRequest { name: LockName::new("x").unwrap(), owner, token: record.token, ttl }
    }

    #[test]
    fn what_changes_nothing_is_not_written() {
        let record = granted(None, 1, NOW);
        let shorter = Record::renew(Some(&record), &renew(&record, 1, TTL / 2), NOW);
        assert_eq!(shorter, Verdict::unchanged(Renewed::Held(TTL / 2)));
        assert_eq!(Record::renew(Some(&record), &renew(&record, 2, TTL), NOW), Verdict::unchanged(Renewed::Lost));
        assert!(Record::acquire(Some(&record), &ask(2), NOW, 0).change.is_none());
    }

    #[test]
    fn an_expired_lease_is_not_renewable_even_when_nobody_took_it() {
        let record = granted(None, 1, NOW);
        let last = NOW + TTL - Duration::from_nanos(1);
        assert!(Record::renew(Some(&record), &renew(&record, 1, TTL), last).change.is_some());
        let late = Record::renew(Some(&record), &renew(&record, 1, TTL), NOW + TTL);
        assert_eq!(late, Verdict::unchanged(Renewed::Lost));
    }

    #[test]
    fn only_the_owner_of_this_very_grant_releases() {
        let record = granted(None, 1, NOW);
        let release = |owner, token| ReleaseRequest::new(LockName::new("x").unwrap(), OwnerId::from_u128(owner), token);
        let other = Some(FencingToken::new(record.token.get() + 1));
        for stranger in [release(2, Some(record.token)), release(2, None), release(1, other)] {
            assert_eq!(Record::release(Some(&record), &stranger, NOW), Verdict::unchanged(Released::NotHeld));
        }
        let mut kept = release(1, None);
        kept.keep_for = TTL;
        let resting = Record::release(Some(&record), &kept, NOW).change.unwrap();
        assert_eq!(resting.status(&kept.name, NOW).state, LockState::Resting(TTL));
        assert_eq!(
            Record::release(Some(&resting), &kept, NOW).answer,
            Released::NotHeld,
            "releasing twice is harmless"
        );
    }

    #[test]
    fn a_tick_is_used_up_by_its_grant_or_by_the_release_after_it() {
        let with = |owner, tick, tick_use| AcquireRequest { tick: Some(Tick(tick)), tick_use, ..ask(owner) };
        let judged = |record: &Record, request| Record::acquire(Some(record), &request, NOW, 0).answer;
        let running = Record::acquire(None, &with(1, 5, TickUse::AtGrant), NOW, 0).change.unwrap();
        assert_eq!(running.last_tick, Some(Tick(5)));
        assert!(matches!(judged(&running, with(1, 5, TickUse::AtGrant)), Acquired::Granted(_)), "the call's own retry");
        assert!(matches!(judged(&running, with(2, 5, TickUse::AtGrant)), Acquired::Finished(Tick(5))));
        assert!(matches!(judged(&running, with(2, 6, TickUse::AtGrant)), Acquired::Held(_)));
        let forced = Record::force_release(Some(&running), NOW).change.unwrap();
        assert!(matches!(judged(&forced, with(2, 4, TickUse::AtRelease)), Acquired::Finished(Tick(5))));

        let retried = Record::acquire(Some(&forced), &with(2, 6, TickUse::AtRelease), NOW, 0).change.unwrap();
        assert_eq!(retried.last_tick, Some(Tick(5)));
        let mut release = ReleaseRequest::new(LockName::new("x").unwrap(), OwnerId::from_u128(2), None);
        release.done = Some(Tick(6));
        assert_eq!(Record::release(Some(&retried), &release, NOW).change.unwrap().last_tick, Some(Tick(6)));
        release.done = Some(Tick(3));
        assert_eq!(Record::release(Some(&retried), &release, NOW).change.unwrap().last_tick, Some(Tick(5)));
    }

    #[test]
    fn the_token_rises_with_each_grant_and_only_then() {
        let first = granted(None, 1, NOW);
        let again = Record::acquire(Some(&first), &ask(1), NOW, 9_000_000);
        assert!(matches!(again.answer, Acquired::Granted(grant) if grant.token == first.token), "re-entry keeps it");
        let next = granted(Some(&first), 2, NOW + TTL);
        assert_eq!(next.token.get(), first.token.get() + 1, "the wall clock stood still");
        let forced = Record::force_release(Some(&next), NOW + TTL).change.unwrap();
        assert!(granted(Some(&forced), 3, NOW + TTL).token > next.token);
    }
}
