//! What can be wrong with a list.

use std::fmt;

use super::words::Entry;

/// A breach of law 4, or of what makes the look for one mean something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The tokens fall from one entry to the next: a late write of a stale holder was accepted.
    Falls(Entry, Entry),
    /// An acknowledged entry isn't there.
    Missing(Entry),
    /// An entry is there more than once.
    Twice(Entry),
    /// Something is there that nobody attempted.
    Strange(String),
    /// An entry is there of which it was said that it isn't: it was refused, or failed as not applied.
    Denied(Entry),
    /// The second stands behind the first, though it was acknowledged before the first was attempted: so this isn't the
    /// order in which the list was written, and says nothing about tokens.
    OutOfOrder(Entry, Entry),
    /// Two writers wrote under one token, so a falling one may go unseen.
    Shared(Entry, Entry),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Falls(one, next) => write!(f, "a token falls: {next} was accepted after {one}"),
            Self::Missing(entry) => write!(f, "{entry} was acknowledged and isn't there"),
            Self::Twice(entry) => write!(f, "{entry} is there more than once"),
            Self::Strange(text) => write!(f, "{text:?} is there and was attempted by nobody"),
            Self::Denied(entry) => write!(f, "{entry} is there, and its writer was told that it isn't"),
            Self::OutOfOrder(one, next) => {
                write!(f, "{next} was acknowledged before {one} was attempted, and stands behind it")
            }
            Self::Shared(one, other) => write!(f, "{one} and {other} have the same token and different writers"),
        }
    }
}
