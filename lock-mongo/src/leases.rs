//! Grants, renewals and releases: one command for one request, one for a group of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use lock_core::{
    AcquireRequest, Acquired, Entropy, ErrorKind, Grant, LockName, OsEntropy, ReleaseRequest, Released, RenewRequest,
    Renewed, StoreError, Waiting,
};
use mongodb::{
    bson::{Document, doc},
    options::ReturnDocument,
};

use crate::{
    error::was_ended,
    group::Statement,
    operation::{Change, Runner, doubting, group_limit},
    records::{self, Record, garbled, millis, millis_from_now, tick_value, token_value},
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
                "tick": tick_value(request.tick),
                "used": tick_value(request.used_by_grant()),
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
                "done": tick_value(request.done),
                "change": change,
            },
            upsert: false,
        }
    }

    async fn acquire_one(&self, request: &AcquireRequest, limit: Duration) -> Result<Acquired, StoreError> {
        let change = fresh();
        let statement = self.acquire_statement(request, change)?;
        let done = self.runner.change(alone(statement), limit).await?;
        let fields = done.found.ok_or_else(|| garbled("the answer has no record"))?;
        request.after_doubt(told(request, &Record::new(&fields), change)?, done.in_doubt)
    }

    async fn renew_one(&self, request: &RenewRequest, limit: Duration) -> Result<Renewed, StoreError> {
        let done = self.runner.change(alone(self.renew_statement(request, fresh())), limit).await?;
        Ok(if done.found.is_some() { Renewed::Held(request.ttl) } else { Renewed::Lost })
    }

    /// `in_doubt`: whether a command with this number may have released it before.
    async fn release_one(
        &self,
        request: &ReleaseRequest,
        change: i64,
        in_doubt: bool,
        limit: Duration,
    ) -> Result<Released, StoreError> {
        let done = self.runner.change(alone(self.release_statement(request, change)), limit).await;
        let done = done.map_err(|error| doubting(error, in_doubt))?;
        match done.found {
            Some(_) => Ok(Released::Released),
            None if !done.in_doubt && !in_doubt => Ok(Released::NotHeld),
            None => self.was_freed(&request.name, change).await.map(|_| Released::Released),
        }
    }

    /// After a release that found nothing, and whose earlier attempt may have been what freed the lock: `true`, or an
    /// error if that can't be known any more.
    pub(crate) async fn was_freed(&self, name: &LockName, change: i64) -> Result<bool, StoreError> {
        let found = self.runner.find_all(vec![name], None).await.map_err(unread)?;
        if found.get(name.as_str()).is_some_and(|it| was_released(it, change)) { Ok(true) } else { Err(in_doubt()) }
    }

    /// Who waits is mostly refused, and looks first: a read is answered at once, but a change that changes nothing only
    /// when a majority has all that others changed before it.
    pub(crate) async fn acquire_wave(&self, asked: &[&AcquireRequest]) -> Result<Answers<Acquired>, StoreError> {
        self.sweeper.look(&self.runner);
        let waiting: Vec<_> = asked.iter().filter(|one| one.waiting != Waiting::No).map(|one| &one.name).collect();
        let seen = if waiting.is_empty() { HashMap::new() } else { self.runner.find_all(waiting, None).await? };
        let refused = |request: &AcquireRequest| Record::new(seen.get(request.name.as_str())?).refuses(request);
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
            return Ok(vec![self.acquire_one(request, self.runner.timeout).await]);
        }
        let changes: Vec<i64> = asked.iter().map(|_| fresh()).collect();
        let statements = asked.iter().zip(&changes).map(|(request, change)| self.acquire_statement(request, *change));
        let outcome = match self.runner.change_all(statements.collect::<Result<_, _>>()?).await {
            Err(error) if was_ended(&error) => {
                return Ok(join_all(asked.iter().map(|request| self.acquire_one(request, self.rest()))).await);
            }
            outcome => outcome?,
        };
        // A tick is told finished only by what a majority has: others may have changed the record since.
        let settled = outcome.time.filter(|_| asked.iter().any(|request| request.tick.is_some()));
        let found = self.runner.find_all(asked.iter().map(|one| &one.name).collect(), settled).await;
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
                    None => self.acquire_one(request, self.runner.timeout).await,
                    Some(_) if outcome.failed.contains_key(&at) => self.acquire_one(request, self.runner.timeout).await,
                    Some(record) if !record.was_changed_by(*change) && record.owner()? == Some(request.owner) => {
                        self.acquire_one(request, self.runner.timeout).await
                    }
                    Some(record) => request.after_doubt(told(request, &record, *change)?, outcome.in_doubt),
                }
            }
        });
        Ok(join_all(answers).await)
    }

    pub(crate) async fn renew_wave(&self, asked: &[&RenewRequest]) -> Result<Answers<Renewed>, StoreError> {
        if let [request] = asked {
            return Ok(vec![self.renew_one(request, self.runner.timeout).await]);
        }
        let changes: Vec<i64> = asked.iter().map(|_| fresh()).collect();
        let statements = asked.iter().zip(&changes).map(|(request, change)| self.renew_statement(request, *change));
        let outcome = match self.runner.change_all(statements.collect()).await {
            Err(error) if was_ended(&error) => {
                return Ok(join_all(asked.iter().map(|request| self.renew_one(request, self.rest()))).await);
            }
            outcome => outcome?,
        };
        if outcome.is_complete(asked.len()) {
            return Ok(asked.iter().map(|request| Ok(Renewed::Held(request.ttl))).collect());
        }
        let found = self.runner.find_all(asked.iter().map(|one| &one.name).collect(), None).await.map_err(unread)?;
        let answers = asked.iter().zip(&changes).enumerate().map(|(at, (request, change))| {
            let (outcome, found) = (&outcome, &found);
            async move {
                if let Some(error) = outcome.error(at) {
                    return Err(error);
                }
                match found.get(request.name.as_str()).map(Record::new) {
                    Some(record) if record.was_changed_by(*change) => Ok(Renewed::Held(request.ttl)),
                    // Lost, or renewed by another request since: asked alone, it is told exactly.
                    _ => self.renew_one(request, self.runner.timeout).await,
                }
            }
        });
        Ok(join_all(answers).await)
    }

    pub(crate) async fn release_wave(&self, asked: &[&ReleaseRequest]) -> Result<Answers<Released>, StoreError> {
        if let [request] = asked {
            return Ok(vec![self.release_one(request, fresh(), false, self.runner.timeout).await]);
        }
        let changes: Vec<i64> = asked.iter().map(|_| fresh()).collect();
        let statements = asked.iter().zip(&changes).map(|(request, change)| self.release_statement(request, *change));
        let outcome = match self.runner.change_all(statements.collect()).await {
            Err(error) if was_ended(&error) => {
                let each = asked.iter().zip(&changes);
                let alone = each.map(|(request, change)| self.release_one(request, *change, true, self.rest()));
                return Ok(join_all(alone).await);
            }
            outcome => outcome?,
        };
        if outcome.is_complete(asked.len()) {
            return Ok(asked.iter().map(|_| Ok(Released::Released)).collect());
        }
        let found = self.runner.find_all(asked.iter().map(|one| &one.name).collect(), None).await;
        let found = found.map_err(unread)?;
        let seen: Vec<bool> = asked
            .iter()
            .zip(&changes)
            .map(|(request, change)| found.get(request.name.as_str()).is_some_and(|it| was_released(it, *change)))
            .collect();
        let (outcome, seen) = (&outcome, &seen);
        let answers = asked.iter().zip(&changes).enumerate().map(|(at, (request, change))| async move {
            match outcome.released(at, seen) {
                Some(answer) => answer,
                None => self.release_one(request, *change, outcome.in_doubt, self.runner.timeout).await,
            }
        });
        Ok(join_all(answers).await)
    }

    /// What a group's time leaves for its requests alone.
    fn rest(&self) -> Duration {
        self.runner.timeout.saturating_sub(group_limit(self.runner.timeout))
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
        let token =
            record.token().map_err(|error| garbled("granted under a token that can't be read").caused_by(error))?;
        return Ok(Acquired::Granted(Grant::new(token, request.ttl)));
    }
    if let Some(last) = record.finishes(request)? {
        return Ok(Acquired::Finished(last));
    }
    record.is_sound()?;
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
fn in_doubt() -> StoreError {
    let message = "an attempt was left unanswered; the lock isn't held any more, by this release or since before";
    StoreError::unknown(ErrorKind::Unreachable, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::{Applied, OwnerId};
    use mongodb::bson::DateTime;

    #[test]
    fn a_grant_whose_token_cannot_be_read_is_no_refusal() {
        let owner = OwnerId::random(&OsEntropy);
        let request = AcquireRequest::new(LockName::new("x").unwrap(), owner, Duration::from_secs(1));
        let time = DateTime::from_millis(1000);
        let record = doc! { "token": 9e18, "changed_by": 7_i64, "free_at": time, "now": time };
        let applied = |change| told(&request, &Record::new(&record), change).map_err(|error| error.applied());
        assert_eq!(applied(7).unwrap_err(), Applied::Maybe);
        assert_eq!(applied(8).unwrap_err(), Applied::No);
    }
}
