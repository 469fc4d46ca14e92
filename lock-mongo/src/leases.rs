//! Grants, renewals and releases: one command for one request, one for a group of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use lock_core::{
    AcquireRequest, Acquired, Entropy, ErrorKind, Grant, OsEntropy, ReleaseRequest, Released, RenewRequest, Renewed,
    StoreError, Waiting,
};
use mongodb::{
    bson::{Document, doc},
    options::ReturnDocument,
};

use crate::{
    group::Statement,
    operation::{Change, Runner},
    records::{self, Record, garbled, millis, millis_from_now, token_value},
    sweep::Sweeper,
};

type Answers<A> = Vec<Result<A, StoreError>>;

/// Who hands leases out.
pub(crate) struct Leases {
    pub(crate) runner: Arc<Runner>,
    pub(crate) sweeper: Sweeper,
    pub(crate) grace: Duration,
    pub(crate) retention: Duration,
}

impl Leases {
    fn acquire_statement(&self, request: &AcquireRequest, change: i64) -> Result<Statement, StoreError> {
        Ok(Statement {
            filter: doc! { "_id": request.name.as_str() },
            pipeline: Arc::clone(&self.runner.pipelines.acquire),
            variables: doc! {
                "owner": request.owner.to_string(),
                "ttl": millis_from_now(request.ttl),
                "grace": millis(self.grace),
                "retention": millis(self.retention),
                "holder": records::holder_document(&request.holder)?,
                "change": change,
            },
            upsert: true,
        })
    }

    fn renew_statement(&self, request: &RenewRequest, change: i64) -> Statement {
        Statement {
            filter: self.runner.pipelines.held_by(&request.name, request.owner, Some(token_value(request.token))),
            pipeline: Arc::clone(&self.runner.pipelines.renew),
            variables: doc! {
                "ttl": millis_from_now(request.ttl),
                "grace": millis(self.grace),
                "retention": millis(self.retention),
                "change": change,
            },
            upsert: false,
        }
    }

    fn release_statement(&self, request: &ReleaseRequest, change: i64) -> Statement {
        Statement {
            filter: self.runner.pipelines.held_by(&request.name, request.owner, request.token.map(token_value)),
            pipeline: Arc::clone(&self.runner.pipelines.release),
            variables: doc! {
                "keep": millis_from_now(request.keep_for),
                "retention": millis(self.retention),
                "change": change,
            },
            upsert: false,
        }
    }

    async fn acquire_one(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        let change = fresh();
        let statement = self.acquire_statement(request, change)?;
        let done = self.runner.change(alone(statement)).await?;
        let fields = done.found.ok_or_else(|| garbled("the answer has no record"))?;
        told(request, &Record::new(&fields), change)
    }

    async fn renew_one(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        let done = self.runner.change(alone(self.renew_statement(request, fresh()))).await?;
        Ok(if done.found.is_some() { Renewed::Held(request.ttl) } else { Renewed::Lost })
    }

    async fn release_one(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        let change = fresh();
        let done = self.runner.change(alone(self.release_statement(request, change))).await?;
        match done.found {
            Some(_) => Ok(Released::Released),
            None if !done.in_doubt => Ok(Released::NotHeld),
            None => {
                let found = self.runner.find_all(vec![&request.name]).await.map_err(unread)?;
                let released = found.get(request.name.as_str()).is_some_and(|it| was_released(it, change));
                if released { Ok(Released::Released) } else { Err(in_doubt("it isn't yours any more")) }
            }
        }
    }

    /// Who waits is mostly refused, and looks first: a read is answered at once, but a change that changes nothing only
    /// when a majority has all that others changed before it.
    pub(crate) async fn acquire_wave(&self, asked: &[&AcquireRequest]) -> Result<Answers<Acquired>, StoreError> {
        self.sweeper.look(&self.runner);
        let waiting: Vec<_> = asked.iter().filter(|one| one.waiting != Waiting::No).map(|one| &one.name).collect();
        let seen = if waiting.is_empty() { HashMap::new() } else { self.runner.find_all(waiting).await? };
        let refused = |request: &AcquireRequest| Record::new(seen.get(request.name.as_str())?).refuses(request.owner);
        let refusals: Vec<Option<Acquired>> = asked.iter().map(|request| refused(request)).collect();
        let rest: Vec<&AcquireRequest> =
            asked.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none()).map(|(request, _)| *request).collect();
        let mut answers = self.hand_out(&rest).await?.into_iter();
        let answer = |refusal: Option<Acquired>| match refusal {
            Some(refusal) => Ok(refusal),
            None => answers.next().unwrap_or_else(|| Err(garbled("an answer is missing"))),
        };
        Ok(refusals.into_iter().map(answer).collect())
    }

    async fn hand_out(&self, asked: &[&AcquireRequest]) -> Result<Answers<Acquired>, StoreError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        if let [request] = asked {
            return Ok(vec![self.acquire_one(request).await]);
        }
        let changes: Vec<i64> = asked.iter().map(|_| fresh()).collect();
        let statements = asked.iter().zip(&changes).map(|(request, change)| self.acquire_statement(request, *change));
        let outcome = self.runner.change_all(statements.collect::<Result<_, _>>()?).await?;
        let found = self.runner.find_all(asked.iter().map(|one| &one.name).collect()).await;
        let found = found.map_err(unread)?;
        let answers = asked.iter().zip(&changes).enumerate().map(|(at, (request, change))| {
            let (outcome, found) = (&outcome, &found);
            async move {
                if let Some(error) = outcome.error(at) {
                    return Err(error);
                }
                let record = found.get(request.name.as_str()).map(Record::new);
                match record {
                    // A record that is gone, an insert that raced with another, a request of this owner that overtook this
                    // one: rare, and to be asked for alone.
                    None => self.acquire_one(request).await,
                    Some(_) if outcome.failed.contains_key(&at) => self.acquire_one(request).await,
                    Some(record) if !record.was_changed_by(*change) && record.owner()? == Some(request.owner) => {
                        self.acquire_one(request).await
                    }
                    Some(record) => told(request, &record, *change),
                }
            }
        });
        Ok(join_all(answers).await)
    }

    pub(crate) async fn renew_wave(&self, asked: &[&RenewRequest]) -> Result<Answers<Renewed>, StoreError> {
        if let [request] = asked {
            return Ok(vec![self.renew_one(request).await]);
        }
        let changes: Vec<i64> = asked.iter().map(|_| fresh()).collect();
        let statements = asked.iter().zip(&changes).map(|(request, change)| self.renew_statement(request, *change));
        let outcome = self.runner.change_all(statements.collect()).await?;
        if outcome.is_complete(asked.len()) {
            return Ok(asked.iter().map(|request| Ok(Renewed::Held(request.ttl))).collect());
        }
        let found = self.runner.find_all(asked.iter().map(|one| &one.name).collect()).await.map_err(unread)?;
        let answers = asked.iter().zip(&changes).enumerate().map(|(at, (request, change))| {
            let (outcome, found) = (&outcome, &found);
            async move {
                if let Some(error) = outcome.error(at) {
                    return Err(error);
                }
                match found.get(request.name.as_str()).map(Record::new) {
                    Some(record) if record.was_changed_by(*change) => Ok(Renewed::Held(request.ttl)),
                    // Lost, or renewed by another request since: asked alone, it is told exactly.
                    _ => self.renew_one(request).await,
                }
            }
        });
        Ok(join_all(answers).await)
    }

    pub(crate) async fn release_wave(&self, asked: &[&ReleaseRequest]) -> Result<Answers<Released>, StoreError> {
        if let [request] = asked {
            return Ok(vec![self.release_one(request).await]);
        }
        let changes: Vec<i64> = asked.iter().map(|_| fresh()).collect();
        let statements = asked.iter().zip(&changes).map(|(request, change)| self.release_statement(request, *change));
        let outcome = self.runner.change_all(statements.collect()).await?;
        if outcome.is_complete(asked.len()) {
            return Ok(asked.iter().map(|_| Ok(Released::Released)).collect());
        }
        let found = self.runner.find_all(asked.iter().map(|one| &one.name).collect()).await;
        let found = found.map_err(unread)?;
        let seen: Vec<bool> = asked
            .iter()
            .zip(&changes)
            .map(|(request, change)| found.get(request.name.as_str()).is_some_and(|it| was_released(it, *change)))
            .collect();
        // If as many are seen as there were, the others were not held; else one may have been released and since taken
        // and released again.
        let all_seen = !outcome.in_doubt && seen.iter().filter(|seen| **seen).count() == outcome.matched;
        let answer = |(at, seen): (usize, &bool)| match (outcome.error(at), seen) {
            (Some(error), _) => Err(error),
            (None, true) => Ok(Released::Released),
            (None, false) if all_seen => Ok(Released::NotHeld),
            (None, false) => Err(in_doubt("it isn't yours any more")),
        };
        Ok(seen.iter().enumerate().map(answer).collect())
    }
}

/// A number for one request, which no other one has.
pub(crate) fn fresh() -> i64 {
    i64::from_ne_bytes(OsEntropy.next_u64().to_ne_bytes())
}

/// A statement as a command of its own, answered with the record as it is afterwards.
fn alone(statement: Statement) -> Change {
    let Statement { filter, pipeline, variables, upsert } = statement;
    Change { filter, pipeline, variables, upsert, returned: ReturnDocument::After }
}

/// What a record says to the request that may have changed it.
fn told(request: &AcquireRequest, record: &Record<'_>, change: i64) -> Result<Acquired, StoreError> {
    if record.was_changed_by(change) {
        return Ok(Acquired::Granted(Grant::new(record.token()?, request.ttl)));
    }
    Ok(Acquired::Held(record.held()))
}

fn was_released(fields: &Document, change: i64) -> bool {
    Record::new(fields).was_released_by(change)
}

/// It was the reading that failed; what was changed before it stays changed.
fn unread(error: StoreError) -> StoreError {
    StoreError::unknown(error.kind(), error.to_string()).caused_by(error)
}

/// What a release finds whose earlier attempt may have done it.
pub(crate) fn in_doubt(what_is_known: &str) -> StoreError {
    let message = format!("the connection broke; {what_is_known}, by this release or since before");
    StoreError::unknown(ErrorKind::Unreachable, message)
}
