//! Runs one command: in a task of its own, within its time, tried again where that is safe.

use std::{sync::Arc, time::Duration};

use lock_core::{Applied, Clock, ErrorKind, StoreError};
use mongodb::{
    Collection, Database,
    bson::{Bson, Document, Timestamp, doc},
    options::{Acknowledgment, ClientOptions, ReturnDocument, WriteConcern},
};
use tokio::sync::Semaphore;

use crate::{
    error::{self, Failure, Remedy},
    pipelines::{Pipelines, literal},
    records,
};

/// Attempts at a command that another one was in the way of.
const ATTEMPTS_IN_CONFLICT: u32 = 5;

/// Attempts after one that broke off. The driver waits for a new primary before each, so a fail-over takes one, or two
/// if an old connection breaks first.
const ATTEMPTS_TO_RECONNECT: u32 = 2;

/// What commands are run with.
pub(crate) struct Runner {
    pub(crate) database: Database,
    pub(crate) collection: Collection<Document>,
    pub(crate) pipelines: Pipelines,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    /// How many commands may be under way. Who waits for a turn has sent nothing; in the driver's own queue for a
    /// connection it couldn't be given up, and would be sent when nobody waits for it any more.
    pub(crate) turns: Arc<Semaphore>,
    /// What the client was made with, unless it is the application's own.
    pub(crate) options: Option<ClientOptions>,
}

/// What came of a command.
pub(crate) struct Done<T> {
    pub(crate) found: T,
    /// Whether an earlier attempt broke off unanswered, so that this answer may tell of its effect and not of its own.
    pub(crate) in_doubt: bool,
}

/// A change of one record.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) filter: Document,
    pub(crate) pipeline: Arc<[Document]>,
    pub(crate) variables: Document,
    pub(crate) upsert: bool,
    pub(crate) returned: ReturnDocument,
}

/// Which records to read.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) filter: Document,
    pub(crate) most: usize,
    /// To be read as a majority has them, so that no fail-over undoes what is seen, and no older than at this time.
    pub(crate) settled: Option<Timestamp>,
}

impl Runner {
    /// Changes one record within this time; answers with it, or with nothing if the filter found none.
    pub(crate) async fn change(
        self: &Arc<Self>,
        change: Change,
        limit: Duration,
    ) -> Result<Done<Option<Document>>, StoreError> {
        self.run(limit, move |runner| {
            let change = change.clone();
            async move {
                let command = runner
                    .collection
                    .find_one_and_update(change.filter, change.pipeline.to_vec())
                    .upsert(change.upsert)
                    .return_document(change.returned)
                    .projection(runner.pipelines.shown.clone())
                    .let_vars(literal(change.variables))
                    .write_concern(runner.write_concern())
                    .max_time(limit);
                Ok(command.await?)
            }
        })
        .await
    }

    /// Changes many records, each by a statement of its own, and waits once until a majority has them all.
    ///
    /// The server gives up after [`group_limit`], so that time is left to send the statements alone.
    pub(crate) async fn change_many(self: &Arc<Self>, statements: Vec<Document>) -> Result<Done<Document>, StoreError> {
        self.run(self.timeout, move |runner| {
            let command = doc! {
                "update": runner.collection.name(),
                "updates": statements.clone(),
                "ordered": false,
                "writeConcern": { "w": "majority", "j": true, "wtimeout": records::millis(runner.timeout) },
                "maxTimeMS": records::millis(group_limit(runner.timeout)),
            };
            async move {
                let answer = runner.database.run_command(command).await.map_err(Failure::Group)?;
                Failure::of_concern(&answer).map_or(Ok(answer), Err)
            }
        })
        .await
    }

    /// Reads records, in byte order of their names. No failure of it may have been applied.
    ///
    /// From the primary, as it has them now unless the query says otherwise: what decides about a lease was acknowledged by
    /// a majority before.
    pub(crate) async fn read(self: &Arc<Self>, query: Query) -> Result<Vec<Document>, StoreError> {
        let found = self.run(self.timeout, move |runner| {
            let most = i64::try_from(query.most).unwrap_or(i64::MAX);
            let concern = match query.settled {
                Some(time) => doc! { "level": "majority", "afterClusterTime": time },
                None => doc! { "level": "local" },
            };
            let command = doc! {
                "find": runner.collection.name(),
                "filter": query.filter.clone(),
                "projection": runner.pipelines.shown.clone(),
                "sort": { "_id": 1 },
                "limit": most,
                "batchSize": most,
                "singleBatch": true,
                "readConcern": concern,
                "maxTimeMS": records::millis(runner.timeout),
            };
            async move { Ok(runner.database.run_command(command).await?) }
        });
        let mut answer = match found.await {
            Ok(done) => done.found,
            Err(error) if error.applied() == Applied::No => return Err(error),
            Err(error) => {
                let message = error.to_string();
                let message = message.trim_end_matches(" (it may have been applied)");
                return Err(StoreError::refused(error.kind(), message).caused_by(error));
            }
        };
        let Some(Bson::Document(mut cursor)) = answer.remove("cursor") else {
            return Err(records::corrupt("the answer has no cursor"));
        };
        let Some(Bson::Array(batch)) = cursor.remove("firstBatch") else {
            return Err(records::corrupt("the answer has no records"));
        };
        let document = |value| match value {
            Bson::Document(document) => Ok(document),
            _ => Err(records::corrupt("a record is none")),
        };
        batch.into_iter().map(document).collect()
    }

    /// Runs a command that may safely be run twice, as all of ours are: they name the owner, or they don't match what they
    /// have changed themselves.
    ///
    /// The driver's futures must not be dropped (its README, and RUST-937), so the command has a task of its own. Dropping
    /// this future, or running out of time, leaves that task to end by itself: it begins no further attempt.
    pub(crate) async fn run<T, F>(
        self: &Arc<Self>,
        limit: Duration,
        command: impl Fn(Arc<Self>) -> F + Send + Sync + 'static,
    ) -> Result<Done<T>, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let give_up = self.clock.now() + limit;
        let turn = tokio::select! {
            turn = Arc::clone(&self.turns).acquire_owned() => turn,
            () = self.clock.sleep_until(give_up) => {
                let message = format!("no connection was free within {limit:?}");
                return Err(StoreError::refused(ErrorKind::Timeout, message));
            }
        };
        let turn = turn.map_err(|_| StoreError::refused(ErrorKind::Unreachable, "the provider is shut down"))?;
        let runner = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _turn = turn;
            let (mut in_doubt, mut reconnected, mut conflicts) = (false, 0, 0);
            loop {
                let failure = match command(Arc::clone(&runner)).await {
                    Ok(found) => return Ok(Done { found, in_doubt }),
                    Err(failure) => failure,
                };
                let in_time = runner.clock.now() < give_up;
                match failure.remedy() {
                    Remedy::TryAgain if in_time && conflicts < ATTEMPTS_IN_CONFLICT => conflicts += 1,
                    Remedy::Reconnect if in_time && reconnected < ATTEMPTS_TO_RECONNECT => reconnected += 1,
                    _ => return Err(doubting(error::of_command(failure), in_doubt)),
                }
                in_doubt |= failure.applied() == Applied::Maybe;
            }
        });
        tokio::select! {
            done = task => done.unwrap_or_else(|error| {
                Err(StoreError::unknown(ErrorKind::Other, "the runtime ended the operation").caused_by(error))
            }),
            () = self.clock.sleep_until(give_up) => {
                let message = format!("the server didn't answer within {limit:?}");
                Err(StoreError::unknown(ErrorKind::Timeout, message))
            }
        }
    }

    pub(crate) fn write_concern(&self) -> WriteConcern {
        WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(self.timeout).build()
    }
}

/// How long the server may take for a group: a quarter of the time, but a quarter of a second if there is as much.
///
/// One record that somebody else's transaction holds keeps the statements behind it waiting. They are sent alone then,
/// within the rest of the time.
pub(crate) fn group_limit(timeout: Duration) -> Duration {
    (timeout / 4).max(Duration::from_millis(250)).min(timeout / 2)
}

/// An error of a later attempt says nothing of an earlier one that broke off.
pub(crate) fn doubting(error: StoreError, in_doubt: bool) -> StoreError {
    if in_doubt && error.applied() == Applied::No {
        let message = format!("an attempt broke off, and then: {error}");
        return StoreError::unknown(error.kind(), message).caused_by(error);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_leaves_time_to_send_its_requests_alone() {
        for (timeout, limit) in [(5000, 1250), (800, 250), (400, 200), (100, 50)] {
            assert_eq!(group_limit(Duration::from_millis(timeout)), Duration::from_millis(limit));
        }
    }

    #[test]
    fn what_may_have_been_applied_stays_so() {
        let refused = || StoreError::refused(ErrorKind::Corrupt, "no number");
        assert_eq!(doubting(refused(), true).applied(), Applied::Maybe);
        assert_eq!(doubting(refused(), false).applied(), Applied::No);
    }
}
