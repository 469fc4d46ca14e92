//! What can go wrong for somebody who wants a lock.

use std::{fmt, time::Duration};

use crate::{error::StoreError, name::LockName, request::Held, token::FencingToken};

/// Why work under a lock was not done, or not to its end.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else holds it, and the time to wait is over. Nothing is left in the store.
    #[error(transparent)]
    Busy(#[from] Busy),
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
