//! What went wrong, whether it may have happened, and what to do about it.

use std::{error::Error, fmt, time::Duration};

use etcd_client::Error as DriverError;
use lock_core::{Applied, ErrorKind, StoreError};

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Driver(DriverError),
    /// No answer came in time.
    Silent(Duration),
    /// No connection could be made in time.
    Unconnected(Duration),
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

/// What may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The same again, at another server.
    Reconnect,
    /// The same again, later.
    TryAgain,
    None,
}

/// The numbers of gRPC's status codes that are told apart here.
mod code {
    pub(super) const CANCELLED: i32 = 1;
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const DEADLINE_EXCEEDED: i32 = 4;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

impl Failure {
    /// The status that the server, or the connection, ended the request with.
    fn status(&self) -> Option<(i32, &str)> {
        match self {
            Self::Driver(DriverError::GRpcStatus(status)) => Some((i32::from(status.code()), status.message())),
            _ => None,
        }
    }

    fn says(&self, words: &str) -> bool {
        self.status().is_some_and(|(_, message)| message.contains(words))
    }

    /// Whether the lease that the request names isn't there.
    pub(crate) fn lease_is_gone(&self) -> bool {
        self.says("requested lease not found")
    }

    /// Whether there is a lease of that number already.
    pub(crate) fn lease_is_there_already(error: &DriverError) -> bool {
        matches!(error, DriverError::GRpcStatus(status) if status.message().contains("lease already exists"))
    }

    /// The causes below the status, down to the socket's.
    fn connecting(&self) -> Option<&(dyn Error + 'static)> {
        let Self::Driver(error) = self else { return None };
        let mut cause: &(dyn Error + 'static) = match error {
            DriverError::GRpcStatus(status) => status,
            DriverError::TransportError(error) => error,
            _ => return None,
        };
        while let Some(next) = cause.source() {
            let words = next.to_string();
            if words.contains("tcp connect error") || words.contains("dns error") || words.contains("invalid peer cert")
            {
                return Some(next);
            }
            cause = next;
        }
        None
    }

    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Silent(_) | Self::Unconnected(_) => Remedy::Reconnect,
            Self::Driver(DriverError::TransportError(_) | DriverError::IoError(_)) => Remedy::Reconnect,
            Self::Driver(DriverError::LeaseKeepAliveError(_) | DriverError::WatchError(_)) => Remedy::Reconnect,
            Self::Driver(_) => match self.status() {
                Some((code::RESOURCE_EXHAUSTED, said)) if said.contains("too many requests") => Remedy::TryAgain,
                Some((code::UNAVAILABLE | code::CANCELLED | code::DEADLINE_EXCEEDED | code::UNAUTHENTICATED, _)) => {
                    Remedy::Reconnect
                }
                // The transport's own, and etcd's for what it has no code for ("etcdserver: leader changed" is Unavailable).
                Some((2 | 13, said)) if !said.starts_with("etcdserver") => Remedy::Reconnect,
                // A token whose time is over, or that is older than a change of the users; 3.4 tells it so.
                Some((_, said)) if said.contains("invalid auth token") || said.contains("auth store is old") => {
                    Remedy::Reconnect
                }
                _ => Remedy::None,
            },
        }
    }

    /// Whether a request that writes may have been applied.
    pub(crate) fn applied(&self) -> Applied {
        let refused = match self {
            Self::Unconnected(_) => true,
            Self::Silent(_) => false,
            Self::Driver(DriverError::InvalidArgs(_) | DriverError::InvalidUri(_)) => true,
            Self::Driver(_) => {
                self.connecting().is_some()
                    // Said before a request is handled: it was asked for with the request.
                    || self.says("etcdserver: no leader")
                    // "database space exceeded" is also said of what was written all the same (etcd's quotaApplierV3).
                    || self.says("too many requests")
                    || matches!(
                        self.status(),
                        Some((
                            code::INVALID_ARGUMENT
                                | code::NOT_FOUND
                                | code::PERMISSION_DENIED
                                | code::FAILED_PRECONDITION
                                | code::UNIMPLEMENTED
                                | code::UNAUTHENTICATED,
                            _
                        ))
                    )
            }
        };
        if refused { Applied::No } else { Applied::Maybe }
    }
}

/// The error of a request that writes.
pub(crate) fn of_writing(failure: Failure) -> StoreError {
    let new = if failure.applied() == Applied::No { StoreError::refused } else { StoreError::unknown };
    let (kind, message) = explain(&failure);
    new(kind, message).caused_by(Cause(failure))
}

/// The error of a request that changes no lock: it can't have been applied.
pub(crate) fn of_reading(failure: Failure) -> StoreError {
    let (kind, message) = explain(&failure);
    StoreError::refused(kind, message).caused_by(Cause(failure))
}

/// Whether the store says that the lease of what was written isn't there.
pub(crate) fn lease_is_gone(error: &StoreError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<Cause>());
    cause.is_some_and(|Cause(failure)| failure.lease_is_gone())
}

/// The driver's own error. It holds no credentials: the driver keeps them out of its errors.
#[derive(Debug)]
struct Cause(Failure);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Failure::Driver(error) => f.write_str(&one_line(&error.to_string())),
            Failure::Silent(limit) => write!(f, "no answer within {limit:?}"),
            Failure::Unconnected(limit) => write!(f, "no connection within {limit:?}"),
        }
    }
}

impl Error for Cause {}

fn explain(failure: &Failure) -> (ErrorKind, String) {
    match failure {
        Failure::Silent(limit) => (
            ErrorKind::Timeout,
            format!("no answer came within {limit:.1?}: a majority of the members must run and see each other"),
        ),
        Failure::Unconnected(limit) => (ErrorKind::Unreachable, format!("no connection came about within {limit:.1?}")),
        Failure::Driver(error) => match (failure.status(), failure.connecting()) {
            (_, Some(cause)) => (ErrorKind::Unreachable, unreachable_because(cause)),
            (Some((code, said)), None) => explain_status(code, said),
            (None, None) => match error {
                DriverError::InvalidArgs(said) => (ErrorKind::InvalidConfig, one_line(said)),
                DriverError::InvalidUri(_) | DriverError::EndpointError(_) => {
                    (ErrorKind::InvalidConfig, "a host of the URL can't be understood".to_owned())
                }
                DriverError::TransportError(error) => (ErrorKind::Unreachable, broke(&chain(error))),
                _ => (ErrorKind::Unreachable, broke(&chain(error))),
            },
        },
    }
}

fn unreachable_because(cause: &(dyn Error + 'static)) -> String {
    let words = chain(cause);
    if words.contains("Connection refused") {
        return "no server listens there (connection refused)".to_owned();
    }
    if words.contains("dns error") {
        return format!("the server's name can't be looked up: {words}");
    }
    format!("no server could be reached: {words}")
}

/// By gRPC's number and etcd's words (its `rpctypes/error.go`).
fn explain_status(code: i32, said: &str) -> (ErrorKind, String) {
    let said = one_line(said);
    let said = said.trim_start_matches("etcdserver: ");
    match code {
        code::PERMISSION_DENIED => {
            let grant = "grant the user's role readwrite on all keys that begin with the prefix";
            (ErrorKind::Denied, format!("the user may not do this ({said}): {grant}"))
        }
        code::INVALID_ARGUMENT if said.contains("authentication failed") => {
            (ErrorKind::Denied, "the server refused the user or the password".to_owned())
        }
        code::INVALID_ARGUMENT if said.contains("user name is empty") || said.contains("user name not found") => {
            (ErrorKind::Denied, "the server wants a user and a password: etcd://user:password@host".to_owned())
        }
        code::FAILED_PRECONDITION if said.contains("authentication is not enabled") => (
            ErrorKind::Denied,
            "the server knows no users, its authentication is off: leave user and password out of the URL".to_owned(),
        ),
        code::INVALID_ARGUMENT if said.contains("too many operations") => (
            ErrorKind::NotReady,
            "the server takes fewer operations at once (its max-txn-ops): tell the builder how many, or send fewer"
                .to_owned(),
        ),
        code::INVALID_ARGUMENT if said.contains("duplicate key") => (
            ErrorKind::Other,
            "one transaction may write a key only once; a fenced write's operations may not touch its register"
                .to_owned(),
        ),
        code::UNAUTHENTICATED => (ErrorKind::Denied, format!("the server refused the login: {said}")),
        code::RESOURCE_EXHAUSTED if said.contains("too many requests") => {
            (ErrorKind::Contention, "the server has too much to do: too many requests".to_owned())
        }
        code::RESOURCE_EXHAUSTED => {
            let what = "compact and defragment it, and disarm its alarm";
            (ErrorKind::NotReady, format!("the server takes no writes ({said}): {what}"))
        }
        code::UNIMPLEMENTED => {
            (ErrorKind::NotReady, format!("what answers there isn't etcd, or none of version 3.4 or later ({said})"))
        }
        code::UNAVAILABLE | code::DEADLINE_EXCEEDED | code::CANCELLED
            if ["no leader", "leader changed", "timed out", "leader failure", "lost leader", "stopped"]
                .iter()
                .any(|words| said.contains(words)) =>
        {
            let check = "check that a majority of the members runs and sees each other";
            (ErrorKind::Unreachable, format!("no majority answered ({said}): {check}"))
        }
        code::UNAVAILABLE | code::CANCELLED => (ErrorKind::Unreachable, broke(said)),
        code::DEADLINE_EXCEEDED => (ErrorKind::Timeout, format!("it took too long: {said}")),
        2 | 13 if said.contains("h2 protocol") || said.contains("transport") => (ErrorKind::Unreachable, broke(said)),
        _ => (ErrorKind::Other, format!("the server refused it: {said} (code {code})")),
    }
}

/// A connection that there was, or that never came to a first answer.
fn broke(said: &str) -> String {
    let at_once = ["tls", "handshake", "h2 protocol", "frame"].iter().any(|word| said.contains(word));
    let check = if at_once {
        "; check the port, and whether both sides use TLS"
    } else if said.contains("reset by peer") {
        // A server that is spoken to in another language may say nothing but this.
        "; if it never held, check the port, and whether both sides use TLS"
    } else {
        ""
    };
    format!("the connection to the server broke: {said}{check}")
}

/// An error's words and those of its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = one_line(&next.to_string());
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = next.source();
    }
    words
}

pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn corrupt(message: &str) -> StoreError {
    StoreError::unknown(ErrorKind::Corrupt, message)
}
