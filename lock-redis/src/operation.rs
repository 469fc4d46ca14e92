//! Runs a script within its time, and once more where that is safe.

use std::{sync::Arc, time::Duration};

use lock_core::{Applied, Clock, ErrorKind, Moment, StoreError};
use redis::{Cmd, Value};

use crate::{
    error::{self, Remedy},
    link::{Link, Primary},
    scripts::Call,
};

/// What scripts are run with.
#[derive(Clone, Debug)]
pub(crate) struct Runner {
    pub(crate) link: Link,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What came of a script.
pub(crate) struct Done {
    pub(crate) reply: Value,
    /// Whether an earlier attempt broke off unanswered, so that this reply may tell of its effect and not of its own.
    pub(crate) in_doubt: bool,
}

impl Runner {
    /// Runs a script that may safely be run twice, as all of ours are: they name the owner and the token.
    ///
    /// Dropping the future leaves the script under way, and the connection in order.
    pub(crate) async fn run(&self, call: Call) -> Result<Done, StoreError> {
        let (call, give_up) = (Arc::new(call), self.in_time());
        match self.link.run(&call, give_up, &self.clock).await {
            Ok(reply) => Ok(Done { reply, in_doubt: false }),
            // One attempt more, on another connection: the first may have been a relic of an earlier time.
            Err(first) if error::remedy(&first) != Remedy::None => {
                let in_doubt = first.applied() == Applied::Maybe;
                let again = self.link.run(&call, give_up, &self.clock).await;
                again.map(|reply| Done { reply, in_doubt }).map_err(|error| doubting(error, in_doubt))
            }
            Err(error) => Err(error),
        }
    }

    /// Runs a script that may not run twice. A server that takes no writes has done nothing, so the next primary is tried.
    ///
    /// Who drops the future doesn't know whether it was sent; the connection stays in order.
    pub(crate) async fn once(&self, call: Call) -> Result<Value, StoreError> {
        let give_up = self.in_time();
        match self.link.run_here(&call, give_up, &self.clock).await {
            Err(first) if first.applied() == Applied::No && error::remedy(&first) == Remedy::FindPrimary => {
                self.link.run_here(&call, give_up, &self.clock).await
            }
            answer => answer,
        }
    }

    /// Runs a script that only reads: no failure of it may have been applied.
    pub(crate) async fn read(&self, call: Call) -> Result<Value, StoreError> {
        self.run(call).await.map(|done| done.reply).map_err(harmless)
    }

    /// Sends a command that only reads.
    pub(crate) async fn ask(&self, primary: Primary, command: Cmd) -> Result<Value, StoreError> {
        self.link.ask(primary, command, self.in_time(), &self.clock).await.map_err(harmless)
    }

    /// Every server that takes writes.
    pub(crate) async fn primaries(&self) -> Result<Vec<Primary>, StoreError> {
        self.link.primaries(self.in_time(), &self.clock).await.map_err(harmless)
    }

    fn in_time(&self) -> Moment {
        self.clock.now() + self.timeout
    }
}

/// An error of a second attempt says nothing of a first one that broke off.
pub(crate) fn doubting(error: StoreError, in_doubt: bool) -> StoreError {
    match (in_doubt, error.applied()) {
        (true, Applied::No) => {
            let message = format!("the connection broke, and then: {error}");
            StoreError::unknown(error.kind(), message).caused_by(error)
        }
        _ => error,
    }
}

fn harmless(error: StoreError) -> StoreError {
    match error.applied() {
        Applied::No => error,
        Applied::Maybe => {
            let message = if error.kind() == ErrorKind::Timeout {
                "the server didn't answer in time"
            } else {
                "the server didn't answer"
            };
            StoreError::refused(error.kind(), message).caused_by(error)
        }
    }
}
