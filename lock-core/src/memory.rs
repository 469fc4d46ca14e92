//! Locks in this process's memory: for tests, and for programs of one process.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    capability::{Capabilities, KeptBy, TtlRange, Wake},
    clock::{Clock, Moment, SystemClock},
    error::StoreError,
    name::LockName,
    owner::OwnerId,
    provider::LockProvider,
    record::{Record, Verdict},
    request::{AcquireRequest, Acquired, ListRequest, LockStatus, ReleaseRequest, Released, RenewRequest, Renewed},
    wake::{WakeHub, Watch},
};

/// A store that lives in this process. Clones share their locks.
///
/// It is the contract in its plainest form: read it before writing a provider.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), lock_core::StoreError> {
/// use std::time::Duration;
/// use lock_core::*;
///
/// let store = MemoryLocks::new();
/// let name = LockName::new("invoice-42")?;
/// let mine = AcquireRequest::new(name.clone(), OwnerId::random(&OsEntropy), Duration::from_secs(10));
/// assert!(matches!(store.acquire(&mine).await?, Acquired::Granted(_)));
/// let yours = AcquireRequest::new(name, OwnerId::random(&OsEntropy), Duration::from_secs(10));
/// assert!(matches!(store.acquire(&yours).await?, Acquired::Held(_)));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryLocks {
    records: Arc<Mutex<BTreeMap<LockName, Record>>>,
    clock: Arc<dyn Clock>,
    wakes: WakeHub,
    capabilities: Capabilities,
}

/// How long the record of an idle lock is kept, counted from the end of its lease.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

impl MemoryLocks {
    /// An empty store on the host's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty store on a given clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let mut capabilities = Capabilities::new("memory");
        capabilities.ttl = TtlRange {
            min: Duration::from_millis(10),
            max: Duration::from_secs(24 * 3600),
            granularity: Duration::from_nanos(1),
        };
        capabilities.wake = Wake::Event;
        capabilities.minimum_hold = KeptBy::Store;
        capabilities.ticks = true;
        Self { records: Arc::default(), clock, wakes: WakeHub::default(), capabilities }
    }

    /// Deletes one lock's record, as an operator might; `true` if there was one.
    pub fn delete_record(&self, name: &LockName) -> bool {
        let deleted = self.records().remove(name).is_some();
        self.wakes.wake(name.as_str());
        deleted
    }

    /// Deletes all records, as an operator might.
    pub fn wipe(&self) {
        self.records().clear();
        self.wakes.wake_all();
    }

    /// One atomic step: the judgement by the record as it is now, and the change that comes of it.
    fn judge<A>(&self, name: &LockName, judge: impl FnOnce(Option<&Record>, Moment) -> Verdict<A>) -> A {
        let mut records = self.records();
        let now = self.clock.now();
        let Verdict { answer, change } = judge(records.get(name), now);
        if let Some(change) = change {
            // Swept each time it has doubled, so that dynamic names don't fill the memory, at a cost spread evenly.
            if !records.contains_key(name) && records.len() >= 1024 && records.len().is_power_of_two() {
                records.retain(|_, record| record.taken_until + RETENTION > now);
            }
            records.insert(name.clone(), change);
        }
        answer
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<LockName, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryLocks {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLocks").field("records", &self.records().len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl LockProvider for MemoryLocks {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        request.check(&self.capabilities)?;
        Ok(self.judge(&request.name, |before, now| Record::acquire(before, request, now, self.clock.wall_micros())))
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        request.check(&self.capabilities)?;
        Ok(self.judge(&request.name, |before, now| Record::renew(before, request, now)))
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        request.check(&self.capabilities)?;
        let answer = self.judge(&request.name, |before, now| Record::release(before, request, now));
        if answer == Released::Released {
            self.wakes.wake(request.name.as_str());
        }
        Ok(answer)
    }

    async fn watch(&self, name: &LockName, _owner: OwnerId) -> Result<Watch, StoreError> {
        Ok(self.wakes.subscribe(name))
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        Ok(self.records().get(name).map(|record| record.status(name, self.clock.now())))
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        let now = self.clock.now();
        let wanted = |name: &LockName| {
            name.as_str().starts_with(&request.prefix) && request.after.as_ref().is_none_or(|after| name > after)
        };
        let records = self.records();
        let page = records.iter().filter(|(name, _)| wanted(name)).take(request.limit as usize);
        Ok(page.map(|(name, record)| record.status(name, now)).collect())
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let held = self.judge(name, Record::force_release);
        self.wakes.wake(name.as_str());
        Ok(held)
    }
}
