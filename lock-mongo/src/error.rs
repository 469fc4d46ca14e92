//! What the server's answers and the driver's errors mean.

use std::{error::Error, fmt};

use lock_core::{Applied, ErrorKind, StoreError};
use mongodb::{
    bson::Document,
    error::{ErrorKind as DriverKind, RETRYABLE_WRITE_ERROR, WriteFailure},
};

/// What to do about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The connection broke, or the primary is stepping down. The command may have been applied.
    Reconnect,
    /// Another command was in the way. Not applied.
    TryAgain,
    /// Nothing that could be done here.
    None,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Driver(mongodb::error::Error),
    /// Of a command with many statements, each of which stands when a later one fails.
    Group(mongodb::error::Error),
    /// A command was applied, and a majority didn't acknowledge it.
    Concern {
        code: i32,
        message: String,
    },
}

impl From<mongodb::error::Error> for Failure {
    fn from(error: mongodb::error::Error) -> Self {
        Self::Driver(error)
    }
}

/// Two inserts of one name raced: the second try finds the first one's record.
pub(crate) const DUPLICATE_KEY: i32 = 11000;
const WRITE_CONFLICT: i32 = 112;
const UNAUTHORIZED: i32 = 13;
const AUTHENTICATION_FAILED: i32 = 18;
const MAX_TIME_EXPIRED: i32 = 50;
const WRITE_CONCERN_TIMEOUT: i32 = 64;

/// The server is no primary (any more), or shuts down: the driver's specification of "state change errors".
const STATE_CHANGES: [i32; 9] = [91, 189, 10058, 10107, 11600, 11602, 13435, 13436, 7];

/// Whether the server is no primary, or is about to be none.
pub(crate) fn is_state_change(code: i32) -> bool {
    STATE_CHANGES.contains(&code)
}

/// The server can't do arithmetic with what stands in the record.
const NOT_A_NUMBER: [i32; 4] = [14, 16554, 16555, 16608];

/// A rule of the collection (`validator`) refuses the record.
const BREAKS_A_RULE: i32 = 121;

/// Somebody ended the command, or the server did, which had too much to do.
const INTERRUPTED: [i32; 2] = [11601, 262];

/// Found before a command begins: a bad value or option, a missing right, an unknown command.
const NOT_BEGUN: [i32; 7] = [2, 9, UNAUTHORIZED, AUTHENTICATION_FAILED, 59, 72, 73];

/// Whether a write that fails so has left nothing behind. A command of one write only: with many, those before it stand.
fn is_undone(code: i32) -> bool {
    matches!(code, DUPLICATE_KEY | WRITE_CONFLICT | BREAKS_A_RULE) || NOT_A_NUMBER.contains(&code)
}

impl Failure {
    /// What a command's answer says of its write concern.
    pub(crate) fn of_concern(answer: &Document) -> Option<Self> {
        let concern = answer.get_document("writeConcernError").ok()?;
        let message = concern.get_str("errmsg").unwrap_or("no reason was given").to_owned();
        Some(Self::Concern { code: concern.get_i32("code").unwrap_or_default(), message })
    }

    /// The server's number for what went wrong, if it was the server that answered.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Concern { code, .. } => Some(*code),
            Self::Driver(error) | Self::Group(error) => match error.kind.as_ref() {
                DriverKind::Command(error) => Some(error.code),
                DriverKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
                DriverKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
                _ => None,
            },
        }
    }

    pub(crate) fn remedy(&self) -> Remedy {
        match (self, self.code()) {
            (Self::Driver(_) | Self::Group(_), Some(DUPLICATE_KEY | WRITE_CONFLICT)) => Remedy::TryAgain,
            (_, Some(code)) if is_state_change(code) => Remedy::Reconnect,
            (Self::Driver(error) | Self::Group(error), _)
                if error.contains_label(RETRYABLE_WRITE_ERROR)
                    || matches!(error.kind.as_ref(), DriverKind::Io(_) | DriverKind::ConnectionPoolCleared { .. }) =>
            {
                Remedy::Reconnect
            }
            _ => Remedy::None,
        }
    }

    /// Whether the command may have been applied, or a part of it.
    pub(crate) fn applied(&self) -> Applied {
        let (error, is_group) = match self {
            Self::Concern { .. } => return Applied::Maybe,
            Self::Driver(error) => (error, false),
            Self::Group(error) => (error, true),
        };
        match (error.kind.as_ref(), self.code()) {
            // The driver tells the first attempt's error if the second one couldn't be sent.
            _ if error.contains_label(RETRYABLE_WRITE_ERROR) => Applied::Maybe,
            // A server may end a command anywhere, so that a code which isn't known here says nothing.
            (DriverKind::Command(_) | DriverKind::Write(WriteFailure::WriteError(_)), Some(code))
                if NOT_BEGUN.contains(&code) || (!is_group && is_undone(code)) =>
            {
                Applied::No
            }
            (
                DriverKind::ServerSelection { .. }
                | DriverKind::DnsResolve { .. }
                | DriverKind::Authentication { .. }
                | DriverKind::InvalidArgument { .. }
                | DriverKind::InvalidTlsConfig { .. }
                | DriverKind::IncompatibleServer { .. }
                | DriverKind::BsonSerialization(_)
                | DriverKind::SessionsNotSupported
                | DriverKind::Shutdown,
                _,
            ) => Applied::No,
            _ => Applied::Maybe,
        }
    }
}

/// The error of a command that failed for good.
pub(crate) fn of_command(failure: Failure) -> StoreError {
    let new = if failure.applied() == Applied::No { StoreError::refused } else { StoreError::unknown };
    let (kind, message) = explain(&failure);
    let error = new(kind, message);
    with_cause(error, failure)
}

/// The error of a command that changes no lock, such as one that only reads: it can't have been applied.
pub(crate) fn of_reading(failure: Failure) -> StoreError {
    let (kind, message) = explain(&failure);
    let error = StoreError::refused(kind, message);
    with_cause(error, failure)
}

fn with_cause(error: StoreError, failure: Failure) -> StoreError {
    match failure {
        Failure::Concern { code: MAX_TIME_EXPIRED, .. } => error.caused_by(EndedUnconfirmed),
        Failure::Concern { .. } => error,
        Failure::Driver(cause) | Failure::Group(cause) => error.caused_by(cause),
    }
}

/// A command's time was over while it waited for a majority.
#[derive(Debug)]
struct EndedUnconfirmed;

impl fmt::Display for EndedUnconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server ended the command, whose time was over, before a majority had confirmed it")
    }
}

impl Error for EndedUnconfirmed {}

/// Whether the server said that it ended the command because its time was over: it changes nothing any more.
pub(crate) fn was_ended(error: &StoreError) -> bool {
    let Some(cause) = error.source() else { return false };
    cause.is::<EndedUnconfirmed>()
        || cause.downcast_ref::<mongodb::error::Error>().is_some_and(
            |cause| matches!(cause.kind.as_ref(), DriverKind::Command(answer) if answer.code == MAX_TIME_EXPIRED),
        )
}

/// The error of one statement of many, by the server's number and words.
pub(crate) fn of_statement(code: i32, said: &str) -> StoreError {
    let (kind, message) = explain_code(code, said);
    StoreError::refused(kind, message)
}

/// Whether one statement of many met another insert of its name, or a primary that is none any more, so that it is to be
/// tried again by itself.
pub(crate) fn may_succeed_alone(code: i32) -> bool {
    matches!(code, DUPLICATE_KEY | WRITE_CONFLICT) || is_state_change(code)
}

fn explain(failure: &Failure) -> (ErrorKind, String) {
    let error = match failure {
        Failure::Concern { code, message } => return explain_code(*code, message),
        Failure::Driver(error) | Failure::Group(error) => error,
    };
    match error.kind.as_ref() {
        DriverKind::Command(answer) => explain_code(answer.code, &answer.message),
        DriverKind::Write(WriteFailure::WriteError(answer)) => explain_code(answer.code, &answer.message),
        DriverKind::Write(WriteFailure::WriteConcernError(answer)) => explain_code(answer.code, &answer.message),
        DriverKind::Authentication { message, .. } => {
            (ErrorKind::Denied, format!("the server refused the login: {}", one_line(message)))
        }
        DriverKind::ServerSelection { message, .. } => (ErrorKind::Unreachable, selection(message)),
        DriverKind::DnsResolve { message, .. } => {
            (ErrorKind::Unreachable, format!("the servers can't be looked up: {}", one_line(message)))
        }
        DriverKind::InvalidTlsConfig { message, .. } => {
            (ErrorKind::InvalidConfig, format!("the TLS options: {}", one_line(message)))
        }
        DriverKind::Io(cause) => (ErrorKind::Unreachable, format!("the connection to the server broke: {cause}")),
        DriverKind::ConnectionPoolCleared { .. } => {
            (ErrorKind::Unreachable, "the connection to the server broke".to_owned())
        }
        DriverKind::IncompatibleServer { message, .. } => (ErrorKind::NotReady, one_line(message)),
        DriverKind::InvalidResponse { message, .. } => {
            (ErrorKind::Corrupt, format!("the server's answer can't be read: {}", one_line(message)))
        }
        _ => (ErrorKind::Other, one_line(&error.to_string())),
    }
}

/// By the server's number (its source, `error_codes.yml`).
fn explain_code(code: i32, said: &str) -> (ErrorKind, String) {
    let said = one_line(said);
    match code {
        UNAUTHORIZED => {
            // It goes on with the whole command.
            let said = said.split(" to execute").next().unwrap_or_default();
            let grant =
                "grant the user find, insert, update and changeStream on the collection, such as by the role readWrite";
            (ErrorKind::Denied, format!("{said}: {grant}"))
        }
        AUTHENTICATION_FAILED => (ErrorKind::Denied, format!("the server refused the login: {said}")),
        WRITE_CONCERN_TIMEOUT => {
            (ErrorKind::Timeout, format!("no majority of the replica set confirmed it in time: {said}"))
        }
        MAX_TIME_EXPIRED => (ErrorKind::Timeout, format!("it took too long and was given up: {said}")),
        DUPLICATE_KEY | WRITE_CONFLICT => (ErrorKind::Contention, format!("other requests were in the way: {said}")),
        BREAKS_A_RULE => (ErrorKind::NotReady, format!("a rule of the collection forbids our records: {said}")),
        _ if INTERRUPTED.contains(&code) => (ErrorKind::Timeout, format!("the server broke the command off: {said}")),
        _ if is_state_change(code) => (ErrorKind::Unreachable, format!("no primary answered: {said}")),
        _ if NOT_A_NUMBER.contains(&code) => {
            (ErrorKind::Corrupt, format!("the record holds what no version of this writes: {said}"))
        }
        _ => (ErrorKind::Other, format!("{said} (code {code})")),
    }
}

/// Said of a set whose members answer and have elected nobody.
pub(crate) const NO_PRIMARY: &str =
    "the replica set has no primary now: check that a majority of its members runs and sees each other";

/// What the driver saw of the servers, in a sentence. It tells this as text alone, with hosts and without credentials.
fn selection(message: &str) -> String {
    let seen = message.split_once("Topology:").map_or(message, |(_, seen)| seen);
    if seen.contains("ReplicaSetNoPrimary") && ["RSSecondary", "RSOther"].iter().any(|kind| seen.contains(kind)) {
        return NO_PRIMARY.to_owned();
    }
    let upto = |text: &str, ends: [char; 2]| text.split(ends).next().unwrap_or_default().trim().to_owned();
    if let Some((_, reason)) = seen.split_once("Error: ").filter(|(_, reason)| !reason.contains("timed out")) {
        return format!("no server could be reached: {}", upto(reason.trim_start_matches("Kind: "), [',', '}']));
    }
    let servers: Vec<String> = seen.split("Address: ").skip(1).map(|server| upto(server, [',', ' '])).collect();
    match servers.as_slice() {
        [] => "no server there belongs to the replica set that is asked for: check replicaSet".to_owned(),
        [server] => format!("{server} didn't answer in time"),
        servers => {
            format!("{} didn't answer in time: a majority of them must run and see each other", servers.join(", "))
        }
    }
}

pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::{bson::doc, error::CommandError};

    fn answered(code: i32) -> mongodb::error::Error {
        let answer = doc! { "ok": 0, "code": code, "codeName": "Some", "errmsg": "some" };
        let error: CommandError = mongodb::bson::deserialize_from_document(answer).unwrap();
        DriverKind::Command(error).into()
    }

    #[test]
    fn only_what_surely_left_nothing_behind_is_told_so() {
        let (no, maybe) = (Applied::No, Applied::Maybe);
        for (code, alone, in_group) in [
            (13, no, no),
            (72, no, no),
            (11000, no, maybe),
            (112, no, maybe),
            (121, no, maybe),
            (16554, no, maybe),
            (50, maybe, maybe),
            (262, maybe, maybe),
            (11601, maybe, maybe),
            (10107, maybe, maybe),
            (8, maybe, maybe),
        ] {
            let told = [Failure::Driver(answered(code)).applied(), Failure::Group(answered(code)).applied()];
            assert_eq!(told, [alone, in_group], "{code}");
            assert_eq!(of_command(Failure::Group(answered(code))).applied(), in_group, "{code}");
        }
        for code in [50, 262, 11601, 10107, 112] {
            assert!(of_command(Failure::Group(answered(code))).is_transient(), "{code}");
        }
    }

    #[test]
    fn a_command_that_the_server_ended_is_known_from_one_that_fell_silent() {
        let unconfirmed = |code| Failure::Concern { code, message: "slow".to_owned() };
        assert!(was_ended(&of_command(Failure::Group(answered(50)))));
        assert!(was_ended(&of_command(unconfirmed(50))));
        assert!(!was_ended(&of_command(unconfirmed(64))));
        assert!(!was_ended(&of_command(Failure::Group(answered(262)))));
        assert!(!was_ended(&StoreError::unknown(ErrorKind::Timeout, "silent")));
    }

    #[test]
    fn what_the_driver_saw_becomes_a_sentence() {
        let said =
            |servers| format!("Server selection timeout: No available servers. Topology: {{ Type: {servers} ] }}");
        for (servers, sentence) in [
            (
                "Unknown, Servers: [ { Address: h:1, Type: Unknown }, { Address: i:2, Type: Unknown }",
                "h:1, i:2 didn't answer in time: a majority of them must run and see each other",
            ),
            (
                "Unknown, Servers: [ { Address: h:1, Type: Unknown, Error: Kind: I/O error: broken pipe, labels: {} }",
                "no server could be reached: I/O error: broken pipe",
            ),
            (
                "ReplicaSetNoPrimary, Servers: [ { Address: h:1, Type: Unknown, Error: Kind: x }, { Address: i:2, Type: RSSecondary }",
                NO_PRIMARY,
            ),
        ] {
            assert_eq!(selection(&said(servers)), sentence);
        }
    }
}
