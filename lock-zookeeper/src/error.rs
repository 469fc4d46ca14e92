//! What went wrong, in the project's words.

use std::time::Duration;

use lock_core::{Applied, ErrorKind, StoreError};
use zookeeper_client::Error;

/// Why a request has no good answer.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// The server or the driver said so.
    Said(Error),
    /// Nothing was said in this time.
    Silent(Duration),
    /// What is kept at the server makes no sense: where, and what to do.
    Corrupt(String),
    /// The node of a lock's ticks, which this is, or its parent may not be read or written.
    TickDenied(String),
    /// What is to be told as it is.
    Told(StoreError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Said(error)
    }
}

impl Trouble {
    /// The node that was meant, or its parent, isn't there.
    pub(crate) fn is_no_node(&self) -> bool {
        matches!(self, Self::Said(Error::NoNode))
    }

    /// The session has ended, and with it everything it kept.
    pub(crate) fn is_session_over(&self) -> bool {
        matches!(
            self,
            Self::Said(Error::SessionExpired | Error::SessionMoved | Error::ClientClosed | Error::AuthFailed)
        )
    }

    /// The connection broke; the session may go on over another.
    pub(crate) fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Said(Error::ConnectionLoss | Error::Custom(_)))
    }

    /// The driver's task doesn't answer any more: the runtime is gone in which the session was opened, or it failed.
    pub(crate) fn is_driver_gone(&self) -> bool {
        matches!(self, Self::Said(Error::UnexpectedError(_)))
    }

    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Said(Error::NoAuth))
    }

    /// Nothing can be granted until somebody has set it right: a place in line would be in the way of others.
    pub(crate) fn is_hopeless(&self) -> bool {
        matches!(self, Self::Corrupt(_) | Self::TickDenied(_))
    }

    /// What went wrong where the node of a lock's ticks was meant.
    pub(crate) fn of_tick(self, path: &str) -> Self {
        if self.is_denied() { Self::TickDenied(path.to_owned()) } else { self }
    }

    /// No answer came in time.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Silent(_))
    }

    /// As an error of ours. `path` is what was to be read or written, `applied` what is to be said if nothing is known.
    pub(crate) fn told(self, path: &str, applied: Applied) -> StoreError {
        let new = |kind, applied, message| match applied {
            Applied::No => StoreError::refused(kind, message),
            Applied::Maybe => StoreError::unknown(kind, message),
        };
        let error = match self {
            Self::Silent(limit) => {
                return new(ErrorKind::Timeout, applied, format!("no answer within {limit:?}"));
            }
            Self::Corrupt(message) => return new(ErrorKind::Corrupt, applied, message),
            Self::TickDenied(path) => return Self::Said(Error::NoAuth).told(&path, applied),
            Self::Told(error) => return error,
            Self::Said(error) => error,
        };
        let (kind, message) = match &error {
            Error::NoAuth | Error::AuthFailed => {
                (ErrorKind::Denied, format!("not allowed at {path}: check user and password, or the node's ACL"))
            }
            Error::NoNode => (ErrorKind::NotReady, format!("{path} isn't there")),
            Error::QuotaExceeded => (ErrorKind::NotReady, format!("the quota of {path} is used up")),
            Error::Throttled => (ErrorKind::Contention, "the server is overloaded".to_owned()),
            Error::SessionExpired | Error::SessionMoved | Error::ClientClosed => {
                (ErrorKind::Unreachable, "the session ended".to_owned())
            }
            Error::UnexpectedError(_) => {
                (ErrorKind::Unreachable, "the session ended with the runtime in which it was opened".to_owned())
            }
            Error::ConnectionLoss | Error::Custom(_) => (ErrorKind::Unreachable, "the connection broke".to_owned()),
            Error::Timeout | Error::NoHosts => (ErrorKind::Unreachable, "no server let a session in".to_owned()),
            Error::UnmarshalError { .. } => (ErrorKind::Corrupt, "an answer can't be read".to_owned()),
            Error::Unimplemented => (ErrorKind::NotReady, "the server is too old: it needs ZooKeeper 3.5.3".to_owned()),
            Error::NotReadOnly => (ErrorKind::NotReady, "the server is read-only".to_owned()),
            other => (ErrorKind::Other, format!("the server refused: {other}")),
        };
        new(kind, applied, message).caused_by(error)
    }
}
