//! What SQLite's errors mean to somebody who wants a lock.

use std::path::Path;

use lock_core::{ErrorKind, StoreError};

use crate::place::quoted;

/// The primary result codes that mean something in particular here (<https://www.sqlite.org/rescode.html>).
mod code {
    pub(super) const ERROR: i32 = 1;
    pub(super) const PERM: i32 = 3;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const NOTADB: i32 = 26;
}

/// `SQLITE_BUSY_SNAPSHOT`: of the extended codes the one that says something of its own.
const BUSY_SNAPSHOT: i32 = 517;

/// SQLite's extended result code, where the error is SQLite's own.
fn extended_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    extended_code(error).map(|extended| extended & 0xff)
}

/// Whether a transaction that has read wants to write, and somebody else has written in between.
pub(crate) fn is_old_snapshot(error: &sqlx::Error) -> bool {
    extended_code(error) == Some(BUSY_SNAPSHOT)
}

/// Whether a statement is wrong: it names what isn't there, or can't be run now. SQLite has one code for all of that.
pub(crate) fn is_wrong(error: &sqlx::Error) -> bool {
    primary_code(error) == Some(code::ERROR)
}

/// Whether somebody else had the file locked for longer than we wait.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(code::BUSY | code::LOCKED))
}

/// Before the commit nothing has happened, and a busy file is told before anything is written.
pub(crate) fn before_commit(error: sqlx::Error, path: &Path) -> StoreError {
    let (kind, message) = explain(&error, path);
    StoreError::refused(kind, message).caused_by(error)
}

/// Whether what was written breaks a rule of the application's: at the commit a deferred foreign key, or its hook.
fn breaks_a_rule(error: &sqlx::Error) -> bool {
    primary_code(error) == Some(code::CONSTRAINT)
}

/// A commit that failed may have reached the disk, unless it was refused: because the file was busy, or by a rule that
/// SQLite looks at before it writes.
pub(crate) fn at_commit(error: sqlx::Error, path: &Path) -> StoreError {
    if is_busy(&error) || breaks_a_rule(&error) {
        return before_commit(error, path);
    }
    let (kind, message) = explain(&error, path);
    StoreError::unknown(kind, message).caused_by(error)
}

fn explain(error: &sqlx::Error, path: &Path) -> (ErrorKind, String) {
    let path = quoted(path);
    match primary_code(error) {
        Some(code::BUSY | code::LOCKED) => {
            (ErrorKind::Contention, format!("{path} is busy: another process keeps it locked; try again"))
        }
        Some(code::READONLY | code::PERM) => {
            (ErrorKind::NotReady, format!("{path} can't be written; make it and its directory writable for this user"))
        }
        Some(code::CANTOPEN) => {
            (ErrorKind::NotReady, format!("{path} can't be opened; check that its directory exists and is writable"))
        }
        Some(code::NOTADB) => (
            ErrorKind::NotReady,
            format!("{path} is not an SQLite database; name another file, or one that doesn't exist yet"),
        ),
        Some(code::CORRUPT) => (
            ErrorKind::Corrupt,
            format!("{path} is damaged; stop its users and delete it (with -wal and -shm), or restore it"),
        ),
        None if matches!(error, sqlx::Error::PoolTimedOut) => (
            ErrorKind::Contention,
            format!("no connection to {path} came free in time; enlarge the pool, or try again"),
        ),
        Some(code::FULL) => (ErrorKind::NotReady, format!("the disk of {path} is full; make room")),
        _ => (ErrorKind::Other, format!("{path}: {}", one_line(&error.to_string()))),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
