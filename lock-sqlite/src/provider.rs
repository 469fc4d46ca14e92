//! The contract, kept in an SQLite file.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use lock_core::{
    AcquireRequest, Acquired, Capabilities, ErrorKind, ListRequest, LockName, LockProvider, LockStatus, Operation,
    OwnerId, ReleaseRequest, Released, RenewRequest, Renewed, Request, StoreError, Watch,
};

use crate::{ledger::Ledger, row, store::Store, wake};

/// This store's word in capabilities and errors.
pub(crate) const STORE: &str = "sqlite";

/// The longest page of a list.
const PAGE_MAX: u32 = 1000;

/// Locks in an SQLite file, shared by the processes of one host. Clones share their connections.
///
/// Cancel safety: an operation dropped before its transaction began did nothing; one dropped later is carried to its
/// end behind, and its outcome is unknown to who dropped it.
#[derive(Clone)]
pub struct SqliteLocks {
    pub(crate) store: Arc<Store>,
}

impl fmt::Debug for SqliteLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLocks").field("path", &self.store.path).finish_non_exhaustive()
    }
}

/// What a plain read of the records can already answer.
type Look<R, A> = fn(&Ledger, &R) -> Option<Result<A, StoreError>>;

impl SqliteLocks {
    /// Judges a group of requests in one transaction; each one's answer, in the order of the requests.
    ///
    /// What `first` can answer from a plain read isn't asked for under the write lock.
    async fn group<R: Request, A: Send + 'static>(
        &self,
        requests: &[R],
        first: Option<Look<R, A>>,
        judge: fn(&mut Ledger, &R) -> Result<A, StoreError>,
    ) -> Vec<Result<A, StoreError>> {
        let mut answers: Vec<Option<Result<A, StoreError>>> =
            requests.iter().map(|request| request.check(self.capabilities()).err().map(Err)).collect();
        let mut failure = None;
        if let Some(first) = first {
            match self.store.read(&open(requests, &answers).map(|(_, r)| r.name().clone()).collect::<Vec<_>>()).await {
                Ok(ledger) => {
                    for (answer, request) in answers.iter_mut().zip(requests).filter(|(answer, _)| answer.is_none()) {
                        *answer = first(&ledger, request);
                    }
                }
                Err(why) => failure = Some(why),
            }
        }
        let asked: Vec<(usize, R)> = open(requests, &answers).map(|(at, request)| (at, request.clone())).collect();
        if failure.is_none() && !asked.is_empty() {
            let names = asked.iter().map(|(_, request)| request.name().clone()).collect();
            let all = move |ledger: &mut Ledger| -> Vec<_> {
                asked.iter().map(|(at, request)| (*at, judge(ledger, request))).collect()
            };
            match self.store.change(names, all).await {
                Ok(judged) => judged.into_iter().for_each(|(at, answer)| answers[at] = Some(answer)),
                Err(why) => failure = Some(why),
            }
        }
        let unanswered =
            || failure.clone().unwrap_or_else(|| StoreError::unknown(ErrorKind::Other, "the request got no answer"));
        let place = |why: StoreError, request: &R| why.at(STORE, R::OPERATION, Some(request.name()));
        let answered = answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unanswered())));
        answered.zip(requests).map(|(answer, request)| answer.map_err(|why| place(why, request))).collect()
    }
}

/// The requests that have no answer yet, and where they stand.
fn open<'a, R, A>(requests: &'a [R], answers: &'a [Option<A>]) -> impl Iterator<Item = (usize, &'a R)> {
    requests.iter().enumerate().filter(|(at, _)| answers[*at].is_none())
}

/// The one answer of a group of one.
fn single<A>(answers: Vec<Result<A, StoreError>>) -> Result<A, StoreError> {
    let none = || Err(StoreError::unknown(ErrorKind::Other, "the request got no answer"));
    answers.into_iter().next().unwrap_or_else(none)
}

/// Who is refused takes no write lock: twenty processes may wait for one file, or ask for one tick.
fn refused_by_a_look(ledger: &Ledger, request: &AcquireRequest) -> Option<Result<Acquired, StoreError>> {
    ledger.refusal(request).transpose()
}

/// The first text that sorts after everything that begins with `prefix`; `None` if there is no such text.
///
/// UTF-8 sorts by bytes as its characters sort by number.
fn past(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[async_trait]
impl LockProvider for SqliteLocks {
    fn capabilities(&self) -> &Capabilities {
        &self.store.capabilities
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        single(self.acquire_many(std::slice::from_ref(request)).await)
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        single(self.renew_many(std::slice::from_ref(request)).await)
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        single(self.release_many(std::slice::from_ref(request)).await)
    }

    async fn watch(&self, name: &LockName, _owner: OwnerId) -> Result<Watch, StoreError> {
        let watch = self.store.wakes.subscribe(name);
        wake::listen(&self.store);
        Ok(watch)
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let place = |why: StoreError| why.at(STORE, Operation::Inspect, Some(name));
        let mut ledger = self.store.read(std::slice::from_ref(name)).await.map_err(place)?;
        let record = ledger.records.remove(name).transpose().map_err(place)?;
        Ok(record.map(|record| record.status(name, ledger.now)))
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        let place = |why: StoreError| why.at(STORE, Operation::List, None);
        let after = request.after.as_ref().map_or("", LockName::as_str);
        let limit = request.limit.clamp(1, PAGE_MAX);
        let database = self.store.database().await.map_err(place)?;
        let rows = database.page(&request.prefix, past(&request.prefix), after, limit).await.map_err(place)?;
        let now = self.store.time.clock.now();
        let status = |row| {
            let (name, record) = row::parse(row, &self.store.time.boot_id).map_err(place)?;
            let record = record.map_err(|why| why.at(STORE, Operation::List, Some(&name)))?;
            Ok(record.status(&name, now))
        };
        rows.into_iter().map(status).collect()
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let wanted = name.clone();
        let forced = self.store.change(vec![name.clone()], move |ledger| ledger.force_release(&wanted)).await;
        forced.map_err(|why| why.at(STORE, Operation::ForceRelease, Some(name)))
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        self.group(requests, Some(refused_by_a_look), Ledger::acquire).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        self.group(requests, None, Ledger::renew).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        self.group(requests, None, Ledger::release).await
    }
}

#[cfg(test)]
mod tests {
    use super::past;

    #[test]
    fn the_end_of_a_prefix_is_past_all_that_begin_so() {
        assert_eq!(past(""), None);
        assert_eq!(past("a").as_deref(), Some("b"));
        assert_eq!(past("a%").as_deref(), Some("a&"));
        assert_eq!(past("\u{d7ff}").as_deref(), Some("\u{e000}"), "surrogates are no characters");
        assert_eq!(past("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(past("\u{10ffff}"), None);
    }
}
