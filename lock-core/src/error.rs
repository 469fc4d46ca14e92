//! What can go wrong at a store.

use std::{error::Error, fmt, sync::Arc};

use crate::name::LockName;

/// An operation that failed: what happened, whether it may have been applied, and where.
///
/// A lock that somebody else holds is not an error but a value ([`Acquired::Held`](crate::Acquired::Held)).
/// Messages never hold the credentials of a connection URL.
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: ErrorKind,
    applied: Applied,
    message: String,
    store: Option<&'static str>,
    operation: Option<Operation>,
    lock: Option<LockName>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The lock's name breaks a rule of [`LockName`]. Use another name.
    InvalidName,
    /// The store can't keep this time; the message gives the range. Ask for one within it.
    InvalidTtl,
    /// The URL or an option can't be understood. Correct it.
    InvalidConfig,
    /// The store, as configured now, can't do what was asked (see [`Capabilities`](crate::Capabilities)).
    Unsupported,
    /// No connection could be had, or it broke. Try again when the store is back.
    Unreachable,
    /// No answer came in time. Try again.
    Timeout,
    /// The store is there and too busy for this request just now. Try again.
    Contention,
    /// The store refused the credentials or the right to do this. Correct them, or ask its administrator.
    Denied,
    /// The store is there but isn't set up for locks: a missing schema, a read-only file. The message says what to do.
    NotReady,
    /// The store returned what no version of this crate writes. Something else writes there.
    Corrupt,
    /// Anything else; the source says more.
    Other,
}

/// Whether a failed request may have taken effect at the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Applied {
    /// It did not and never will.
    No,
    /// Unknown: the request left and no trustworthy answer came back.
    Maybe,
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of the operations")]
pub enum Operation {
    Connect,
    Acquire,
    Renew,
    Release,
    Watch,
    Inspect,
    List,
    ForceRelease,
    Fence,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Acquire => "acquire",
            Self::Renew => "renew",
            Self::Release => "release",
            Self::Watch => "watch",
            Self::Inspect => "inspect",
            Self::List => "list",
            Self::ForceRelease => "force release",
            Self::Fence => "fence",
        })
    }
}

impl StoreError {
    /// A failure that definitely changed nothing at the store.
    #[must_use]
    pub fn refused(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, Applied::No, message)
    }

    /// A failure after which the request may have been applied.
    #[must_use]
    pub fn unknown(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, Applied::Maybe, message)
    }

    fn new(kind: ErrorKind, applied: Applied, message: impl Into<String>) -> Self {
        Self { kind, applied, message: message.into(), store: None, operation: None, lock: None, source: None }
    }

    /// Says where it happened. A place that was already named stays.
    #[must_use]
    pub fn at(mut self, store: &'static str, operation: Operation, lock: Option<&LockName>) -> Self {
        self.store.get_or_insert(store);
        self.operation.get_or_insert(operation);
        self.lock = self.lock.or_else(|| lock.cloned());
        self
    }

    /// Adds the driver's own error. Its message must not hold credentials.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// What kind of failure it was.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the request may have been applied.
    #[must_use]
    pub const fn applied(&self) -> Applied {
        self.applied
    }

    /// The store it happened at, if it got that far.
    #[must_use]
    pub const fn store(&self) -> Option<&'static str> {
        self.store
    }

    /// What was being done.
    #[must_use]
    pub const fn operation(&self) -> Option<Operation> {
        self.operation
    }

    /// Which lock it was about.
    #[must_use]
    pub const fn lock(&self) -> Option<&LockName> {
        self.lock.as_ref()
    }

    /// Whether the same request may well succeed later, with nothing changed by a person.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Contention)
    }
}

impl fmt::Display for StoreError {
    /// One line: `postgres: acquire of "x": the server closed the connection (it may have been applied)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(store) = self.store {
            write!(f, "{store}: ")?;
        }
        match (self.operation, &self.lock) {
            (Some(operation), Some(lock)) => write!(f, "{operation} of \"{lock}\": ")?,
            (Some(operation), None) if operation != Operation::Connect => write!(f, "{operation}: ")?,
            _ => {}
        }
        f.write_str(&self.message)?;
        if self.applied == Applied::Maybe {
            f.write_str(" (it may have been applied)")?;
        }
        Ok(())
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_where_and_whether_it_may_have_happened() {
        let lock = LockName::new("x").unwrap();
        let error = StoreError::unknown(ErrorKind::Timeout, "no answer within 2s").at(
            "postgres",
            Operation::Acquire,
            Some(&lock),
        );
        assert_eq!(error.to_string(), "postgres: acquire of \"x\": no answer within 2s (it may have been applied)");
        assert!(error.is_transient());
        let error = error.at("other", Operation::Renew, None);
        assert_eq!(
            (error.store(), error.operation()),
            (Some("postgres"), Some(Operation::Acquire)),
            "the first place stays"
        );
    }
}
