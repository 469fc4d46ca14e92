//! What can go wrong for somebody who wants a lock.

use std::{fmt, time::Duration};

use crate::{error::StoreError, name::LockName, request::Held, tick::Tick, token::FencingToken};

/// Why work under a lock was not done, or not to its end.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else holds it, and the time to wait is over. Nothing is left in the store.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The tick that was asked for was run before, or is being run. Nothing is left in the store.
    #[error(transparent)]
    Finished(#[from] Finished),
    /// The lease ended before the work did. What the work had done by then is done.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The store failed. Whether the request may have been applied, it says itself; if it may, a release was sent after it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The lock was not to be had in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Busy {
    /// Which lock.
    pub name: LockName,
    /// What the store said of it last; a hint. Empty if others of this client stood in line before, and it wasn't asked.
    pub held: Held,
    /// How long it was waited for.
    pub waited: Duration,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.held.holder {
            Some(holder) => write!(f, "\"{}\" is held by {holder}", self.name)?,
            None => write!(f, "\"{}\" can't be had now", self.name)?,
        }
        if !self.waited.is_zero() {
            write!(f, "; gave up after {:.1?}", self.waited)?;
        }
        Ok(())
    }
}

/// A tick was used up already: it was run, or is being run, or its run was cut short and isn't to be repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tick {tick} of \"{name}\" was used up already; the last was {last}")]
pub struct Finished {
    /// Of which lock.
    pub name: LockName,
    /// The tick that was asked for.
    pub tick: Tick,
    /// The last one that was used up: it, or a later one.
    pub last: Tick,
}

/// What became of work that is left to somebody else if the lock isn't to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a skipped run is not an error, and says why it didn't run"]
pub enum Outcome<T> {
    /// It ran to its end under the lock, and this is what it gave.
    Ran(T),
    /// It didn't run at all.
    Skipped(Skipped),
}

/// Why work was left to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Skipped {
    /// Somebody else holds the lock.
    Held(Busy),
    /// The tick was used up already.
    Finished(Finished),
}

impl<T> Outcome<T> {
    /// What the work gave, if it ran.
    pub fn ran(self) -> Option<T> {
        match self {
            Self::Ran(value) => Some(value),
            Self::Skipped(_) => None,
        }
    }

    /// Why it didn't run, if it didn't.
    pub fn skipped(&self) -> Option<&Skipped> {
        match self {
            Self::Ran(_) => None,
            Self::Skipped(why) => Some(why),
        }
    }

    /// The same, of what `change` makes of the value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Ran(value) => Outcome::Ran(change(value)),
            Self::Skipped(why) => Outcome::Skipped(why),
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(busy) => busy.fmt(f),
            Self::Finished(finished) => finished.fmt(f),
        }
    }
}

impl From<Skipped> for LockError {
    fn from(why: Skipped) -> Self {
        match why {
            Skipped::Held(busy) => Self::Busy(busy),
            Skipped::Finished(finished) => Self::Finished(finished),
        }
    }
}

/// A lease ended without a release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease of \"{name}\" (token {token}) was lost: {reason}")]
pub struct Lost {
    /// Of which lock.
    pub name: LockName,
    /// Under which token it was held. A resource that is fenced refuses it as soon as the next holder has written.
    pub token: FencingToken,
    /// Why.
    pub reason: LossReason,
}

/// Why a lease ended without a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LossReason {
    /// The deadline passed without an acknowledged renewal: the store was out of reach, or this process stood still.
    #[error("no renewal was acknowledged before its deadline")]
    Expired,
    /// The store says that it isn't ours any more: forced, deleted, taken over, or expired there.
    #[error("the store no longer has it as ours")]
    NotOurs,
    /// It was given back: only [`Lease::check`](crate::Lease::check) tells it, to work that outlived its lease.
    #[error("it was given back")]
    Released,
    /// Its at-most-for is over.
    #[error("its at-most-for is over")]
    AtMostFor,
}
