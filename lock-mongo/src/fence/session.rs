//! Checks in a transaction of the caller's: that there is one, and that it ends where a check said no.

use std::mem;

use lock_core::{ErrorKind, FenceError, StoreError};
use mongodb::{
    ClientSession,
    bson::{Timestamp, doc},
    error::{Error, ErrorKind as DriverKind, TRANSIENT_TRANSACTION_ERROR},
    options::SessionOptions,
};

use crate::error::{self, Failure};

/// The server has no such transaction any more: it was undone.
const NO_SUCH_TRANSACTION: i32 = 251;

/// Said of an end that would have been the transaction's first command. The driver takes it for begun from then on, and the
/// server knows of none.
const NEVER_BEGUN: i32 = 263;

/// Said by a server that isn't in a replica set.
const ILLEGAL_OPERATION: i32 = 20;

/// Whether a transaction was begun in this session, and not ended.
pub(super) async fn is_in_transaction(session: &mut ClientSession) -> Result<bool, StoreError> {
    // The driver tells it in no other way. It sends nothing for that: a transaction begins with its first command.
    match session.start_transaction().await {
        Ok(()) => {
            drop(session.abort_transaction().await);
            Ok(false)
        }
        Err(error) => match error.kind.as_ref() {
            DriverKind::Transaction { message, .. } if message.contains("already in progress") => Ok(true),
            _ => Err(failed(error)),
        },
    }
}

/// Takes the session away for a check, and leaves one in its place in which nothing can be done. So whoever drops the check
/// in the middle, or goes on after one that couldn't be undone, writes nothing.
pub(super) async fn take(session: &mut ClientSession) -> Result<ClientSession, StoreError> {
    if !is_in_transaction(session).await? {
        let message = "no transaction was begun in this session, and a check outside of one protects nothing: call start_transaction first";
        return Err(StoreError::refused(ErrorKind::Other, message));
    }
    let unusable = unusable(session).await.map_err(failed)?;
    Ok(mem::replace(session, unusable))
}

/// Gives the session back if the check passed, or if the transaction was ended after a check that didn't.
///
/// Where the server can't be reached, it doesn't: the driver's own end of a transaction makes the session's next command one
/// outside of any, and that would be written at once. The session that was taken is dropped then, and with it the driver
/// tries to end the transaction, which nobody can commit any more.
pub(super) async fn give_back(session: &mut ClientSession, mut taken: ClientSession, passed: bool) {
    if passed || spoil(&mut taken).await {
        *session = taken;
    }
}

/// A session for reading as of a time of which no server knows anything any more. In such a session the server refuses
/// writes, the driver begins no transaction, and reads find their time too old. Sends nothing.
async fn unusable(session: &ClientSession) -> Result<ClientSession, Error> {
    let options = SessionOptions::builder().snapshot(true).snapshot_time(Timestamp { time: 1, increment: 1 }).build();
    session.client().start_session().with_options(options).await
}

/// Ends a transaction at the server; whether it got there. Whoever goes on all the same, keeps nothing: each further command
/// of the transaction fails, and so does its commit.
///
/// Not by the session's own method: after that one the next command is outside of any transaction, and written at once.
async fn spoil(session: &mut ClientSession) -> bool {
    let admin = session.client().database("admin");
    let ended = admin.run_command(doc! { "abortTransaction": 1 }).session(session).await;
    let is_over = |error| matches!(Failure::from(error).code(), Some(NO_SUCH_TRANSACTION | NEVER_BEGUN));
    ended.is_ok() || ended.is_err_and(is_over)
}

/// The error of a command within a transaction: nothing of it is kept unless the transaction is committed.
pub(super) fn failed(cause: Error) -> StoreError {
    let failure = Failure::from(cause);
    let (kind, message) = match failure.code() {
        Some(ILLEGAL_OPERATION) => (
            ErrorKind::Unsupported,
            "a standalone server has no transactions: make it a replica set, if only of one member",
        ),
        Some(NO_SUCH_TRANSACTION) => (
            ErrorKind::Timeout,
            "the server has undone the transaction: it was open for too long, or a command of it failed, or another primary was elected",
        ),
        _ => return error::of_reading(failure),
    };
    let error = StoreError::refused(kind, message);
    if let Failure::Driver(cause) = failure { error.caused_by(cause) } else { error }
}

/// Whether the same transaction, begun anew, may succeed.
pub(super) fn may_succeed_anew(error: &FenceError) -> bool {
    let FenceError::Store(error) = error else { return false };
    driver_error(error).is_some_and(|cause| cause.contains_label(TRANSIENT_TRANSACTION_ERROR))
}

fn driver_error(error: &StoreError) -> Option<&Error> {
    std::error::Error::source(error).and_then(|cause| cause.downcast_ref())
}
