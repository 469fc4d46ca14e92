//! Contention while somebody breaks things: clients fight over a few locks, and what they believed is checked afterwards.
//!
//! For tests that do to a store what no property of the suite can: stop its leader, cut off a member. Start the
//! contention, do it, [`mark`](Contention::mark) the moment when it is healed, and [`stop`](Contention::stop).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use lock_core::{Clock, Entropy, FencingToken, LockError, LockName, LockProvider, Moment, OsEntropy, SystemClock};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    Failure,
    asker::{client_of, fresh_name, now, sleep},
    ensure,
};

/// Clients at work on a few locks, until they are stopped.
#[derive(Debug)]
pub struct Contention {
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<Result<(), Failure>>>,
    notes: Arc<Notes>,
    began: Moment,
    healed: Vec<Moment>,
    counts_overlaps: bool,
}

/// What was seen, once nothing was found that breaks a law.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Contended {
    /// How many grants there were.
    pub grants: usize,
    /// How many of them ended as lost.
    pub lost: usize,
    /// How many began while somebody else believed: always zero, unless they were to be [counted](Contention::count_overlaps).
    pub overlaps: usize,
    /// For each marked moment: how long after it the last client had been granted a lock again.
    pub back_after: Vec<Duration>,
    /// The longest time in which nobody was granted anything.
    pub longest_silence: Duration,
}

/// One client's belief in one grant.
#[derive(Clone, Copy, Debug)]
struct Belief {
    client: usize,
    lock: usize,
    token: FencingToken,
    asked: Moment,
    from: Moment,
    until: Moment,
}

#[derive(Debug)]
struct Notes {
    names: Vec<LockName>,
    /// One for each lock, counted up by read, sleep and write while it is believed to be held.
    counters: Vec<AtomicU64>,
    written: Vec<AtomicU64>,
    beliefs: Mutex<Vec<Belief>>,
    /// When the last hold began that was to outlive a ttl.
    long_hold: Mutex<Option<Moment>>,
    lost: AtomicU64,
}

/// Between the read and the write of a counter.
const STEP: Duration = Duration::from_millis(2);

impl Contention {
    /// Lets each of these clients, as soon as it has one of `locks` fresh locks, count that lock's counter up, let go, and
    /// ask for the next. Some holds are long: they need renewal; but there is at most one in three ttls, so that how long a
    /// waiter waits tells of the store and not of who is before him in the line. Waiters wait for as long as it takes.
    ///
    /// # Errors
    /// None of its own but a name that can't be made.
    pub fn start(clients: Vec<Arc<dyn LockProvider>>, locks: usize, ttl: Duration) -> Result<Self, Failure> {
        let names = (0..locks).map(|lock| fresh_name(&format!("contended-{lock}"))).collect::<Result<Vec<_>, _>>()?;
        let zeros = || (0..locks).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let notes = Arc::new(Notes {
            names,
            counters: zeros(),
            written: zeros(),
            beliefs: Mutex::default(),
            long_hold: Mutex::default(),
            lost: AtomicU64::new(0),
        });
        let (stop, stopped) = watch::channel(false);
        let clients = clients.into_iter().enumerate().map(|(client, provider)| {
            let (notes, stopped) = (notes.clone(), stopped.clone());
            tokio::spawn(fight(client, provider, notes, ttl, stopped))
        });
        Ok(Self { stop, clients: clients.collect(), notes, began: now(), healed: Vec::new(), counts_overlaps: false })
    }

    /// Counts beliefs that overlap instead of failing: for faults by which the store itself breaks its word. Tokens must
    /// rise all the same; the unfenced counters are not looked at.
    pub fn count_overlaps(&mut self) {
        self.counts_overlaps = true;
    }

    /// From this moment on everybody should be getting locks again.
    pub fn mark(&mut self) {
        self.healed.push(now());
    }

    /// Returns once each client was granted something after the last marked moment, or after `limit`: how long it took them
    /// is what [`stop`](Self::stop) tells.
    pub async fn until_all_are_back(&self, limit: Duration) {
        let Some(healed) = self.healed.last().copied() else { return };
        let is_back = |client| self.notes.beliefs().iter().any(|one| one.client == client && one.from >= healed);
        while !(0..self.clients.len()).all(is_back) && now().since(healed) < limit {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns once there were more than so many grants, or after `limit`.
    pub async fn until_more_than(&self, grants: usize, limit: Duration) {
        let end = now() + limit;
        while self.grants() <= grants && now() < end {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many grants there were so far.
    #[must_use]
    pub fn grants(&self) -> usize {
        self.notes.beliefs().len()
    }

    /// Ends the contention and looks at what the clients believed.
    ///
    /// # Errors
    /// Two beliefs that overlapped (law 1), a token that did not rise (law 2), a counter that lost or won a step, a client
    /// that got nothing after a marked moment, or an error no outage explains.
    pub async fn stop(self) -> Result<Contended, Failure> {
        let count = self.clients.len();
        self.stop.send_replace(true);
        for client in join_all(self.clients).await {
            client??;
        }
        let mut beliefs = self.notes.beliefs().clone();
        beliefs.sort_by_key(|belief| belief.from);
        let mut overlaps = 0;
        for lock in 0..self.notes.names.len() {
            let of_lock: Vec<Belief> = beliefs.iter().filter(|belief| belief.lock == lock).copied().collect();
            overlaps += check(&of_lock, self.counts_overlaps)?;
            if self.counts_overlaps {
                continue;
            }
            let (counted, written) = (&self.notes.counters[lock], &self.notes.written[lock]);
            let (counted, written) = (counted.load(Ordering::SeqCst), written.load(Ordering::SeqCst));
            ensure!(counted == written, "lock {lock}: {written} steps were written and {counted} counted");
        }
        let mut back_after = Vec::new();
        for healed in &self.healed {
            let mut last = Duration::ZERO;
            for client in 0..count {
                let first = beliefs.iter().find(|belief| belief.client == client && belief.from >= *healed);
                let first = first.ok_or_else(|| {
                    let at = healed.since(self.began);
                    Failure::new(format!("client {client} was granted nothing after {at:?}, when all was well again"))
                })?;
                last = last.max(first.from.since(*healed));
            }
            back_after.push(last);
        }
        let silences = beliefs.windows(2).map(|pair| pair[1].from.since(pair[0].from));
        Ok(Contended {
            grants: beliefs.len(),
            lost: usize::try_from(self.notes.lost.load(Ordering::SeqCst)).unwrap_or(usize::MAX),
            overlaps,
            back_after,
            longest_silence: silences.max().unwrap_or_default(),
        })
    }
}

impl Notes {
    /// Whether a long hold may begin now; if so, it is noted as begun.
    fn has_a_long_hold(&self, now: Moment, ttl: Duration) -> bool {
        let mut last = self.long_hold.lock().unwrap_or_else(PoisonError::into_inner);
        let free = last.is_none_or(|last| now.since(last) >= ttl * 3);
        if free {
            *last = Some(now);
        }
        free
    }

    fn beliefs(&self) -> std::sync::MutexGuard<'_, Vec<Belief>> {
        self.beliefs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The laws of one lock's beliefs, which are in the order of their beginnings; how many overlap, if that is to be counted.
fn check(beliefs: &[Belief], counts_overlaps: bool) -> Result<usize, Failure> {
    let mut last: Option<&Belief> = None;
    let mut overlaps = 0;
    for belief in beliefs {
        if let Some(last) = last {
            let apart = belief.from >= last.until;
            ensure!(apart || counts_overlaps, "two beliefs overlap: {last:?} and {belief:?}");
            overlaps += usize::from(!apart);
            ensure!(belief.token > last.token, "a token did not rise: {last:?} and {belief:?}");
        }
        ensure!(belief.asked <= belief.from, "granted before it was asked for: {belief:?}");
        last = Some(belief);
    }
    Ok(overlaps)
}

async fn fight(
    client: usize,
    provider: Arc<dyn LockProvider>,
    notes: Arc<Notes>,
    ttl: Duration,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let locks = client_of(provider);
    let mut round = client;
    while !*stopped.borrow() {
        round += 1;
        let lock = round % notes.names.len();
        let asked = now();
        let acquire = locks.lock(notes.names[lock].as_str()).ttl(ttl).acquire();
        let guard = tokio::select! {
            guard = acquire => guard,
            _ = stopped.changed() => break,
        };
        let guard = match guard {
            Ok(guard) => guard,
            // The answer came too late to be believed.
            Err(LockError::Lost(_)) => continue,
            Err(LockError::Store(error)) if error.is_transient() => {
                sleep(STEP).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let from = now();
        // Longer than a ttl, which takes renewals.
        let long = OsEntropy.next_u64().is_multiple_of(16) && notes.has_a_long_hold(from, ttl);
        let hold = if long { ttl + ttl / 4 } else { STEP * u32::try_from(OsEntropy.next_u64() % 8)? };
        let mut deadline = guard.deadline();
        while now().since(from) < hold {
            if !guard.is_valid() {
                break;
            }
            deadline = guard.deadline();
            sleep(STEP).await;
        }
        let seen = notes.counters[lock].load(Ordering::SeqCst);
        sleep(STEP).await;
        if guard.is_valid() {
            notes.counters[lock].store(seen + 1, Ordering::SeqCst);
            notes.written[lock].fetch_add(1, Ordering::SeqCst);
            deadline = guard.deadline().max(deadline);
        }
        // It is believed until the release is called, the deadline at the latest.
        let valid = guard.is_valid();
        let until = if valid { SystemClock.now() } else { deadline.min(SystemClock.now()) };
        notes.lost.fetch_add(u64::from(!valid), Ordering::SeqCst);
        notes.beliefs().push(Belief { client, lock, token: guard.token(), asked, from, until });
        // What could not be given back is free after its ttl; the next one waits for it.
        match guard.release().await {
            Ok(_) => {}
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error.into()),
        }
    }
    locks.settled().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::MemoryLocks;

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_of_a_good_store_break_no_law() {
        let store = MemoryLocks::new();
        let clients = (0..8).map(|_| Arc::new(store.clone()) as Arc<dyn LockProvider>).collect();
        let mut contention = Contention::start(clients, 2, Duration::from_millis(300)).unwrap();
        sleep(Duration::from_millis(300)).await;
        contention.mark();
        sleep(Duration::from_millis(1500)).await;
        let seen = contention.stop().await.unwrap();
        assert!(seen.grants > 50, "{seen:?}");
        assert_eq!((seen.lost, seen.back_after.len()), (0, 1), "{seen:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lock_that_is_taken_from_its_believer_is_found() {
        let store = MemoryLocks::new();
        let clients = (0..8).map(|_| Arc::new(store.clone()) as Arc<dyn LockProvider>).collect();
        let contention = Contention::start(clients, 1, Duration::from_millis(300)).unwrap();
        let name = contention.notes.names[0].clone();
        for _ in 0..100 {
            sleep(Duration::from_millis(10)).await;
            // The holder doesn't learn of it before its next renewal.
            store.force_release(&name).await.unwrap();
        }
        let failure = contention.stop().await.unwrap_err();
        assert!(failure.to_string().contains("overlap"), "{failure}");
    }
}
