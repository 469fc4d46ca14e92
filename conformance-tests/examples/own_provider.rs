//! A provider of your own, and the suite over it: locks in a `HashMap`.
//!
//! ```console
//! $ cargo run -p conformance-tests --example own_provider
//! $ cargo run -p conformance-tests --example own_provider -- grants::
//! ```
//!
//! `docs/writing-a-provider.md` goes through it.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::{Counted, Failure, Faulty, Harness, Hook, Lacking, Missing, Unreliable, suite};
use lock_core::{
    AcquireRequest, Acquired, Capabilities, Clock, ErrorKind, KeptBy, ListRequest, LockName, LockProvider, LockStatus,
    Moment, Operation, OwnerId, Record, ReleaseRequest, Released, RenewRequest, Renewed, Request, StoreError,
    SystemClock, TtlRange, Verdict, Wake, WakeHub, Watch, in_waves,
};

const STORE: &str = "hashmap";

/// How long the record of an idle lock is kept, counted from the end of its lease.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Locks in a `HashMap`. Clones share it.
#[derive(Clone, Debug)]
struct HashLocks {
    records: Arc<Mutex<HashMap<LockName, Record>>>,
    clock: Arc<dyn Clock>,
    wakes: WakeHub,
    capabilities: Capabilities,
}

impl HashLocks {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let mut capabilities = Capabilities::new(STORE);
        capabilities.ttl = TtlRange {
            min: Duration::from_millis(10),
            max: Duration::from_secs(24 * 3600),
            granularity: Duration::from_nanos(1),
        };
        capabilities.wake = Wake::Event;
        capabilities.minimum_hold = KeptBy::Store;
        capabilities.ticks = true;
        capabilities.grouping = NonZeroUsize::new(64);
        Self { records: Arc::default(), clock, wakes: WakeHub::default(), capabilities }
    }

    /// Begins an atomic step.
    fn step(&self) -> Result<Step<'_>, StoreError> {
        let records = self.records.lock().map_err(|_| {
            let message = "a thread panicked in the midst of a change; nobody can tell what the map is worth";
            StoreError::refused(ErrorKind::NotReady, message)
        })?;
        // Read now that nobody else can change a record, and not before.
        Ok(Step { records, now: self.clock.now(), wall_micros: self.clock.wall_micros() })
    }

    /// One request: checked, judged in a step of its own, and an error told with its place.
    fn ask<R: Request, A>(&self, request: &R, judge: Judge<R, A>) -> Result<A, StoreError> {
        let answer = request.check(&self.capabilities).and_then(|()| Ok(self.step()?.judge(request, judge)));
        answer.map_err(|error| error.at(STORE, R::OPERATION, Some(request.name())))
    }

    /// Many requests, as many in one step as the capabilities say.
    async fn ask_many<R: Request, A>(&self, requests: &[R], judge: Judge<R, A>) -> Vec<Result<A, StoreError>> {
        let wave = |wave: Vec<&R>| {
            let step = self.step();
            let answers = step.map(|mut step| wave.into_iter().map(|request| Ok(step.judge(request, judge))).collect());
            std::future::ready(answers)
        };
        in_waves(requests, &self.capabilities, wave).await
    }

    /// Has those who wait for it ask again.
    fn wake_if_released(&self, request: &ReleaseRequest, answer: &Result<Released, StoreError>) {
        if matches!(answer, Ok(Released::Released)) {
            self.wakes.wake_one(&request.name);
        }
    }
}

/// What a lock's record says to a request, at this moment and this wall clock.
type Judge<R, A> = fn(Option<&Record>, &R, Moment, u64) -> Verdict<A>;

/// What a transaction is elsewhere: while it is there, nobody else can see or change a record.
struct Step<'a> {
    records: MutexGuard<'a, HashMap<LockName, Record>>,
    now: Moment,
    wall_micros: u64,
}

impl Step<'_> {
    fn judge<R: Request, A>(&mut self, request: &R, judge: Judge<R, A>) -> A {
        let verdict = judge(self.records.get(request.name()), request, self.now, self.wall_micros);
        self.write(request.name(), verdict)
    }

    fn write<A>(&mut self, name: &LockName, Verdict { answer, change }: Verdict<A>) -> A {
        if let Some(record) = change {
            // Swept each time it has doubled, so that names that are used once don't fill the map.
            if !self.records.contains_key(name) && self.records.len() >= 1024 && self.records.len().is_power_of_two() {
                self.records.retain(|_, record| record.taken_until + RETENTION > self.now);
            }
            self.records.insert(name.clone(), record);
        }
        answer
    }
}

fn renewal(before: Option<&Record>, request: &RenewRequest, now: Moment, _wall_micros: u64) -> Verdict<Renewed> {
    Record::renew(before, request, now)
}

fn release(before: Option<&Record>, request: &ReleaseRequest, now: Moment, _wall_micros: u64) -> Verdict<Released> {
    Record::release(before, request, now)
}

#[async_trait]
impl LockProvider for HashLocks {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        self.ask(request, Record::acquire)
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        self.ask(request, renewal)
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        let answer = self.ask(request, release);
        self.wake_if_released(request, &answer);
        answer
    }

    async fn watch(&self, name: &LockName, _owner: OwnerId) -> Result<Watch, StoreError> {
        Ok(self.wakes.subscribe(name))
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let step = self.step().map_err(|error| error.at(STORE, Operation::Inspect, Some(name)))?;
        Ok(step.records.get(name).map(|record| record.status(name, step.now)))
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        let step = self.step().map_err(|error| error.at(STORE, Operation::List, None))?;
        let wanted = |name: &LockName| {
            name.as_str().starts_with(&request.prefix) && request.after.as_ref().is_none_or(|after| name > after)
        };
        let mut page: Vec<_> = step.records.iter().filter(|(name, _)| wanted(name)).collect();
        page.sort_by_key(|(name, _)| *name);
        Ok(page.into_iter().take(request.limit as usize).map(|(name, record)| record.status(name, step.now)).collect())
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let held = {
            let mut step = self.step().map_err(|error| error.at(STORE, Operation::ForceRelease, Some(name)))?;
            let verdict = Record::force_release(step.records.get(name), step.now);
            step.write(name, verdict)
        };
        self.wakes.wake_one(name);
        Ok(held)
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        self.ask_many(requests, Record::acquire).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        self.ask_many(requests, renewal).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        let answers = self.ask_many(requests, release).await;
        requests.iter().zip(&answers).for_each(|(request, answer)| self.wake_if_released(request, answer));
        answers
    }
}

/// What the suite has to know of it.
struct HashHarness {
    locks: HashLocks,
    commands: Arc<AtomicU64>,
}

#[async_trait]
impl Harness for HashHarness {
    async fn open() -> Result<Self, Missing> {
        Ok(Self { locks: HashLocks::new(Arc::new(SystemClock)), commands: Arc::default() })
    }

    fn store(&self) -> &'static str {
        STORE
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(Counted::new(Arc::new(self.locks.clone()), self.commands.clone())))
    }

    fn skewed_provider(&self, _micros: i64) -> Hook<'_, Arc<dyn LockProvider>> {
        Err(Lacking::new("clients have no clock but the map's"))
    }

    fn delete_record<'a>(&'a self, name: &'a LockName) -> Hook<'a> {
        Ok(Box::pin(
            async move { self.locks.step().map(|mut step| _ = step.records.remove(name)).map_err(Failure::from) },
        ))
    }

    fn wipe(&self) -> Hook<'_> {
        Ok(Box::pin(async move { self.locks.step().map(|mut step| step.records.clear()).map_err(Failure::from) }))
    }

    fn faulty(&self) -> Hook<'_, Faulty> {
        Ok(Box::pin(async move {
            let unreliable = Arc::new(Unreliable::new(self.provider().await?));
            Ok(Faulty { provider: unreliable.clone(), faults: unreliable })
        }))
    }

    fn commands(&self) -> Hook<'_, u64> {
        Ok(Box::pin(async move { Ok(self.commands.load(Ordering::SeqCst)) }))
    }
}

suite!(HashHarness);
