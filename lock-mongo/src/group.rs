//! Many requests in one `update` command, each a statement of its own, and what became of each.
//!
//! The command tells how many records matched, and no more. So each request writes a random number of its own into the
//! record it changes; where the count leaves a doubt, one `find` tells whose number stands there. A number that stands
//! there says what the acknowledged command did, however old the view of the server that is read from. That a tick is used
//! up may be somebody else's doing, so where it is asked for the `find` sees only what a majority has.

use std::collections::{BTreeMap, HashMap};

use lock_core::{ErrorKind, LockName, Released, StoreError};
use mongodb::bson::{Bson, Document, Timestamp, doc};

use crate::{
    error,
    operation::{Query, Runner, doubting},
    records::{corrupt, garbled},
};
use std::sync::Arc;

/// How many requests one command carries at most. Beyond it they gain nothing, and the answer comes later.
pub(crate) const MOST: usize = 256;

/// One request's part of a group.
pub(crate) struct Statement {
    pub(crate) filter: Document,
    pub(crate) pipeline: Arc<[Document]>,
    pub(crate) variables: Document,
    pub(crate) upsert: bool,
}

/// What a group's command came to.
pub(crate) struct Outcome {
    /// How many records the filters found, those that were made included.
    pub(crate) matched: usize,
    /// The statements that failed, by their place, with the server's number and words.
    pub(crate) failed: BTreeMap<usize, (i32, String)>,
    pub(crate) in_doubt: bool,
    /// When that was, in the order of the set's changes; a standalone tells none.
    pub(crate) time: Option<Timestamp>,
}

impl Outcome {
    /// Whether every statement found its record, in this very attempt.
    pub(crate) fn is_complete(&self, statements: usize) -> bool {
        !self.in_doubt && self.failed.is_empty() && self.matched == statements
    }

    /// The error of a statement, unless it is one to be tried again by itself.
    pub(crate) fn error(&self, at: usize) -> Option<StoreError> {
        let (code, said) = self.failed.get(&at)?;
        (!error::may_succeed_alone(*code)).then(|| doubting(error::of_statement(*code, said), self.in_doubt))
    }

    /// What became of a release, by which of them stand in the records; `None` if it is to be tried again by itself.
    pub(crate) fn released(&self, at: usize, seen: &[bool]) -> Option<Result<Released, StoreError>> {
        if seen.get(at).copied().unwrap_or_default() {
            return Some(Ok(Released::Released));
        }
        if self.failed.contains_key(&at) {
            return self.error(at).map(Err);
        }
        // If as many are seen as there were, the others were not held.
        if !self.in_doubt && seen.iter().filter(|seen| **seen).count() == self.matched {
            return Some(Ok(Released::NotHeld));
        }
        // One was released, and since taken and released again.
        (!self.in_doubt).then(|| {
            let message = "released or not held: the record was released again before it could be looked at";
            Err(StoreError::unknown(ErrorKind::Contention, message))
        })
    }
}

impl Runner {
    pub(crate) async fn change_all(self: &Arc<Self>, statements: Vec<Statement>) -> Result<Outcome, StoreError> {
        let statements = statements.into_iter().map(|statement| {
            doc! {
                "q": statement.filter,
                "u": statement.pipeline.to_vec(),
                // Constants, unlike those of `let`: never taken for expressions.
                "c": statement.variables,
                "upsert": statement.upsert,
                "multi": false,
            }
        });
        let done = self.change_many(statements.collect()).await?;
        let count = match done.found.get("n") {
            Some(Bson::Int32(count)) => usize::try_from(*count).ok(),
            Some(Bson::Int64(count)) => usize::try_from(*count).ok(),
            _ => None,
        };
        let matched = count.ok_or_else(|| garbled("the answer has no count"))?;
        let mut failed = BTreeMap::new();
        for each in done.found.get_array("writeErrors").into_iter().flatten() {
            let each = each.as_document().ok_or_else(|| garbled("the answer has an error that can't be read"))?;
            let at = each.get_i32("index").ok().and_then(|at| usize::try_from(at).ok());
            let at = at.ok_or_else(|| garbled("the answer has an error of no statement"))?;
            let said = each.get_str("errmsg").unwrap_or_default().to_owned();
            failed.insert(at, (each.get_i32("code").unwrap_or_default(), said));
        }
        let time = done.found.get_timestamp("operationTime").ok();
        Ok(Outcome { matched, failed, in_doubt: done.in_doubt, time })
    }

    /// The records of these locks, by name; see [`Query::settled`].
    pub(crate) async fn find_all(
        self: &Arc<Self>,
        names: Vec<&LockName>,
        settled: Option<Timestamp>,
    ) -> Result<HashMap<String, Document>, StoreError> {
        let names: Vec<&str> = names.into_iter().map(LockName::as_str).collect();
        let most = names.len();
        let found = self.read(Query { filter: doc! { "_id": { "$in": names } }, most, settled }).await?;
        let named = |record: Document| match record.get_str("_id") {
            Ok(name) => Ok((name.to_owned(), record)),
            Err(error) => Err(corrupt("a record has no name").caused_by(error)),
        };
        found.into_iter().map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::Applied;

    fn outcome(matched: usize, failed: &[(usize, i32)], in_doubt: bool) -> Outcome {
        let failed = failed.iter().map(|(at, code)| (*at, (*code, "some".to_owned()))).collect();
        Outcome { matched, failed, in_doubt, time: None }
    }

    #[test]
    fn a_statements_error_keeps_the_doubt_of_an_earlier_attempt() {
        assert_eq!(outcome(1, &[(0, 16554)], false).error(0).unwrap().applied(), Applied::No);
        assert_eq!(outcome(1, &[(0, 16554)], true).error(0).unwrap().applied(), Applied::Maybe);
        assert!(outcome(1, &[(0, 16554)], true).error(1).is_none());
        // A race and a primary that steps down: to be sent alone.
        for code in [11000, 112, 10107, 11602] {
            assert!(outcome(1, &[(0, code)], true).error(0).is_none(), "{code}");
        }
    }

    #[test]
    fn a_release_is_told_by_what_stands_in_the_record() {
        let released = |outcome: Outcome, seen: &[bool]| outcome.released(0, seen);
        let yes = Some(Ok(Released::Released));
        let plain =
            |answer: Option<Result<Released, StoreError>>| answer.map(|answer| answer.map_err(|error| error.applied()));
        assert_eq!(plain(released(outcome(2, &[], false), &[true, true])), yes);
        // The first attempt did it, whatever the second one ran into.
        assert_eq!(plain(released(outcome(0, &[(0, 16554)], true), &[true, false])), yes);
        assert_eq!(plain(released(outcome(1, &[], false), &[false, true])), Some(Ok(Released::NotHeld)));
        assert_eq!(plain(released(outcome(2, &[], false), &[false, true])), Some(Err(Applied::Maybe)));
        // A write conflict or a step-down isn't "not held".
        for code in [112, 10107] {
            assert_eq!(plain(released(outcome(1, &[(0, code)], false), &[false, true])), None);
        }
        assert_eq!(plain(released(outcome(1, &[], true), &[false, true])), None);
    }
}
