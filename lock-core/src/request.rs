//! What is asked of a store, and what it answers.
//!
//! Later versions may add fields: make the structures with `new` or `default`, and change a copy with `..`.

use std::{num::NonZeroU32, time::Duration};

use crate::{
    capability::{Capabilities, Fairness},
    error::{ErrorKind, StoreError},
    name::LockName,
    owner::{HolderInfo, OwnerId},
    tick::{Tick, TickUse},
    token::FencingToken,
};

/// A wish for a lock.
#[derive(Clone, Debug)]
pub struct AcquireRequest {
    /// Which lock.
    pub name: LockName,
    /// Who asks: fresh for each acquire call, the same for each retry of it.
    pub owner: OwnerId,
    /// Alone, or with others.
    pub mode: Mode,
    /// How soon others may take the lock after the holder vanishes.
    pub ttl: Duration,
    /// Who that is, for people.
    pub holder: HolderInfo,
    /// What to remember if the lock is held.
    pub waiting: Waiting,
    /// The scheduled time this grant is for, if it is for one: not to be granted once it, or a later one, was used up.
    pub tick: Option<Tick>,
    /// What uses the tick up.
    pub tick_use: TickUse,
}

/// With whom a lock can be held at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// With nobody.
    #[default]
    Exclusive,
    /// With other shared holders.
    Shared,
    /// With up to this many permits out in all.
    Permits(NonZeroU32),
}

/// What the store is to remember of an asker it refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// Nothing: the asker won't wait.
    #[default]
    No,
    /// That somebody waits, so that a release within this span wakes the watchers.
    Wake(Duration),
    /// The asker's place in the queue, kept for this span after it was last asked for.
    InLine(Duration),
}

/// The answer to an [`AcquireRequest`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Acquired {
    /// It is yours.
    Granted(Grant),
    /// It is not to be had now.
    Held(Held),
    /// Only for requests with a tick: it was used up already, and this is the last one that was (it, or a later one).
    ///
    /// Also while somebody holds the lock. Nothing changed; the asker is in no queue (any more).
    Finished(Tick),
}

/// A lock handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Rises with each grant; stays the same when the same owner asks again or renews.
    pub token: FencingToken,
    /// For how long the store keeps it, counted from no earlier than the moment the provider was asked. Not always what was asked for.
    pub ttl: Duration,
}

/// Why a lock is not to be had, as far as the store knows. All of it is a hint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Who holds it. `None` if nobody does any more but it isn't free yet (at-least-for, grace).
    pub holder: Option<HolderInfo>,
    /// How long until it may be had if nobody renews or releases it, grace included.
    pub remaining: Option<Duration>,
    /// The asker's place in the queue, the next being 0, where it stands in one.
    pub position: Option<u32>,
}

/// A wish to hold a lock for longer.
#[derive(Clone, Debug)]
pub struct RenewRequest {
    /// Which lock.
    pub name: LockName,
    /// Whose lease.
    pub owner: OwnerId,
    /// Of which grant.
    pub token: FencingToken,
    /// For how long from now.
    pub ttl: Duration,
}

/// The answer to a [`RenewRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewed {
    /// Still yours, for this long, counted as in [`Grant::ttl`]. If the store already kept a later expiry, that stays.
    Held(Duration),
    /// Not yours: expired (even if nobody took it), taken, released or deleted. It never will be again.
    Lost,
}

/// A wish to give a lock back.
#[derive(Clone, Debug)]
pub struct ReleaseRequest {
    /// Which lock.
    pub name: LockName,
    /// Whose lease or place in the queue.
    pub owner: OwnerId,
    /// Of which grant; `None` when the asker never learned it (an acquire whose outcome is unknown).
    pub token: Option<FencingToken>,
    /// For how long the lock stays taken all the same; zero to free it now. For owners that hold it: whoever may only wait in
    /// line asks for neither this nor `done`.
    pub keep_for: Duration,
    /// The tick that is used up with this, if the lease is live: for [`TickUse::AtRelease`].
    pub done: Option<Tick>,
}

/// The answer to a [`ReleaseRequest`]. Either way it isn't the owner's afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Released {
    /// It was the owner's, and no longer is.
    Released,
    /// It was not the owner's (any more); nothing changed, but that the owner waits no more, if it waited in line.
    NotHeld,
}

/// What people are told of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockStatus {
    /// Which lock.
    pub name: LockName,
    /// Whether it can be had.
    pub state: LockState,
    /// The token of its last grant, while the store has a record of it.
    pub last_token: Option<FencingToken>,
    /// How many wait for it, where the store counts them.
    pub waiters: Option<u64>,
}

/// Whether a lock can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockState {
    /// Anybody can have it.
    Free,
    /// Nobody holds it, and nobody can have it for this long (at-least-for, or the grace after an expiry).
    Resting(Duration),
    /// Somebody holds it.
    Held(Holding),
}

/// Somebody's hold of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Whose.
    pub owner: OwnerId,
    /// Under which token.
    pub token: FencingToken,
    /// How long until its lease ends if it isn't renewed.
    pub remaining: Duration,
    /// Who that is.
    pub holder: HolderInfo,
}

/// Which locks to list.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// Only names that begin so; empty for all.
    pub prefix: String,
    /// Only names after this one, in byte order: the last of the page before.
    pub after: Option<LockName>,
    /// At most so many; at least 1.
    pub limit: u32,
}

impl AcquireRequest {
    /// A plain wish: exclusive, without waiting.
    #[must_use]
    pub fn new(name: LockName, owner: OwnerId, ttl: Duration) -> Self {
        Self {
            name,
            owner,
            mode: Mode::Exclusive,
            ttl,
            holder: HolderInfo::default(),
            waiting: Waiting::No,
            tick: None,
            tick_use: TickUse::AtGrant,
        }
    }

    /// Whether its tick was used up, `last` being the last one that was.
    #[must_use]
    pub fn is_finished(&self, last: Option<Tick>) -> bool {
        self.tick.is_some_and(|tick| last.is_some_and(|last| last >= tick))
    }

    /// The tick that a grant of this wish uses up: to be recorded in the same step.
    #[must_use]
    pub fn used_by_grant(&self) -> Option<Tick> {
        self.tick.filter(|_| self.tick_use == TickUse::AtGrant)
    }

    /// What may be told of an answer if an attempt of this very call, made before it and unanswered, may have used the tick
    /// up: the store calls it finished then, and nobody may take that for somebody else's run. For providers that ask
    /// again by themselves; each answer that the call ends with goes through it.
    ///
    /// # Errors
    /// An unknown outcome, if it can't be told whether the tick was used up by this call.
    pub fn after_doubt(&self, answer: Acquired, in_doubt: bool) -> Result<Acquired, StoreError> {
        match (&answer, self.used_by_grant()) {
            (Acquired::Finished(_), Some(tick)) if in_doubt => {
                let message = format!(
                    "tick {tick} is used up, maybe by this call, whose answer was lost or came too late: it was not run by it"
                );
                Err(StoreError::unknown(ErrorKind::Other, message))
            }
            _ => Ok(answer),
        }
    }

    /// Checks the wish against what the store can do. Every provider calls it before it sends anything.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTtl`] or [`ErrorKind::Unsupported`]; nothing was sent.
    pub fn check(&self, can: &Capabilities) -> Result<(), StoreError> {
        check_ttl(self.ttl, can)?;
        check_tick(self.tick)?;
        let lacking = match self.mode {
            Mode::Shared if !can.shared => Some("shared locks"),
            Mode::Permits(_) if !can.permits => Some("semaphores"),
            _ if matches!(self.waiting, Waiting::InLine(_)) && can.fairness == Fairness::None => {
                Some("queueing in order")
            }
            _ if self.tick.is_some() && !can.ticks => Some("ticks"),
            _ => None,
        };
        lacking.map_or(Ok(()), |what| {
            Err(StoreError::refused(ErrorKind::Unsupported, format!("the {} store does not support {what}", can.store)))
        })
    }
}

impl RenewRequest {
    /// Asks for `ttl` from now on.
    #[must_use]
    pub const fn new(name: LockName, owner: OwnerId, token: FencingToken, ttl: Duration) -> Self {
        Self { name, owner, token, ttl }
    }

    /// Checks the wish against what the store can do.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTtl`]; nothing was sent.
    pub fn check(&self, can: &Capabilities) -> Result<(), StoreError> {
        check_ttl(self.ttl, can)
    }
}

impl Grant {
    /// A lock under this token, for so long.
    #[must_use]
    pub const fn new(token: FencingToken, ttl: Duration) -> Self {
        Self { token, ttl }
    }
}

impl ReleaseRequest {
    /// The longest that a lock can be kept taken after its release: 366 days.
    pub const KEEP_FOR_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

    /// Gives back what `owner` holds under `token`, now.
    #[must_use]
    pub const fn new(name: LockName, owner: OwnerId, token: Option<FencingToken>) -> Self {
        Self { name, owner, token, keep_for: Duration::ZERO, done: None }
    }

    /// Checks the wish against what the store can do.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTtl`] or [`ErrorKind::Unsupported`]; nothing was sent.
    pub fn check(&self, can: &Capabilities) -> Result<(), StoreError> {
        if self.keep_for > Self::KEEP_FOR_MAX {
            return Err(StoreError::refused(ErrorKind::InvalidTtl, "a lock can be kept taken for at most 366 days"));
        }
        check_tick(self.done)?;
        if self.done.is_some() && !can.ticks {
            return Err(StoreError::refused(
                ErrorKind::Unsupported,
                format!("the {} store does not support ticks", can.store),
            ));
        }
        Ok(())
    }
}

fn check_tick(tick: Option<Tick>) -> Result<(), StoreError> {
    if tick.is_some_and(|tick| tick > Tick::MAX) {
        let message = "a tick lies between the years 1970 and 2255, in microseconds";
        return Err(StoreError::refused(ErrorKind::InvalidTtl, message));
    }
    Ok(())
}

fn check_ttl(ttl: Duration, can: &Capabilities) -> Result<(), StoreError> {
    if ttl < can.ttl.min || ttl > can.ttl.max {
        let message = format!("a ttl of {ttl:?} can't be kept by the {} store; it takes {}", can.store, can.ttl);
        return Err(StoreError::refused(ErrorKind::InvalidTtl, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Applied;

    #[test]
    fn a_tick_that_the_call_itself_may_have_used_up_is_told_as_unknown() {
        let name = LockName::new("x").unwrap();
        let plain = AcquireRequest::new(name, OwnerId::from_u128(1), Duration::from_secs(1));
        let ticked = AcquireRequest { tick: Some(Tick(5)), ..plain.clone() };
        let retried = AcquireRequest { tick_use: TickUse::AtRelease, ..ticked.clone() };
        let finished = || Acquired::Finished(Tick(6));
        let unknown = ticked.after_doubt(finished(), true).unwrap_err();
        assert_eq!((unknown.applied(), unknown.is_transient()), (Applied::Maybe, false));
        assert!(ticked.after_doubt(finished(), false).is_ok());
        assert!(ticked.after_doubt(Acquired::Held(Held::default()), true).is_ok());
        assert!(retried.after_doubt(finished(), true).is_ok(), "its grant uses nothing up");
    }
}
