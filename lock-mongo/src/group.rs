//! Many requests in one `update` command, each a statement of its own, and what became of each.
//!
//! The command tells how many records matched, and no more. So each request writes a random number of its own into the
//! record it changes; where the count leaves a doubt, one `find` tells whose number stands there. A number that stands
//! there says what the acknowledged command did, however old the view of the server that is read from.

use std::collections::{BTreeMap, HashMap};

use lock_core::{LockName, StoreError};
use mongodb::bson::{Bson, Document, doc};

use crate::{
    error,
    operation::{Query, Runner},
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
}

impl Outcome {
    /// Whether every statement found its record, in this very attempt.
    pub(crate) fn is_complete(&self, statements: usize) -> bool {
        !self.in_doubt && self.failed.is_empty() && self.matched == statements
    }

    /// The error of a statement, unless it is one to be tried again by itself.
    pub(crate) fn error(&self, at: usize) -> Option<StoreError> {
        let (code, said) = self.failed.get(&at)?;
        (!error::raced(*code)).then(|| error::of_statement(*code, said))
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
        Ok(Outcome { matched, failed, in_doubt: done.in_doubt })
    }

    /// The records of these locks, by name.
    pub(crate) async fn find_all(
        self: &Arc<Self>,
        names: Vec<&LockName>,
    ) -> Result<HashMap<String, Document>, StoreError> {
        let names: Vec<&str> = names.into_iter().map(LockName::as_str).collect();
        let most = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let found = self.read(Query { filter: doc! { "_id": { "$in": names } }, most }).await?;
        let named = |record: Document| match record.get_str("_id") {
            Ok(name) => Ok((name.to_owned(), record)),
            Err(error) => Err(corrupt("a record has no name").caused_by(error)),
        };
        found.into_iter().map(named).collect()
    }
}
