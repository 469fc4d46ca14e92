//! Why a write was refused.

use std::fmt;

use super::resource::Resource;
use crate::{
    error::{Applied, StoreError},
    name::LockName,
    request::Mode,
    token::FencingToken,
};

/// A fenced write that was not done.
///
/// But for [`Store`](Self::Store) nothing was written: neither the data nor the register.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FenceError {
    /// The resource has seen a later grant: the lease that the write was made under is over.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The resource is fenced by another lock, whose tokens can't be compared with this one.
    #[error(transparent)]
    OtherLock(#[from] OtherLock),
    /// The store that keeps the lock says that this grant holds it no more.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// What was given as a fence is none.
    #[error(transparent)]
    Invalid(#[from] InvalidFence),
    /// The store failed. Whether the write may have been done, it says itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FenceError {
    /// Whether the check itself said no, and would say it again: the holder is to stop.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        !matches!(self, Self::Store(_))
    }

    /// Why the check said no, for whoever counts it; `None` if it is the store that failed.
    #[must_use]
    pub fn reason(&self) -> Option<RefusalReason> {
        match self {
            Self::Stale(stale) if stale.token == stale.highest => Some(RefusalReason::Used),
            Self::Stale(_) => Some(RefusalReason::Stale),
            Self::OtherLock(_) => Some(RefusalReason::OtherLock),
            Self::NotHeld(_) => Some(RefusalReason::NotHeld),
            Self::Invalid(_) => Some(RefusalReason::Invalid),
            Self::Store(_) => None,
        }
    }

    /// Whether something may have been written all the same.
    #[must_use]
    pub const fn applied(&self) -> Applied {
        match self {
            Self::Store(error) => error.applied(),
            _ => Applied::No,
        }
    }
}

/// Why a check said no, without what it said of the lock: see [`FenceError::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// A later grant was seen: [`FenceError::Stale`].
    Stale,
    /// This very grant was seen, where each passes once: [`FenceError::Stale`] too, but nobody is late.
    Used,
    /// [`FenceError::OtherLock`].
    OtherLock,
    /// [`FenceError::NotHeld`].
    NotHeld,
    /// [`FenceError::Invalid`].
    Invalid,
}

/// A write came with a token below the highest that its resource has seen; or with that very one, where each passes once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Stale {
    /// What was to be written.
    pub resource: Resource,
    /// Of which lock the tokens are.
    pub lock: LockName,
    /// With which one it came.
    pub token: FencingToken,
    /// The highest that was seen.
    pub highest: FencingToken,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, lock, token, highest } = self;
        write!(f, "refused at \"{resource}\": token {token} of \"{lock}\" ")?;
        if token == highest {
            f.write_str("was used already, and each passes once here")
        } else {
            write!(f, "is stale, {highest} was seen; somebody else holds the lock, or did")
        }
    }
}

/// A write came with a token of another lock than the one that its resource is fenced by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "refused at \"{resource}\": it is fenced by \"{fenced_by}\", and tokens of \"{lock}\" can't be compared with that lock's; \
     write under the right lock, or forget the fence if the resource has changed locks"
)]
pub struct OtherLock {
    /// What was to be written.
    pub resource: Resource,
    /// The lock that fences it.
    pub fenced_by: LockName,
    /// The lock that the write came with.
    pub lock: LockName,
}

/// The store says that a grant holds its lock no more: it has ended, or was never made there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused: the grant of \"{lock}\" with token {token} doesn't hold it any more")]
pub struct NotHeld {
    /// Which lock.
    pub lock: LockName,
    /// Of which grant.
    pub token: FencingToken,
}

/// What was given as a fence, or as its token, is none. The message says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFence(String);

impl InvalidFence {
    pub(super) fn token(text: &str) -> Self {
        Self(format!("not a fencing token: {}; tokens are whole numbers from 1 to {}", shown(text), FencingToken::MAX))
    }

    pub(super) fn form(text: &str) -> Self {
        Self(format!("not a fence: {}; a fence reads TOKEN@LOCK, as in 1764328000123456@invoice-42", shown(text)))
    }

    pub(super) fn lock(error: &StoreError) -> Self {
        Self(format!("not a fence: {error}"))
    }

    /// Several may hold such a lease at once, so its token says nothing about which write comes last.
    pub(crate) fn mode(lock: &LockName, mode: Mode) -> Self {
        let kind = match mode {
            Mode::Exclusive => "an exclusive lease",
            Mode::Shared => "a shared lease",
            Mode::Permits(_) => "a permit of a semaphore",
        };
        Self(format!(
            "{kind} of \"{lock}\" fences nothing: others hold it at the same time; write under an exclusive lock"
        ))
    }
}

/// Untrusted text as a message may show it.
fn shown(text: &str) -> String {
    const MOST: usize = 40;
    let cut: String = text.chars().take(MOST).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}
