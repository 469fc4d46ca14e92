//! A store that is wrong in one way at a time, on top of one that isn't.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::{Counted, Failure, Faulty, Harness, Hook, Missing, Unreliable};
use futures_util::future::join_all;
use lock_core::{
    AcquireRequest, Acquired, Applied, Capabilities, FencingToken, Grant, Held, ListRequest, LockName, LockProvider,
    LockState, LockStatus, MemoryLocks, OwnerId, ReleaseRequest, Released, RenewRequest, Renewed, StoreError, Tick,
    TickUse, WakeHub, Watch,
};

/// What is wrong with a store. Most of these were seen in somebody's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing: the control.
    None,
    /// An unlock that filters by name only, and so frees the successor (ShedLock #74).
    ReleasesByNameOnly,
    /// The owner is the host's name, so two holders on one host pass each other's check.
    OwnerIsTheHost,
    /// Tokens are kept in the record, so they start anew when it is deleted.
    CountsTokensInTheRecord,
    /// A re-entrant acquire raises the token.
    ReentryRaisesTheToken,
    /// An error on an applied renewal evicts its own holder.
    EvictsOnDoubt,
    /// Says that a request whose reply was lost was not applied.
    DeniesDoubt,
    /// Asks again by itself after a lost reply, and takes its own release for somebody else's.
    DisownsItsRelease,
    RenewsWhatExpired,
    RenewalShortens,
    RenewalDoesNothing,
    ExpiresEarly,
    NeverExpires,
    GrantsWhatIsHeld,
    NeverWakes,
    IgnoresCase,
    ForgetsAtLeastFor,
    HidesTheHolder,
    /// Says that a held lock is as good as free, so that waiters ask again and again.
    SaysNoTimeRemains,
    /// Wakes whoever it refuses, again and again.
    WakesForNothing,
    ListsEverything,
    ForcedReleaseDoesNothing,
    AcceptsAnyTtl,
    /// A grant doesn't use its tick up, so a short job runs on every node in turn.
    ForgetsTicks,
    /// The tick is recorded when the hold is ended, so that one which merely expires takes it along.
    TicksEndWithTheLease,
    /// A release doesn't record the tick that it finishes.
    ForgetsFinishedTicks,
    /// The tick is looked at before the owner, so a call whose answer was lost is refused its own.
    TakesItsOwnTickForAnothers,
}

/// Who asked, and for which tick.
type Asked = (OwnerId, Option<Tick>);

#[derive(Clone, Debug)]
pub(crate) struct Flawed {
    store: Arc<dyn LockProvider>,
    flaw: Flaw,
    /// For each lock that was counted: the last count, and the true token behind it.
    counted: Arc<Mutex<HashMap<LockName, (u64, FencingToken)>>>,
    wakes: WakeHub,
    /// Who asked for which tick of a lock last.
    ticks: Arc<Mutex<HashMap<LockName, Asked>>>,
}

impl Flawed {
    /// Ends the hold of who asked for a tick, which records it.
    async fn record_tick(&self, name: &LockName) -> Result<(), StoreError> {
        let asked = self.ticks.lock().unwrap().get(name).copied();
        if let Some((owner, done)) = asked {
            self.store.release(&ReleaseRequest { done, ..ReleaseRequest::new(name.clone(), owner, None) }).await?;
        }
        Ok(())
    }

    fn name(&self, name: &LockName) -> LockName {
        if self.flaw == Flaw::IgnoresCase { LockName::new(name.as_str().to_lowercase()).unwrap() } else { name.clone() }
    }

    fn owner(&self, owner: OwnerId) -> OwnerId {
        if self.flaw == Flaw::OwnerIsTheHost { OwnerId::from_u128(7) } else { owner }
    }

    /// What the caller is told instead of the true token.
    fn told(&self, name: &LockName, grant: Grant) -> Grant {
        if self.flaw != Flaw::CountsTokensInTheRecord {
            return grant;
        }
        let mut counted = self.counted.lock().unwrap();
        let (count, token) = counted.entry(name.clone()).or_insert((0, FencingToken::new(0)));
        if *token != grant.token {
            (*count, *token) = (*count + 1, grant.token);
        }
        Grant { token: FencingToken::new(*count), ..grant }
    }

    /// The true token behind what the caller was told.
    fn meant(&self, name: &LockName, token: FencingToken) -> FencingToken {
        match self.counted.lock().unwrap().get(name) {
            Some((count, meant)) if *count == token.get() => *meant,
            _ => token,
        }
    }

    async fn holder(&self, name: &LockName) -> Result<Option<(OwnerId, Duration)>, StoreError> {
        Ok(self.store.inspect(name).await?.and_then(|status| match status.state {
            LockState::Held(holding) => Some((holding.owner, holding.remaining)),
            _ => None,
        }))
    }

    fn in_doubt(&self, error: StoreError) -> StoreError {
        if self.flaw == Flaw::DeniesDoubt && error.applied() == Applied::Maybe {
            return StoreError::refused(error.kind(), error.to_string());
        }
        error
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl LockProvider for Flawed {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        let mut wish =
            AcquireRequest { name: self.name(&request.name), owner: self.owner(request.owner), ..request.clone() };
        let range = self.capabilities().ttl;
        match self.flaw {
            Flaw::ExpiresEarly => wish.ttl = wish.ttl.mul_f64(0.8).max(range.min),
            Flaw::NeverExpires => wish.ttl = range.max,
            Flaw::ForgetsTicks => wish.tick_use = TickUse::AtRelease,
            Flaw::TicksEndWithTheLease if wish.tick.is_some() => {
                wish.tick_use = TickUse::AtRelease;
                self.ticks.lock().unwrap().insert(wish.name.clone(), (wish.owner, wish.tick));
            }
            Flaw::TakesItsOwnTickForAnothers if wish.tick.is_some() => {
                let stranger =
                    AcquireRequest { owner: OwnerId::from_u128(7), tick_use: TickUse::AtRelease, ..wish.clone() };
                if let Acquired::Finished(tick) = self.store.acquire(&stranger).await? {
                    return Ok(Acquired::Finished(tick));
                }
                self.store.release(&ReleaseRequest::new(wish.name.clone(), stranger.owner, None)).await?;
            }
            Flaw::AcceptsAnyTtl => wish.ttl = wish.ttl.clamp(range.min, range.max),
            // Releases what is this owner's, so that it is granted anew.
            Flaw::ReentryRaisesTheToken => {
                self.store.release(&ReleaseRequest::new(wish.name.clone(), wish.owner, None)).await?;
            }
            _ => {}
        }
        match self.store.acquire(&wish).await {
            Ok(Acquired::Granted(grant)) => {
                Ok(Acquired::Granted(Grant { ttl: request.ttl, ..self.told(&wish.name, grant) }))
            }
            Ok(Acquired::Held(_)) if self.flaw == Flaw::GrantsWhatIsHeld => {
                self.store.force_release(&wish.name).await?;
                self.store.acquire(&wish).await
            }
            Ok(Acquired::Held(_)) if self.flaw == Flaw::HidesTheHolder => Ok(Acquired::Held(Held::default())),
            Ok(Acquired::Held(held)) if self.flaw == Flaw::SaysNoTimeRemains => {
                Ok(Acquired::Held(Held { remaining: Some(Duration::ZERO), ..held }))
            }
            Ok(Acquired::Held(held)) if self.flaw == Flaw::WakesForNothing => {
                let (wakes, name) = (self.wakes.clone(), wish.name);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    wakes.wake(name.as_str());
                });
                Ok(Acquired::Held(held))
            }
            Ok(other) => Ok(other),
            Err(error) => Err(self.in_doubt(error)),
        }
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        let name = self.name(&request.name);
        let (owner, token) = (self.owner(request.owner), self.meant(&name, request.token));
        let wish = RenewRequest::new(name.clone(), owner, token, request.ttl);
        if self.flaw == Flaw::RenewalShortens
            && self.holder(&name).await?.is_some_and(|(_, remaining)| remaining > wish.ttl)
        {
            let (store, ttl) = (self.store.clone(), wish.ttl);
            tokio::spawn(async move {
                tokio::time::sleep(ttl).await;
                store.force_release(&name).await
            });
            return Ok(Renewed::Held(ttl));
        }
        if self.flaw == Flaw::RenewalDoesNothing {
            return Ok(Renewed::Held(wish.ttl));
        }
        match self.store.renew(&wish).await {
            Ok(Renewed::Lost) if self.flaw == Flaw::RenewsWhatExpired => {
                let again = AcquireRequest::new(wish.name.clone(), owner, wish.ttl);
                Ok(match self.store.acquire(&again).await? {
                    Acquired::Granted(grant) => Renewed::Held(grant.ttl),
                    _ => Renewed::Lost,
                })
            }
            Err(_) if self.flaw == Flaw::EvictsOnDoubt => Ok(Renewed::Lost),
            Err(error) => Err(self.in_doubt(error)),
            answer => answer,
        }
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        let name = self.name(&request.name);
        if self.flaw == Flaw::ReleasesByNameOnly {
            let held = self.store.force_release(&name).await?;
            return Ok(if held { Released::Released } else { Released::NotHeld });
        }
        let mut wish = request.clone();
        wish.token = request.token.map(|token| self.meant(&name, token));
        (wish.name, wish.owner) = (name, self.owner(request.owner));
        if self.flaw == Flaw::TicksEndWithTheLease {
            let asked = self.ticks.lock().unwrap().get(&wish.name).copied();
            wish.done = asked.filter(|(owner, _)| *owner == wish.owner).and_then(|(_, tick)| tick);
        }
        if self.flaw == Flaw::ForgetsFinishedTicks {
            wish.done = None;
        }
        if self.flaw == Flaw::ForgetsAtLeastFor {
            wish.keep_for = Duration::ZERO;
        }
        match self.store.release(&wish).await {
            Err(_) if self.flaw == Flaw::DisownsItsRelease => self.store.release(&wish).await,
            answer => answer.map_err(|error| self.in_doubt(error)),
        }
    }

    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        if self.flaw == Flaw::NeverWakes {
            return Ok(WakeHub::default().subscribe(name));
        }
        if self.flaw == Flaw::WakesForNothing {
            return Ok(self.wakes.subscribe(name));
        }
        self.store.watch(&self.name(name), owner).await
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let status = self.store.inspect(&self.name(name)).await?;
        // So that a count that starts anew is what fails, and not the look at it.
        Ok(status.map(|mut status| {
            if let (LockState::Held(holding), Some((count, _))) =
                (&mut status.state, self.counted.lock().unwrap().get(name))
            {
                holding.token = FencingToken::new(*count);
            }
            status
        }))
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        let mut wish = request.clone();
        if self.flaw == Flaw::ListsEverything {
            wish.prefix.clear();
        }
        self.store.list(&wish).await
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        if self.flaw == Flaw::ForcedReleaseDoesNothing {
            return Ok(self.holder(name).await?.is_some());
        }
        if self.flaw == Flaw::TicksEndWithTheLease {
            self.record_tick(name).await?;
        }
        self.store.force_release(&self.name(name)).await
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        join_all(requests.iter().map(|request| self.acquire(request))).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        join_all(requests.iter().map(|request| self.renew(request))).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        join_all(requests.iter().map(|request| self.release(request))).await
    }
}

/// The harness of a store with one flaw.
pub(crate) struct FlawedHarness {
    memory: MemoryLocks,
    clients: Flawed,
    commands: Arc<AtomicU64>,
}

impl FlawedHarness {
    pub(crate) fn new(flaw: Flaw) -> Self {
        let memory = MemoryLocks::new();
        let clients = Flawed {
            store: Arc::new(memory.clone()),
            flaw,
            counted: Arc::default(),
            wakes: WakeHub::default(),
            ticks: Arc::default(),
        };
        Self { memory, clients, commands: Arc::default() }
    }
}

#[async_trait]
impl Harness for FlawedHarness {
    async fn open() -> Result<Self, Missing> {
        Ok(Self::new(Flaw::None))
    }

    fn store(&self) -> &'static str {
        "flawed"
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(Counted::new(Arc::new(self.clients.clone()), self.commands.clone())))
    }

    fn commands(&self) -> Hook<'_, u64> {
        Ok(Box::pin(async move { Ok(self.commands.load(Ordering::SeqCst)) }))
    }

    fn delete_record<'a>(&'a self, name: &'a LockName) -> Hook<'a> {
        Ok(Box::pin(async move {
            self.memory.delete_record(name);
            self.clients.counted.lock().unwrap().remove(name);
            Ok(())
        }))
    }

    fn faulty(&self) -> Hook<'_, Faulty> {
        Ok(Box::pin(async move {
            let faults = Arc::new(Unreliable::new(Arc::new(self.memory.clone())));
            let provider = Arc::new(Flawed { store: faults.clone(), ..self.clients.clone() });
            Ok(Faulty { provider, faults })
        }))
    }
}
