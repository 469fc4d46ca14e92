//! Acquiring: subscribe, try, wait for (an event | the remaining time | the safety net), try again, within one deadline.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    error::{Busy, Finished, LockError, LossReason, Lost},
    guard::{Keeping, LeaseGuard},
    lease::Lease,
    locks::{Backoff, Client},
    observer::Event,
};
use crate::{
    capability::{Fairness, Wake},
    clock::Moment,
    error::{Applied, ErrorKind, Operation, StoreError},
    name::LockName,
    owner::{HolderInfo, OwnerId},
    request::{AcquireRequest, Acquired, Grant, Held, Mode, ReleaseRequest, Waiting},
    tick::{Tick, TickUse},
    wake::Watch,
};

/// What is wanted, checked as far as it can be without a store.
pub(super) struct Wish {
    pub(super) name: LockName,
    pub(super) mode: Mode,
    pub(super) ttl: Duration,
    /// For how long it may take; `None` for ever.
    pub(super) wait: Option<Duration>,
    /// Whether to be granted in the order of the wishes, over all processes.
    pub(super) fair: bool,
    pub(super) at_most_for: Option<Duration>,
    pub(super) at_least_for: Duration,
    pub(super) label: String,
    /// For metrics.
    pub(super) class: Option<Arc<str>>,
    pub(super) tick: Option<Tick>,
    pub(super) tick_use: TickUse,
}

/// Somebody who doesn't wait gets so many attempts at a store that stumbles (a connection gone stale, a restart).
const STUMBLES: u32 = 3;

/// A waiter asks again at the latest after this or the ttl, whichever is longer: the safety net under lost wake-ups.
const SAFETY_NET: Duration = Duration::from_secs(1);

/// A hint of less than this says that the lock is as good as free, or that the store doesn't know.
const SHORTEST_NAP: Duration = Duration::from_millis(5);

/// Acquires, or says why not. Cancel safe: see [`Claim`].
pub(super) async fn acquire(client: Arc<Client>, wish: Wish) -> Result<LeaseGuard, LockError> {
    let begun = client.clock.now();
    let class = wish.class.clone();
    let outcome = ask(client.clone(), wish, begun).await;
    client.tell(class.as_deref(), |waited| Event::of_acquire(&outcome, waited.since(begun)));
    outcome
}

async fn ask(client: Arc<Client>, wish: Wish, begun: Moment) -> Result<LeaseGuard, LockError> {
    let waits = wish.wait != Some(Duration::ZERO);
    // Somebody who doesn't wait gives the store the time that its provider allows.
    let until = wish.wait.filter(|_| waits).map(|wait| begun + wait);
    let request = AcquireRequest {
        name: wish.name.clone(),
        owner: OwnerId::random(&*client.entropy),
        mode: wish.mode,
        ttl: wish.ttl,
        holder: HolderInfo::this_process(&wish.label, client.clock.wall_micros()),
        waiting: Waiting::No,
        tick: wish.tick,
        tick_use: wish.tick_use,
    };
    let busy = |held| LockError::from(Busy { name: wish.name.clone(), held, waited: client.clock.now().since(begun) });

    let can = client.provider.capabilities();
    if wish.fair && can.fairness == Fairness::None {
        let message = format!("the {} store does not support queueing in order", can.store);
        return Err(StoreError::refused(ErrorKind::Unsupported, message).into());
    }
    // In order over all processes, each waiter has a place of its own at the store.
    let turn = if waits && !wish.fair {
        tokio::select! {
            biased;
            turn = client.queues.turn(&wish.name) => Some(turn),
            () = at(&client, until) => return Err(busy(Held::default())),
        }
    } else {
        None
    };

    let mut claim = Claim::new(client.clone(), request);
    // Where the store queues who waits, the first attempt takes the place in line; elsewhere nobody listens before he has to.
    let queues = waits && can.fairness != Fairness::None;
    let mut watch = if queues { subscribe(&client, &mut claim.request, until).await } else { None };
    // What the store said last, for the time being up while it is asked once more.
    let mut last = None;
    let mut late = 0;
    let (mut failures, mut vain) = (Backoff::default(), Backoff::default());
    loop {
        let sent = client.clock.now();
        let Some(answer) = claim.attempt(until).await else {
            let unanswered = || {
                let message = "the store did not answer before the time to wait was over";
                StoreError::unknown(ErrorKind::Timeout, message).into()
            };
            return Err(match last {
                // What is under way may still use the tick up.
                Some(held) if claim.request.used_by_grant().is_none() => busy(held),
                _ => unanswered(),
            });
        };
        let (give_up, pause) = match answer {
            Ok(Acquired::Granted(grant)) => match take_up(&client, &wish, &claim, sent, grant) {
                Ok(guard) => {
                    claim.fulfilled();
                    drop(turn);
                    return Ok(guard);
                }
                // The answer came after the lease it grants was over: as good as none. The same owner asks again.
                Err(Lost { reason: LossReason::Expired, .. }) => {
                    late += 1;
                    let message =
                        format!("the answers take longer than the ttl of {:?}; ask for a longer one", wish.ttl);
                    let error = StoreError::unknown(ErrorKind::Timeout, message);
                    if late == STUMBLES {
                        return Err(error.into());
                    }
                    (LockError::from(error), failures.next(&*client.entropy))
                }
                Err(lost) => return Err(lost.into()),
            },
            Ok(Acquired::Held(held)) if !waits => return Err(busy(held)),
            Ok(Acquired::Held(held)) => {
                (failures, late) = (Backoff::default(), 0);
                if watch.is_none() && can.wake == Wake::Event {
                    // A subscription may be long in coming, as after several that were cut: no reason not to ask meanwhile.
                    let net = client.clock.now() + wish.ttl.max(SAFETY_NET);
                    let most = until.map_or(net, |until| until.min(net));
                    watch = subscribe(&client, &mut claim.request, Some(most)).await;
                    // What came before the subscription is found by asking again at once.
                    if (watch.is_some() || client.clock.now() >= net)
                        && until.is_none_or(|until| client.clock.now() < until)
                    {
                        last = Some(held);
                        continue;
                    }
                }
                // In line, whatever brings the turn is an event, the expiry of those before as well.
                let nap = if queues && watch.is_some() {
                    wish.ttl.max(SAFETY_NET)
                } else {
                    nap(&client, wish.ttl, &held, &mut vain)
                };
                tracing::debug!(lock = %wish.name, ?held, ?nap, "waiting");
                if wait(&client, watch.as_mut(), nap, until).await == Woken::TimeIsUp {
                    return Err(busy(held));
                }
                last = Some(held);
                continue;
            }
            Ok(Acquired::Finished(last)) => return Err(claim.finished(last)),
            Err(error) if error.is_transient() && (waits || failures.count() + 1 < STUMBLES) => {
                tracing::debug!(lock = %wish.name, %error, "an attempt failed");
                // A subscription may have died with the connection; its provider makes it good and wakes us.
                (claim.in_all(error).into(), failures.next(&*client.entropy))
            }
            Err(error) => return Err(claim.in_all(error).into()),
        };
        last = None;
        if wait(&client, None, pause, until).await == Woken::TimeIsUp {
            return Err(give_up);
        }
    }
}

/// Turns a grant into a guard, unless it came too late to be believed.
fn take_up(client: &Arc<Client>, wish: &Wish, claim: &Claim, sent: Moment, grant: Grant) -> Result<LeaseGuard, Lost> {
    let received = client.clock.now();
    let granularity = client.provider.capabilities().ttl.granularity;
    let deadline = client.timing.deadline(sent, grant.ttl, granularity);
    // An earlier attempt whose reply was lost may have been the one that got it.
    let cap = wish.at_most_for.map(|most| claim.in_doubt_since.unwrap_or(sent) + most);
    let owner = claim.request.owner;
    let lease = Lease::new(wish.name.clone(), owner, grant.token, client.clock.clone(), deadline, cap)
        .of(claim.request.mode, wish.class.clone());
    lease.check()?;
    let due = client.timing.renew_at(sent, grant.ttl, &*client.entropy);
    client.keeper.keep(lease.clone(), wish.ttl, grant.ttl, due, &claim.runtime);
    tracing::debug!(lock = %wish.name, token = %grant.token, %owner, "granted");
    let done = wish.tick.filter(|_| wish.tick_use == TickUse::AtRelease);
    let keeping =
        Keeping { ttl: wish.ttl, since: sent, stay_until: received + wish.at_least_for, tick: wish.tick, done };
    Ok(LeaseGuard::new(lease, client.clone(), keeping))
}

/// Subscribes to wake-ups and has the next attempt say that somebody waits.
async fn subscribe(client: &Client, request: &mut AcquireRequest, until: Option<Moment>) -> Option<Watch> {
    let watch = tokio::select! {
        // A subscription in force, though its time is up as well, is dropped by its owner and not lost on the way.
        biased;
        watch = client.provider.watch(&request.name, request.owner) => watch,
        () = at(client, until) => return None,
    };
    match watch {
        Ok(watch) => {
            // Outlasts the pause before the next attempt, which says it again.
            let span = request.ttl.max(SAFETY_NET).saturating_mul(2) + Duration::from_secs(5);
            request.waiting = match client.provider.capabilities().fairness {
                Fairness::None => Waiting::Wake(span),
                Fairness::Fifo => Waiting::InLine(span),
            };
            Some(watch)
        }
        Err(error) => {
            tracing::debug!(lock = %request.name, %error, "no subscription; asking again after a pause");
            None
        }
    }
}

/// How long to wait for an event before asking again. `vain` grows while the store has nothing to say of it.
fn nap(client: &Client, ttl: Duration, held: &Held, vain: &mut Backoff) -> Duration {
    let net = ttl.max(SAFETY_NET);
    let nap = match held.remaining {
        Some(remaining) if remaining >= SHORTEST_NAP => {
            *vain = Backoff::default();
            remaining.min(net)
        }
        _ => vain.next_up_to(net, &*client.entropy),
    };
    match client.provider.capabilities().wake {
        // Between half and the whole, so that several waiters don't ask in step.
        Wake::Poll(every) => nap.min(every / 2 + crate::timing::jitter(every / 2, &*client.entropy)),
        Wake::Event => nap,
    }
}

/// Returns at this moment, if there is one.
async fn at(client: &Client, moment: Option<Moment>) {
    match moment {
        Some(moment) => client.clock.sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[derive(PartialEq, Eq)]
enum Woken {
    AskAgain,
    TimeIsUp,
}

async fn wait(client: &Client, watch: Option<&mut Watch>, nap: Duration, until: Option<Moment>) -> Woken {
    let nap_over = client.clock.now() + nap;
    let woken = async {
        match watch {
            Some(watch) => watch.woken().await,
            None => std::future::pending().await,
        }
    };
    let (end, verdict) = match until {
        Some(until) if until <= nap_over => (until, Woken::TimeIsUp),
        _ => (nap_over, Woken::AskAgain),
    };
    tokio::select! {
        biased;
        () = woken => Woken::AskAgain,
        () = client.clock.sleep_until(end) => verdict,
    }
}

/// One acquire call's claim at the store. Dropped before it is fulfilled, it sees to it that nothing stays behind:
/// an attempt under way is awaited, and what may have been granted, or queued, is released.
struct Claim {
    client: Arc<Client>,
    request: AcquireRequest,
    /// The attempt under way, in a task of its own: a driver's call must not be dropped half-way (RUST-937 of the
    /// MongoDB driver, to name one).
    under_way: Option<JoinHandle<Result<Acquired, StoreError>>>,
    /// Whether an earlier attempt may have left something at the store.
    may_be_there: bool,
    /// When the first attempt was sent whose grant, if it was one, nobody took up.
    in_doubt_since: Option<Moment>,
    /// For a drop outside any runtime.
    runtime: Handle,
}

impl Claim {
    fn new(client: Arc<Client>, request: AcquireRequest) -> Self {
        let runtime = Handle::current();
        Self { client, request, under_way: None, may_be_there: false, in_doubt_since: None, runtime }
    }

    /// Asks the store once; `None` if it has no answer by `until`.
    async fn attempt(&mut self, until: Option<Moment>) -> Option<Result<Acquired, StoreError>> {
        let sent = self.client.clock.now();
        let (provider, request) = (self.client.provider.clone(), self.request.clone());
        let attempt = self.under_way.insert(tokio::spawn(async move { provider.acquire(&request).await }));
        let outcome = tokio::select! {
            biased;
            outcome = &mut *attempt => outcome,
            () = at(&self.client, until) => return None,
        };
        self.under_way = None;
        let outcome = outcome.unwrap_or_else(|error| {
            Err(StoreError::unknown(ErrorKind::Other, "the provider's task ended early").caused_by(error))
        });
        match &outcome {
            // Said to nobody who has it, and to nobody whose tick is used up: an earlier attempt got nothing.
            Ok(Acquired::Held(_)) => self.in_doubt_since = None,
            Ok(Acquired::Finished(_)) => {}
            Err(error) if error.applied() == Applied::No => {}
            _ => _ = self.in_doubt_since.get_or_insert(sent),
        }
        self.may_be_there |= leaves_something(&self.client, &self.request, &outcome);
        Some(outcome)
    }

    /// What the last attempt's error means for the call: an earlier one may have been granted, and nobody knows.
    fn in_all(&self, error: StoreError) -> StoreError {
        if error.applied() == Applied::Maybe || self.in_doubt_since.is_none() {
            return error;
        }
        let message = format!("{error}; an attempt before it was left unanswered");
        StoreError::unknown(error.kind(), message).caused_by(error)
    }

    /// The store says that the tick is used up. If an attempt of this very call may have done that, nobody knows whether
    /// anybody ran it: that is told as what it is.
    fn finished(&mut self, last: Tick) -> LockError {
        let request = &self.request;
        let Some(tick) = request.tick else {
            let message = "the store answered a request without a tick with a tick";
            return StoreError::unknown(ErrorKind::Corrupt, message).into();
        };
        if let Err(unknown) = request.after_doubt(Acquired::Finished(last), self.in_doubt_since.is_some()) {
            return unknown
                .at(self.client.provider.capabilities().store, Operation::Acquire, Some(&request.name))
                .into();
        }
        // No place in a queue is left by such an answer.
        self.may_be_there = self.in_doubt_since.is_some();
        Finished { name: request.name.clone(), tick, last }.into()
    }

    /// The claim became a guard, which releases it.
    fn fulfilled(&mut self) {
        self.may_be_there = false;
    }
}

/// Whether this outcome may leave a grant or a place in a queue at the store.
fn leaves_something(client: &Client, request: &AcquireRequest, outcome: &Result<Acquired, StoreError>) -> bool {
    match outcome {
        Ok(Acquired::Granted(_)) => true,
        Ok(Acquired::Finished(_)) => false,
        Ok(_) => request.waiting != Waiting::No && client.provider.capabilities().fairness == Fairness::Fifo,
        Err(error) => error.applied() == Applied::Maybe,
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let under_way = self.under_way.take();
        if under_way.is_none() && !self.may_be_there {
            return;
        }
        let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
        let (client, request, mut may_be_there) = (self.client.clone(), self.request.clone(), self.may_be_there);
        let work = async move {
            if let Some(attempt) = under_way {
                may_be_there |= match attempt.await {
                    Ok(outcome) => leaves_something(&client, &request, &outcome),
                    Err(_) => true,
                };
            }
            if may_be_there {
                let release = ReleaseRequest::new(request.name, request.owner, None);
                if let Err(error) = client.give_back(release, None, request.ttl).await {
                    tracing::debug!(%error, "an abandoned acquire could not be released; its ttl frees it");
                }
            }
        };
        self.client.behind.spawn_on(work, &runtime);
    }
}
