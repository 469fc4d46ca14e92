//! The judgement: what the records say to a request. Pure; the transaction around it makes it atomic.

use std::collections::{BTreeMap, BTreeSet};

use lock_core::{
    AcquireRequest, Acquired, FencingToken, LockName, Moment, Record, ReleaseRequest, Released, RenewRequest, Renewed,
    StoreError, Verdict,
};

/// Some locks' records as read at one moment, and the changes decided since.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// By name; an error is a record that can't be understood.
    pub(crate) records: BTreeMap<LockName, Result<Record, StoreError>>,
    pub(crate) changed: BTreeSet<LockName>,
    /// Of those, the ones that somebody gave back: their watchers are to be woken.
    pub(crate) freed: BTreeSet<LockName>,
    /// The store's clock. Within a transaction it was read after the write lock was had.
    pub(crate) now: Moment,
    /// The wall clock at the same moment, in microseconds since 1970: for tokens.
    pub(crate) wall_micros: u64,
}

impl Ledger {
    fn record(&self, name: &LockName) -> Result<Option<&Record>, StoreError> {
        match self.records.get(name) {
            None => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            Some(Err(corrupt)) => Err(corrupt.clone()),
        }
    }

    /// Takes in what was decided, and gives the answer on.
    fn enter<A>(&mut self, name: &LockName, verdict: Verdict<A>) -> A {
        if let Some(record) = verdict.change {
            self.records.insert(name.clone(), Ok(record));
            self.changed.insert(name.clone());
        }
        verdict.answer
    }

    /// The refusal, if the lock is somebody else's or the tick was used up, which it stays; `None` if it is worth asking
    /// for under the write lock.
    pub(crate) fn refusal(&self, request: &AcquireRequest) -> Result<Option<Acquired>, StoreError> {
        let before = self.record(&request.name)?;
        Ok(match Record::acquire(before, request, self.now, self.wall_micros).answer {
            refusal @ (Acquired::Held(_) | Acquired::Finished(_)) => Some(refusal),
            _ => None,
        })
    }

    pub(crate) fn acquire(&mut self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        let verdict = Record::acquire(self.record(&request.name)?, request, self.now, self.wall_micros);
        Ok(self.enter(&request.name, verdict))
    }

    pub(crate) fn renew(&mut self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        let verdict = Record::renew(self.record(&request.name)?, request, self.now);
        Ok(self.enter(&request.name, verdict))
    }

    pub(crate) fn release(&mut self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        let verdict = Record::release(self.record(&request.name)?, request, self.now);
        let answer = self.enter(&request.name, verdict);
        if answer == Released::Released {
            self.freed.insert(request.name.clone());
        }
        Ok(answer)
    }

    /// Also mends a record that can't be understood: its next token comes from the wall clock, and its last tick stays if
    /// that one could be read (`write.sql`).
    pub(crate) fn force_release(&mut self, name: &LockName) -> bool {
        let verdict = match self.record(name) {
            Ok(before) => Record::force_release(before, self.now),
            Err(_) => {
                let mended =
                    Record { token: FencingToken::new(0), taken_until: self.now, lease: None, last_tick: None };
                Verdict { answer: true, change: Some(mended) }
            }
        };
        if verdict.change.is_some() {
            self.freed.insert(name.clone());
        }
        self.enter(name, verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::{ErrorKind, OwnerId};
    use std::time::Duration;

    const TTL: Duration = Duration::from_secs(10);

    fn ledger() -> Ledger {
        let now = Moment::from_nanos(86_400_000_000_000);
        Ledger {
            records: BTreeMap::new(),
            changed: BTreeSet::new(),
            freed: BTreeSet::new(),
            now,
            wall_micros: 1_000_000,
        }
    }

    fn ask(name: &str, owner: u128) -> AcquireRequest {
        AcquireRequest::new(LockName::new(name).unwrap(), OwnerId::from_u128(owner), TTL)
    }

    fn token(acquired: Acquired) -> FencingToken {
        match acquired {
            Acquired::Granted(grant) => grant.token,
            other => panic!("not granted: {other:?}"),
        }
    }

    #[test]
    fn one_name_twice_in_a_group_goes_to_the_first_owner() {
        let mut ledger = ledger();
        let first = token(ledger.acquire(&ask("x", 1)).unwrap());
        assert!(matches!(ledger.acquire(&ask("x", 2)).unwrap(), Acquired::Held(_)));
        assert_eq!(token(ledger.acquire(&ask("x", 1)).unwrap()), first);
        assert_eq!(ledger.changed.len(), 1);
    }

    #[test]
    fn a_record_nobody_understands_is_an_error_until_it_is_forced() {
        let mut ledger = ledger();
        let name = LockName::new("x").unwrap();
        ledger.records.insert(name.clone(), Err(StoreError::refused(ErrorKind::Corrupt, "bad")));
        assert_eq!(ledger.acquire(&ask("x", 1)).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(ledger.force_release(&name));
        assert!(token(ledger.acquire(&ask("x", 1)).unwrap()).get() >= 1_000_000);
    }
}
