//! The keeper: one task per client that renews all its leases, due ones together.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};

use super::{
    error::LossReason,
    lease::{Extended, Lease, Phase},
    observer::{Event, Watched},
};
use crate::{
    agenda::Agenda,
    clock::{Clock, Moment},
    entropy::Entropy,
    error::StoreError,
    owner::OwnerId,
    provider::LockProvider,
    request::{ReleaseRequest, RenewRequest, Renewed},
    timing::{Timing, fraction},
};

/// Renews leases in time, in as few requests as it can.
#[derive(Debug)]
pub(super) struct Keeper {
    provider: Arc<dyn LockProvider>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    timing: Timing,
    watched: Watched,
    book: Mutex<Book>,
    /// Told when the first entry of the agenda became an earlier one.
    earlier: Notify,
    /// A place for each batch under way.
    places: Arc<Semaphore>,
}

/// Who is renewed when.
#[derive(Debug, Default)]
struct Book {
    kept: Agenda<OwnerId, Kept>,
    running: bool,
}

#[derive(Debug)]
struct Kept {
    lease: Lease,
    /// What is asked for at each renewal.
    ttl: Duration,
    /// What the store granted last; the rhythm follows it.
    granted: Duration,
    /// Whether it is due by plan, and may be sent earlier with others; otherwise an attempt is under way or has failed,
    /// and it must not be sent again before.
    planned: bool,
    failures: u32,
}

/// So many batches may be under way at once: what stalls in one doesn't hold up the others, and a store that is out of
/// reach isn't flooded. Each ends within the provider's own time.
const BATCHES_UNDER_WAY: usize = 8;

/// The batch for a store that says nothing of grouping, which sends each request by itself.
const UNGROUPED_BATCH: usize = 32;

impl Keeper {
    pub(super) fn new(
        provider: Arc<dyn LockProvider>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        timing: Timing,
        watched: Watched,
    ) -> Self {
        let places = Arc::new(Semaphore::new(BATCHES_UNDER_WAY));
        Self { provider, clock, entropy, timing, watched, book: Mutex::default(), earlier: Notify::new(), places }
    }

    /// Keeps this lease renewed until it ends, from this moment on. `granted` is what the store granted with it.
    pub(super) fn keep(
        self: &Arc<Self>,
        lease: Lease,
        ttl: Duration,
        granted: Duration,
        due: Moment,
        runtime: &Handle,
    ) {
        let owner = lease.owner();
        let (first, start) = {
            let mut book = self.book();
            let first = book.kept.first_due().is_none_or(|moment| due < moment);
            book.kept.insert(owner, due, Kept { lease, ttl, granted, planned: true, failures: 0 });
            (first, !std::mem::replace(&mut book.running, true))
        };
        // Not under the lock: a runtime that shuts down drops what is spawned at once, and with it `Running`.
        if start {
            let (keeper, running) = (self.clone(), Running(Some(self.clone())));
            runtime.spawn(async move {
                keeper.work().await;
                running.ended();
            });
        } else if first {
            self.earlier.notify_one();
        }
    }

    /// Renews this lease no more.
    pub(super) fn forget(&self, lease: &Lease) {
        self.book().kept.remove(lease.owner());
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until nothing is kept; the next lease starts it anew.
    async fn work(self: &Arc<Self>) {
        let most = self.provider.capabilities().grouping.map_or(UNGROUPED_BATCH, std::num::NonZero::get);
        loop {
            let Some(next) = self.book().next_due() else { return };
            tokio::select! {
                // What is due goes out, however often something earlier is entered.
                biased;
                () = self.clock.sleep_until(next) => {}
                () = self.earlier.notified() => continue,
            }
            // Collected only when there is a place: what waits for one has not been sent.
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            let batch = self.collect_due(most);
            if !batch.is_empty() {
                // Not awaited: a slow answer must not hold up the others, and the next attempt comes in its own time.
                let keeper = self.clone();
                tokio::spawn(async move {
                    keeper.renew(batch).await;
                    drop(place);
                });
            }
        }
    }

    /// The renewals that are due now, and those planned that could well be sent with them. Each is due again when its
    /// attempt has had its time.
    fn collect_due(&self, most: usize) -> Vec<(Lease, RenewRequest)> {
        let now = self.clock.now();
        let mut book = self.book();
        let Some(granted) = book.kept.in_order().next().map(|(_, _, first)| first.granted) else {
            return Vec::new();
        };
        let horizon = now + granted / 10;
        let near: Vec<OwnerId> = book
            .kept
            .in_order()
            .take_while(|(due, ..)| *due <= horizon)
            .filter(|(due, _, kept)| *due <= now || kept.may_come_early(*due, now))
            .map(|(_, owner, _)| owner)
            .take(most)
            .collect();
        near.into_iter().filter_map(|owner| self.attempt(&mut book, owner, now)).collect()
    }

    /// The next attempt at a lease, unless it has ended or can't be extended.
    fn attempt(&self, book: &mut Book, owner: OwnerId, now: Moment) -> Option<(Lease, RenewRequest)> {
        let kept = book.kept.get(owner)?;
        let lease = kept.lease.clone();
        let Phase::Live(term) = lease.phase() else {
            // Lost at its deadline, or at the end of its at-most-for: the guard gives it back when it is dropped.
            tracing::warn!(lock = %lease.name(), token = %lease.token(), phase = ?lease.phase(), "a lease ended");
            book.kept.remove(owner);
            return None;
        };
        let request = RenewRequest::new(lease.name().clone(), owner, lease.token(), kept.ttl);
        let again = (now + Timing::attempt_timeout(kept.granted)).min(term.deadline());
        book.reschedule(owner, again, false);
        Some((lease, request))
    }

    /// Sends one request for many leases and takes in what came of each.
    async fn renew(&self, batch: Vec<(Lease, RenewRequest)>) {
        let (leases, requests): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        // Read before sending the very attempt whose reply is accepted.
        let sent = self.clock.now();
        let outcomes = self.provider.renew_many(&requests).await;
        // One look and one throw for all: what failed together is tried again together.
        let (now, luck) = (self.clock.now(), self.entropy.next_u64());
        let mut orphans = Vec::new();
        for ((lease, request), outcome) in leases.iter().zip(&requests).zip(outcomes) {
            match outcome {
                Ok(Renewed::Held(granted)) => {
                    self.watched.tell(lease.class(), || Event::Renewed);
                    orphans.extend(self.renewed(lease, request, sent, granted));
                }
                Ok(Renewed::Lost) => self.lost(lease),
                Err(error) => {
                    self.watched.tell(lease.class(), || Event::RenewalFailed { kind: error.kind() });
                    self.failed(request, &error, now, luck);
                }
            }
        }
        self.earlier.notify_one();
        if !orphans.is_empty() {
            // Lost here while renewed there (law 10): nobody is to wait for a ttl that nobody believes in.
            for (outcome, orphan) in self.provider.release_many(&orphans).await.iter().zip(&orphans) {
                if let Err(error) = outcome {
                    tracing::debug!(lock = %orphan.name, %error, "a lease that was lost could not be given back");
                }
            }
        }
    }

    /// Takes in a good renewal; the release to be sent if it came too late to count.
    fn renewed(
        &self,
        lease: &Lease,
        request: &RenewRequest,
        sent: Moment,
        granted: Duration,
    ) -> Option<ReleaseRequest> {
        let granularity = self.provider.capabilities().ttl.granularity;
        let extended = lease.extend(self.timing.deadline(sent, granted, granularity));
        let mut book = self.book();
        if extended == Extended::Live {
            tracing::trace!(lock = %request.name, token = %request.token, ?granted, "renewed");
            let due = self.timing.renew_at(sent, granted, &*self.entropy);
            if let Some(kept) = book.kept.get_mut(request.owner) {
                (kept.failures, kept.granted) = (0, granted);
            }
            book.reschedule(request.owner, due, true);
            return None;
        }
        // Given back by its holder meanwhile: that release is under way already.
        if lease.phase() == Phase::Released {
            return None;
        }
        book.kept.remove(request.owner);
        Some(ReleaseRequest::new(request.name.clone(), request.owner, Some(request.token)))
    }

    fn lost(&self, lease: &Lease) {
        // An ordinary release may have overtaken the renewal.
        if lease.lose(LossReason::NotOurs) != Phase::Released {
            self.book().kept.remove(lease.owner());
            tracing::warn!(lock = %lease.name(), token = %lease.token(), "the store no longer has this lease as ours");
        }
    }

    /// An attempt without an answer to be trusted: the lease holds until its deadline, and is asked for again before.
    fn failed(&self, request: &RenewRequest, error: &StoreError, now: Moment, luck: u64) {
        tracing::debug!(lock = %request.name, %error, "a renewal failed; the lease holds until its deadline");
        let mut book = self.book();
        let due = book.kept.due(request.owner);
        if let (Some(kept), Some(due)) = (book.kept.get_mut(request.owner), due) {
            kept.failures += 1;
            let most = Timing::attempt_timeout(kept.granted);
            let pause = (most / 8).saturating_mul(1 << kept.failures.min(3)).min(most);
            let again = (now + pause / 2 + pause.mul_f64(fraction(luck) / 2.0)).min(due);
            book.reschedule(request.owner, again, false);
        }
    }
}

impl Kept {
    /// Whether it is planned for so soon that it goes along with those due now.
    fn may_come_early(&self, due: Moment, now: Moment) -> bool {
        self.planned && due <= now + self.granted / 10
    }
}

impl Book {
    fn next_due(&mut self) -> Option<Moment> {
        let next = self.kept.first_due();
        self.running = next.is_some();
        next
    }

    fn reschedule(&mut self, owner: OwnerId, due: Moment, planned: bool) {
        if let Some(kept) = self.kept.get_mut(owner) {
            kept.planned = planned;
            self.kept.reschedule(owner, due);
        }
    }
}

/// Notices when the keeper's task is cut off (its runtime was shut down), so that the next lease starts it anew.
struct Running(Option<Arc<Keeper>>);

impl Running {
    /// It ended by itself, and has said so in the book.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(keeper) = &self.0 {
            keeper.book().running = false;
        }
    }
}
