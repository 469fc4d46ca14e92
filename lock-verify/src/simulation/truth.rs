//! What is true of one lock at the store, kept apart from the store's own record: by it the store's answers are judged.

use lock_core::{
    AcquireRequest, Acquired, LockName, LockState, LockStatus, OwnerId, ReleaseRequest, Released, RenewRequest,
    Renewed, Tick, Watch,
};

use super::chance::nanos;

/// A lock.
pub(super) struct Lock {
    pub(super) name: LockName,
    /// All grants, in their order.
    pub(super) grants: Vec<Granted>,
    /// Whose it is, under which token; nobody's after a release that keeps it taken.
    holder: Option<(OwnerId, u64)>,
    /// Until when it is taken, on the store's clock.
    until: u64,
    last_tick: Option<Tick>,
    /// Since when, in true time, it can be had because it was given back or taken away.
    pub(super) freed: Option<u64>,
    /// The store's own wake-ups for it.
    pub(super) watch: Option<Watch>,
    /// Holds that may be believed in still.
    pub(super) holds: Vec<usize>,
}

/// A grant that the store made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) owner: OwnerId,
    pub(super) token: u64,
    /// In true time.
    pub(super) at: u64,
    /// Whether it was taken away: its holder may believe on, by the contract.
    pub(super) revoked: bool,
}

/// A law and how it was broken.
pub(super) type Broken = (&'static str, String);

fn broken<T>(law: &'static str, what: String) -> Result<T, Broken> {
    Err((law, what))
}

impl Lock {
    pub(super) fn new(name: LockName, watch: Option<Watch>) -> Self {
        let (grants, holds) = (Vec::new(), Vec::new());
        Self { name, grants, holder: None, until: 0, last_tick: None, freed: Some(0), watch, holds }
    }

    fn taken(&self, now: u64) -> bool {
        self.until > now
    }

    fn is_held_by(&self, owner: OwnerId, token: Option<u64>, now: u64) -> bool {
        let holds = |(holder, of): (OwnerId, u64)| holder == owner && token.is_none_or(|token| token == of);
        self.taken(now) && self.holder.is_some_and(holds)
    }

    /// Whether this grant is the one that stands.
    pub(super) fn is_had_by(&self, grant: &Granted, now: u64) -> bool {
        self.is_held_by(grant.owner, Some(grant.token), now)
    }

    /// Until when it is taken, on the store's clock.
    pub(super) fn until(&self) -> u64 {
        self.until
    }

    /// Judges what the store said to an acquire; whether it is a new grant.
    pub(super) fn acquired(
        &mut self,
        request: &AcquireRequest,
        answer: &Acquired,
        now: u64,
        at: u64,
    ) -> Result<bool, Broken> {
        let (mine, name) = (self.is_held_by(request.owner, None, now), &self.name);
        let until = now + nanos(request.ttl);
        match answer {
            Acquired::Granted(grant) if mine => {
                let held = self.holder.map_or(0, |(_, token)| token);
                if grant.token.get() != held {
                    return broken("L3", format!("{name}: asked again under {held}, {} was given", grant.token));
                }
                self.until = self.until.max(until);
                Ok(false)
            }
            Acquired::Granted(grant) => {
                if self.taken(now) {
                    let left = (self.until - now) as f64 / 1e6;
                    let what = format!("{name}: granted under {}, though taken for {left:.3} ms more", grant.token);
                    return broken("L1", what);
                }
                if let Some(last) = self.grants.last().filter(|last| last.token >= grant.token.get()) {
                    return broken("L2", format!("{name}: token {} was followed by {}", last.token, grant.token));
                }
                if request.is_finished(self.last_tick) {
                    return broken("L2", format!("{name}: {:?} granted, used up {:?}", request.tick, self.last_tick));
                }
                self.last_tick = self.last_tick.max(request.used_by_grant());
                self.holder = Some((request.owner, grant.token.get()));
                self.until = until;
                self.grants.push(Granted { owner: request.owner, token: grant.token.get(), at, revoked: false });
                Ok(true)
            }
            Acquired::Finished(last) if !mine && Some(*last) == self.last_tick && request.tick <= Some(*last) => {
                Ok(false)
            }
            Acquired::Held(_) if !mine && self.taken(now) && !request.is_finished(self.last_tick) => Ok(false),
            answer => broken("L7", format!("{name}: {answer:?} to {}, though it could have been had", request.owner)),
        }
    }

    /// Judges what the store said to a renewal.
    pub(super) fn renewed(&mut self, request: &RenewRequest, answer: Renewed, now: u64) -> Result<(), Broken> {
        let (owner, token) = (request.owner, request.token);
        match (answer, self.is_held_by(owner, Some(token.get()), now)) {
            (Renewed::Held(_), true) => self.until = self.until.max(now + nanos(request.ttl)),
            (Renewed::Lost, false) => {}
            (answer, holds) => {
                let what = format!("{}: {answer:?} to the renewal of {token} by {owner}: holds is {holds}", self.name);
                return broken("L5", what);
            }
        }
        Ok(())
    }

    /// Judges what the store said to a release.
    pub(super) fn released(
        &mut self,
        request: &ReleaseRequest,
        answer: Released,
        now: u64,
        at: u64,
    ) -> Result<(), Broken> {
        let (owner, token) = (request.owner, request.token);
        match (answer, self.is_held_by(owner, token.map(|token| token.get()), now)) {
            (Released::Released, true) => {
                self.holder = None;
                self.until = now + nanos(request.keep_for);
                self.last_tick = self.last_tick.max(request.done);
                self.freed = request.keep_for.is_zero().then_some(at);
            }
            (Released::NotHeld, false) => {}
            (answer, holds) => {
                let what =
                    format!("{}: {answer:?} to the release of {token:?} by {owner}: holds is {holds}", self.name);
                return broken("L5", what);
            }
        }
        Ok(())
    }

    /// It was taken away, or its record deleted, ticks included.
    pub(super) fn taken_away(&mut self, now: u64, at: u64, deleted: bool) {
        if self.taken(now)
            && self.holder.is_some()
            && let Some(last) = self.grants.last_mut()
        {
            last.revoked = true;
        }
        if self.taken(now) {
            self.freed = Some(at);
        }
        self.holder = None;
        self.until = self.until.min(now);
        if deleted {
            self.last_tick = None;
        }
    }

    /// Judges the store's record: nothing but what was asked for has changed it.
    pub(super) fn recorded(&self, status: Option<&LockStatus>, now: u64) -> Result<(), Broken> {
        let fits = match (status.map(|status| &status.state), self.holder) {
            (None | Some(LockState::Free), _) => !self.taken(now),
            (Some(LockState::Resting(left)), None) => self.taken(now) && nanos(*left) == self.until - now,
            (Some(LockState::Held(held)), Some((owner, token))) => {
                let same = held.owner == owner && held.token.get() == token;
                same && self.taken(now) && nanos(held.remaining) == self.until - now
            }
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let should = (self.holder, self.until.saturating_sub(now));
        broken("L5", format!("{}: the record is {:?} and should be {should:?}", self.name, status.map(|s| &s.state)))
    }
}
