//! What the server's answers and the driver's errors mean.

use std::{error::Error, io, sync::Arc};

use lock_core::{Applied, ErrorKind, StoreError};
use redis::{ConnectionAddr, ConnectionInfo, RedisError};

use crate::door::address;

/// What to do about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The connection broke. The request may have been applied.
    Reconnect,
    /// The server is no primary; perhaps another one is by now. Not applied.
    FindPrimary,
    /// Nothing that could be done here.
    None,
}

/// By the driver's error that caused it.
pub(crate) fn remedy(error: &StoreError) -> Remedy {
    match error.source().and_then(|cause| cause.downcast_ref::<RedisError>()) {
        Some(cause) if is_no_primary(cause) => Remedy::FindPrimary,
        // After a time-out there is no time left for another attempt.
        Some(cause) if ends_connection(cause) && !cause.is_timeout() => Remedy::Reconnect,
        _ => Remedy::None,
    }
}

pub(crate) fn script_is_unknown(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// The code and the text of what a command in a script met. Before Redis 7 the server wraps it:
/// `ERR Error running script (call to f_…): @user_script: 12: -OOM command not allowed …`.
fn unwrapped<'a>(code: &'a str, said: &'a str) -> (&'a str, &'a str) {
    match said.split_once(": -") {
        Some((before, met)) if code == "ERR" && before.contains("@user_script") => {
            met.split_once(' ').unwrap_or((met, ""))
        }
        _ => (code, said),
    }
}

/// Whether a write was refused because the server is a replica.
pub(crate) fn is_no_primary(error: &RedisError) -> bool {
    answered(error).is_some_and(|code| matches!(code, "READONLY" | "MASTERDOWN"))
}

/// Whether nothing can be begun on the connection after this.
pub(crate) fn ends_connection(error: &RedisError) -> bool {
    answered(error).is_none() && !matches!(error.kind(), redis::ErrorKind::UnexpectedReturnType)
}

/// What the server itself said: its error's code.
fn answered(error: &RedisError) -> Option<&str> {
    match error.kind() {
        redis::ErrorKind::Server(_) | redis::ErrorKind::Extension => {
            error.code().map(|code| unwrapped(code, error.detail().unwrap_or_default()).0)
        }
        redis::ErrorKind::AuthenticationFailed => Some("WRONGPASS"),
        _ => None,
    }
}

/// Whether a request that failed so may have been applied.
///
/// What the server answers with an error is definite: our scripts find all that can be amiss before their first write.
fn applied(error: &RedisError) -> Applied {
    if answered(error).is_some() { Applied::No } else { Applied::Maybe }
}

/// The error of a request that was sent.
pub(crate) fn of_answer(error: RedisError) -> StoreError {
    let (kind, message) = match answered(&error) {
        Some(code) => explain(code, &error),
        None => match error.kind() {
            redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => {
                (ErrorKind::Corrupt, format!("the server's answer can't be read: {error}"))
            }
            redis::ErrorKind::ClusterConnectionNotFound => {
                (ErrorKind::Unreachable, "no node of the cluster that serves this lock can be reached".to_owned())
            }
            _ if error.is_timeout() => (ErrorKind::Timeout, "the server didn't answer in time".to_owned()),
            _ => (ErrorKind::Unreachable, format!("the connection to the server broke: {error}")),
        },
    };
    let new = if applied(&error) == Applied::No { StoreError::refused } else { StoreError::unknown };
    new(kind, message).caused_by(error)
}

/// The error of a script that isn't ours. One that ended in the middle has written what it wrote before: only what a server
/// says instead of running it, or of its first write, is definite. Some begin with a write of ours (`writes_first`).
pub(crate) fn of_script(error: StoreError, writes_first: bool) -> StoreError {
    match driver_error(&error) {
        Some(cause) if error.applied() == Applied::No && !wrote_nothing(cause, writes_first) => {
            let cause = cause.clone();
            StoreError::unknown(error.kind(), error.to_string()).caused_by(cause)
        }
        _ => error,
    }
}

/// The driver's error that is at the bottom of it.
pub(crate) fn driver_error(error: &StoreError) -> Option<&RedisError> {
    let mut cause: Option<&dyn Error> = error.source();
    while let Some(at) = cause {
        if let Some(found) = at.downcast_ref() {
            return Some(found);
        }
        cause = at.source();
    }
    None
}

/// Whether a script that ended with this has written nothing. That a server takes no writes holds for a script as a whole; that
/// its memory is full doesn't.
fn wrote_nothing(error: &RedisError, writes_first: bool) -> bool {
    const DEFINITE: [&str; 12] = [
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "CROSSSLOT",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOAUTH",
        "NOREPLICAS",
        "READONLY",
        "TRYAGAIN",
    ];
    let said = error.detail().unwrap_or_default();
    match answered(error) {
        Some("ERR") => said.starts_with("Error compiling script"),
        // A command that would take memory meets it as long as the script has written nothing, and the script may then go on
        // (`pcall`), write by commands that take none, and end with it. Where a write of ours comes first, none of the
        // caller's commands meets it. That a script wasn't begun because of it is told in the same words.
        Some("OOM") => writes_first,
        // Of a command in a script it says which script that was.
        Some("NOPERM") => !said.contains("script"),
        Some(code) => DEFINITE.contains(&code),
        None => false,
    }
}

/// The same error where the driver may have tried before, unseen: what the last attempt met says nothing of one that
/// broke off.
pub(crate) fn after_unseen_attempts(error: StoreError) -> StoreError {
    match error.applied() {
        Applied::Maybe => error,
        // It doesn't tell yet where it happened, so its text is its message.
        Applied::No => StoreError::unknown(error.kind(), error.to_string()).caused_by(error),
    }
}

/// The error of an attempt to connect to a server. Nothing was sent but a login.
pub(crate) fn of_connect(error: RedisError, server: &ConnectionInfo) -> StoreError {
    let at = address(server.addr());
    let (kind, message) = match answered(&error) {
        Some(code) => {
            let (kind, message) = explain(code, &error);
            (kind, format!("{at}: {message}"))
        }
        None if error.kind() == redis::ErrorKind::RESP3NotSupported => {
            (ErrorKind::NotReady, format!("{at}: the server doesn't know HELLO: it must be Redis 6 or newer"))
        }
        None => explain_connect(&error, &at, matches!(server.addr(), ConnectionAddr::TcpTls { .. })),
    };
    of_login(kind, message, error)
}

/// The server may quote what it was sent, and that was a password: then its own words are not passed on.
fn of_login(kind: ErrorKind, message: String, error: RedisError) -> StoreError {
    let quotes = error.to_string().contains(QUOTES_ARGUMENTS);
    let told = StoreError::refused(kind, message);
    if quotes { told } else { told.caused_by(error) }
}

/// The error of an attempt to connect to a cluster. The driver tells of several nodes at once, by their addresses.
pub(crate) fn of_cluster(error: RedisError) -> StoreError {
    let (kind, message) = match answered(&error) {
        Some(code) => explain(code, &error),
        None => {
            (ErrorKind::Unreachable, format!("no node of the cluster can be reached: {}", unquoted(&error.to_string())))
        }
    };
    of_login(kind, message, error)
}

/// How Redis begins to quote what it was sent.
const QUOTES_ARGUMENTS: &str = "with args beginning with";

/// What the server said, without what it quotes of what it was sent.
fn unquoted(said: &str) -> &str {
    said.split(QUOTES_ARGUMENTS).next().unwrap_or_default().trim_end_matches([' ', ','])
}

/// The error of a URL or of options that the driver doesn't take. Never quotes them.
pub(crate) fn of_config(error: RedisError) -> StoreError {
    let said = error.to_string();
    let reason = said.split(" - ").next().unwrap_or("an option is wrong");
    StoreError::refused(ErrorKind::InvalidConfig, format!("the URL can't be used: {reason}"))
}

fn explain_connect(error: &RedisError, at: &str, tls: bool) -> (ErrorKind, String) {
    let cause = io_cause(error);
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => (
            ErrorKind::Unreachable,
            format!("nothing listens at {at}: check that the server runs and that host and port are right"),
        ),
        Some(io::ErrorKind::NotFound) => {
            (ErrorKind::Unreachable, format!("there is no server socket at {at}: check that the server runs"))
        }
        // rustls tells what it was told and what it makes of it.
        Some(io::ErrorKind::InvalidData) if tls => {
            let said = error.to_string();
            if said.contains("InvalidContentType") || said.contains("corrupt message") {
                (
                    ErrorKind::InvalidConfig,
                    format!("{at} doesn't speak TLS: connect to its TLS port, or use redis:// to go without TLS"),
                )
            } else {
                (ErrorKind::Denied, format!("{at} didn't prove who it is: {said}"))
            }
        }
        // The resolver's errors have no kind of their own; its text says which it was.
        _ if error.to_string().contains("lookup") => {
            (ErrorKind::Unreachable, format!("the host of {at} can't be found: check its name ({error})"))
        }
        _ if tls => (
            ErrorKind::Unreachable,
            format!("{at} ended the TLS handshake: {error}; use redis:// if that port doesn't speak TLS"),
        ),
        _ => (ErrorKind::Unreachable, format!("can't connect to {at}: {error}; use rediss:// if that port speaks TLS")),
    }
}

fn io_cause(error: &RedisError) -> Option<&io::Error> {
    // The driver hands its cause out as the `Arc` that it keeps.
    error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?.downcast_ref::<io::Error>()
}

/// By the code that the server's error begins with.
fn explain(code: &str, error: &RedisError) -> (ErrorKind, String) {
    let said = unquoted(unwrapped(error.code().unwrap_or(code), error.detail().unwrap_or(code)).1);
    let (kind, message) = match code {
        "READONLY" => (ErrorKind::NotReady, "this is a read-only replica; connect to the primary".to_owned()),
        "MASTERDOWN" => {
            (ErrorKind::NotReady, "this is a replica that has lost its primary; connect to the primary".to_owned())
        }
        "OOM" => (
            ErrorKind::NotReady,
            "the server's memory is full: raise maxmemory, or remove what else is kept there".to_owned(),
        ),
        "MISCONF" => (
            ErrorKind::NotReady,
            "the server refuses writes because it can't save to its disk: look at its log and at the disk's space"
                .to_owned(),
        ),
        "NOREPLICAS" => (
            ErrorKind::Contention,
            "the server refuses writes because too few replicas follow it (min-replicas-to-write)".to_owned(),
        ),
        "LOADING" => (ErrorKind::Contention, "the server is still loading its data".to_owned()),
        "BUSY" => (ErrorKind::Contention, "the server is busy with somebody's slow script".to_owned()),
        "CROSSSLOT" => (
            ErrorKind::InvalidConfig,
            "the keys of one script must be of one slot of the cluster: put the same tag into all their names"
                .to_owned(),
        ),
        "TRYAGAIN" | "ASK" => (ErrorKind::Contention, "the cluster is moving this lock to another node".to_owned()),
        "CLUSTERDOWN" => (ErrorKind::Unreachable, format!("the cluster doesn't serve this lock now: {said}")),
        "MOVED" => (
            ErrorKind::InvalidConfig,
            "this server is a node of a cluster: connect with redis-cluster:// or a cluster client".to_owned(),
        ),
        "NOAUTH" => (ErrorKind::Denied, "the server wants a password: put it into the URL".to_owned()),
        "WRONGPASS" => (ErrorKind::Denied, "the server refused the user or the password".to_owned()),
        "NOPERM" => (ErrorKind::Denied, format!("the user may not do this: {said}; see the rights that locks need")),
        // What a script may not do, in the words of Redis 7.0 and of later versions.
        _ if said.starts_with("The user executing the script") || said.contains("ACL failure in script") => {
            let right = said.split(" script: ").next().unwrap_or(said);
            (ErrorKind::Denied, format!("the user may not do this: {right}; see the rights that locks need"))
        }
        _ if said.contains("unknown command 'HELLO'") => (
            ErrorKind::NotReady,
            "the server doesn't know HELLO: it must be Redis 6 or newer, and let us say it".to_owned(),
        ),
        _ if said.contains("max number of clients") => {
            (ErrorKind::Contention, "the server has no connection to spare (maxclients)".to_owned())
        }
        _ if said.contains("cluster support disabled") => {
            (ErrorKind::InvalidConfig, "the server is no node of a cluster: connect with redis://".to_owned())
        }
        _ if said.contains("unknown command 'SENTINEL'") => {
            (ErrorKind::InvalidConfig, "the server is no sentinel: connect with redis://".to_owned())
        }
        _ if said.contains("DB index is out of range") => {
            (ErrorKind::InvalidConfig, "the server has no database of that number".to_owned())
        }
        _ if code == "ERR" => (ErrorKind::Other, said.to_owned()),
        _ => (ErrorKind::Other, format!("{code} {said}")),
    };
    (kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap().extract_error().unwrap_err()
    }

    #[test]
    fn what_a_script_met_is_told_alike_by_all_versions() {
        for (line, kind) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::NotReady),
            ("READONLY You can't write against a read only replica.", ErrorKind::NotReady),
            ("MISCONF Redis is configured to save RDB snapshots", ErrorKind::NotReady),
            ("NOREPLICAS Not enough good replicas to write.", ErrorKind::Contention),
            ("NOPERM this user has no permissions", ErrorKind::Denied),
        ] {
            let wrapped =
                format!("ERR Error running script (call to f_0f): @user_script:79: @user_script: 79: -{line}");
            for line in [line, &wrapped] {
                let error = of_answer(told(line));
                assert_eq!((error.kind(), error.applied()), (kind, Applied::No), "{line}: {error}");
            }
            assert_eq!(is_no_primary(&told(&wrapped)), line.starts_with("READONLY"));
        }
    }

    #[test]
    fn only_what_the_server_said_is_definite() {
        for (line, kind) in [
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Contention),
            ("MASTERDOWN Link with MASTER is down", ErrorKind::NotReady),
            ("CLUSTERDOWN The cluster is down", ErrorKind::Unreachable),
            ("MOVED 1 127.0.0.1:7000", ErrorKind::InvalidConfig),
            ("BUSY Redis is busy running a script.", ErrorKind::Contention),
            ("SOMETHING new", ErrorKind::Other),
        ] {
            let error = of_answer(told(line));
            assert_eq!((error.kind(), error.applied()), (kind, Applied::No), "{error}");
            assert_eq!(remedy(&error) == Remedy::FindPrimary, line.starts_with("MASTERDOWN"));
        }
        let broken = of_answer(io::Error::from(io::ErrorKind::ConnectionReset).into());
        assert_eq!((broken.kind(), broken.applied()), (ErrorKind::Unreachable, Applied::Maybe));
        assert_eq!(remedy(&broken), Remedy::Reconnect);
        let late = of_answer(io::Error::from(io::ErrorKind::TimedOut).into());
        assert_eq!((late.kind(), late.applied(), remedy(&late)), (ErrorKind::Timeout, Applied::Maybe, Remedy::None));
    }
}
