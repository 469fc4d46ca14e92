//! What the server's answers and the driver's errors mean.

use std::io;

use lock_core::{Applied, ErrorKind, StoreError};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// `lock_timeout` ran out.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";

const UNDEFINED_COLUMN: &str = "42703";

/// What to do about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The connection broke, or the server is ending it. The statement may have been applied.
    Reconnect,
    /// The table, its schema or a column is gone: somebody dropped it, or put back what an earlier version made. Not applied.
    CreateSchema,
    /// Another transaction was in the way. Not applied.
    TryAgain,
    /// Nothing that could be done here.
    None,
}

/// The server's own error, if that is what it was.
pub(crate) fn answered(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()
}

/// Whether the session can be used again after this error.
pub(crate) fn session_lives(error: &sqlx::Error) -> bool {
    match answered(error) {
        Some(answer) => !ends_session(answer),
        // The answer was read to its end, and it was this side that couldn't make sense of it.
        None => matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)),
    }
}

fn ends_session(answer: &PgDatabaseError) -> bool {
    matches!(answer.severity(), PgSeverity::Fatal | PgSeverity::Panic) || answer.code().starts_with("08")
}

pub(crate) fn remedy(error: &sqlx::Error) -> Remedy {
    match answered(error) {
        Some(answer) if ends_session(answer) => Remedy::Reconnect,
        Some(answer) => match answer.code() {
            "42P01" | "3F000" | UNDEFINED_COLUMN => Remedy::CreateSchema,
            "40001" | "40P01" => Remedy::TryAgain,
            _ => Remedy::None,
        },
        None if matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => Remedy::Reconnect,
        None => Remedy::None,
    }
}

/// Whether a statement that failed and commits by itself may have been applied.
///
/// An error that the server answered with is definite: its transaction was rolled back. Unless the server
/// was ending the session, which it may do after the commit.
pub(crate) fn applied(error: &sqlx::Error) -> Applied {
    match answered(error) {
        Some(answer) if !ends_session(answer) => Applied::No,
        _ => Applied::Maybe,
    }
}

/// Whether somebody between us and the server refused to pass on what the startup packet asks for.
///
/// PgBouncer and its kin name the parameter; Amazon's RDS Proxy calls it a feature it lacks (psycopg2 #1577).
pub(crate) fn refuses_settings(error: &StoreError) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<sqlx::Error>());
    cause.and_then(answered).is_some_and(|answer| match answer.code() {
        "08P01" => answer.message().contains("startup parameter"),
        code => code == "0A000",
    })
}

/// Whether a statement gave up because another transaction holds one of its rows.
pub(crate) fn row_is_held(error: &StoreError) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<sqlx::Error>());
    cause.and_then(answered).is_some_and(|answer| answer.code() == LOCK_NOT_AVAILABLE)
}

/// The error of a statement that was sent.
pub(crate) fn of_statement(error: sqlx::Error, applied: Applied) -> StoreError {
    let (kind, message) = match answered(&error) {
        Some(answer) => explain(answer),
        None => explain_driver(&error, "the connection to the server broke"),
    };
    let new = if applied == Applied::No { StoreError::refused } else { StoreError::unknown };
    new(kind, message).caused_by(error)
}

/// The error of an attempt to connect to `server`. Nothing was sent but the login.
pub(crate) fn of_connect(error: sqlx::Error, server: &str) -> StoreError {
    let (kind, message) = match answered(&error) {
        Some(answer) => {
            let (kind, message) = explain(answer);
            (kind, format!("{server}: {message}"))
        }
        None => match &error {
            sqlx::Error::Io(cause) => (ErrorKind::Unreachable, explain_io(cause, server)),
            _ => explain_driver(&error, &format!("can't connect to {server}")),
        },
    };
    StoreError::refused(kind, message).caused_by(error)
}

fn explain_io(cause: &io::Error, server: &str) -> String {
    match cause.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens at {server}: check that the server runs and that host and port are right")
        }
        io::ErrorKind::NotFound => format!("there is no server socket at {server}: check that the server runs"),
        // The resolver's errors have no kind of their own; its text says which it was.
        _ if cause.to_string().contains("lookup") => {
            format!("the host of {server} can't be found: check its name ({cause})")
        }
        _ => format!("can't connect to {server}: {cause}"),
    }
}

fn explain_driver(error: &sqlx::Error, otherwise: &str) -> (ErrorKind, String) {
    match error {
        sqlx::Error::Tls(cause) => (
            ErrorKind::InvalidConfig,
            format!(
                "no secure connection: {cause}. Name the authority to trust with sslrootcert=FILE in the URL, or choose another sslmode (sslmode=disable goes without TLS)"
            ),
        ),
        sqlx::Error::Io(cause) => (ErrorKind::Unreachable, format!("{otherwise}: {cause}")),
        sqlx::Error::PoolTimedOut => (ErrorKind::Unreachable, "no connection could be had in time".to_owned()),
        sqlx::Error::Protocol(what) => (ErrorKind::Unreachable, format!("{otherwise}: {what}")),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            (ErrorKind::Corrupt, format!("the server returned what this version doesn't write: {error}"))
        }
        sqlx::Error::Configuration(cause) => (ErrorKind::InvalidConfig, format!("the connection's options: {cause}")),
        _ => (ErrorKind::Other, error.to_string()),
    }
}

/// By SQLSTATE (PostgreSQL manual, appendix A).
fn explain(answer: &PgDatabaseError) -> (ErrorKind, String) {
    let (code, said) = (answer.code(), answer.message());
    match code {
        "42501" => (
            ErrorKind::Denied,
            format!("{said}: grant the role USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its table locks"),
        ),
        _ if code.starts_with("28") => (ErrorKind::Denied, format!("the server refused the login: {said}")),
        "3D000" => (ErrorKind::NotReady, format!("{said}: create the database first, or correct its name")),
        "42P01" | "3F000" | UNDEFINED_COLUMN => (ErrorKind::NotReady, crate::schema::missing(said)),
        "25006" => {
            (ErrorKind::NotReady, format!("{said}: this is a read-only server or role; connect to the primary server"))
        }
        "26000" | "42P05" => (
            ErrorKind::NotReady,
            format!("{said}: sessions seem to be shared by a pooler; connect to the server itself"),
        ),
        "08P01" if said.contains("startup parameter") => {
            (ErrorKind::NotReady, format!("{said}: the pooler doesn't pass it on; leave it out of the URL or options"))
        }
        "08P01" if said.contains("statement pooling") => {
            (ErrorKind::NotReady, format!("{said}: set the pooler's pool_mode to transaction or session"))
        }
        "53300" | "53400" => (ErrorKind::Contention, format!("the server has no connection to spare: {said}")),
        LOCK_NOT_AVAILABLE => (
            ErrorKind::Contention,
            "another transaction holds the lock's row; look for who keeps it open in pg_stat_activity".to_owned(),
        ),
        "57014" => (ErrorKind::Contention, format!("it took too long and was given up: {said}")),
        _ if code.starts_with("40") => (ErrorKind::Contention, format!("other transactions were in the way: {said}")),
        _ if code.starts_with("57P") || code.starts_with("08") => (ErrorKind::Unreachable, said.to_owned()),
        _ if code.starts_with("53") => (ErrorKind::NotReady, format!("the server is short of something: {said}")),
        "22003" | "23514" | "23502" => (
            ErrorKind::Corrupt,
            format!("the record holds what no version of this writes, or the server's clock is far off: {said}"),
        ),
        _ => (ErrorKind::Other, format!("{said} (SQLSTATE {code})")),
    }
}
