//! One client's locks: asked for, believed in, given back, and each of that recorded.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lock_core::{
    Applied, Busy, Lease, LeaseGuard, Lock, LockError, LockName, LockProvider, Locks, LossReason, Moment, OwnerId,
    ReleaseOutcome, ReleaseRequest, RenewRequest,
};
use lock_verify::history::{Event, F, Why};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    chance::Chance,
    clock::WrongClock,
    pen::Pen,
    words::{Said, say},
};

/// A client's locks, with its hand that writes the history.
pub(super) struct Holds {
    pub(super) locks: Locks,
    pub(super) pen: Pen,
    pub(super) clock: WrongClock,
    pub(super) ttl: Duration,
    stopped: watch::Receiver<bool>,
    say: fn(&Said) -> io::Result<()>,
    /// Grants that were given back, and that the store said were ours until then.
    over: Mutex<Vec<(LockName, OwnerId, lock_core::FencingToken)>>,
}

/// How a lock is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) ttl: Duration,
    /// `None`: for as long as it takes.
    pub(super) wait: Option<Duration>,
    pub(super) fair: bool,
}

/// A grant that is held, and watched.
pub(super) struct Hold {
    pub(super) guard: LeaseGuard,
    watching: Watching,
    lock: String,
}

/// Records the deadlines and the loss of a lease until it is dropped.
pub(super) struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Holds {
    pub(super) fn new(
        store: Arc<dyn LockProvider>,
        clock: WrongClock,
        pen: Pen,
        ttl: Duration,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let locks = Locks::builder_shared(store).clock(Arc::new(clock.clone())).build();
        Self { locks, pen, clock, ttl, stopped, say, over: Mutex::default() }
    }

    /// In the run's own process, where nobody listens.
    pub(super) fn unheard(mut self) -> Self {
        self.say = |_| Ok(());
        self
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Returns when the client is to end.
    pub(super) async fn stopped(&self) {
        // An error means that the sender is gone, and with it the run.
        _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
    }

    /// For this time, unless the client is to end.
    pub(super) async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stopped() => {}
        }
    }

    /// Labelled with the number of the call, so that what the store answers on the way can be told with it.
    pub(super) fn lock(&self, name: &str, wish: Wish, begun: &Event) -> Lock {
        let lock = self.locks.lock(name).ttl(wish.ttl).label(begun.call.to_string());
        let lock = if wish.fair { lock.fair() } else { lock };
        match wish.wait {
            Some(wait) => lock.wait_at_most(wait),
            None => lock,
        }
    }

    pub(super) fn asks(&self, name: &str, wish: Wish) -> Event {
        self.pen.invoke(F::Acquire, |event| {
            event.lock(name).ttl(wish.ttl).fair(wish.fair).wait(wish.wait.unwrap_or(Event::FOR_EVER))
        })
    }

    /// Waits for a lock as wished, or until the client is to end.
    pub(super) async fn hold(&self, name: &str, wish: Wish) -> Option<Hold> {
        let begun = self.asks(name, wish);
        let acquired = tokio::select! {
            acquired = self.lock(name, wish, &begun).acquire() => acquired,
            () = self.stopped() => {
                self.pen.gave_up(&begun, Why::Cancelled);
                return None;
            }
        };
        match acquired {
            Ok(guard) => {
                let watching = self.granted(&begun, guard.lease());
                Some(Hold { guard, watching, lock: name.to_owned() })
            }
            Err(error) => {
                self.not_granted(&begun, &error, wish);
                None
            }
        }
    }

    /// Records that this lease was granted, and from here on what becomes of it.
    pub(super) fn granted(&self, begun: &Event, lease: &Lease) -> Watching {
        let deadline = self.in_machine_time(lease.deadline());
        self.pen.ok(begun, |event| event.owner(lease.owner()).token(lease.token()).deadline(deadline));
        // Whoever isn't heard any more ends by its pipe.
        _ = (self.say)(&Said::Holds(lease.name().to_string()));
        let (lease, pen, clock) = (lease.clone(), self.pen.clone(), self.clock.clone());
        Watching(tokio::spawn(async move { watch_over(&lease, &pen, &clock).await }))
    }

    pub(super) fn not_granted(&self, begun: &Event, error: &LockError, wish: Wish) {
        match error {
            LockError::Busy(Busy { .. }) if wish.wait == Some(Duration::ZERO) => self.pen.fail(begun, Why::Held),
            LockError::Busy(_) => self.pen.gave_up(begun, Why::TimedOut),
            LockError::Store(store) if store.applied() == Applied::No => self.pen.fail_with(begun, Why::Error, error),
            _ => self.pen.info_with(begun, error),
        }
    }

    fn in_machine_time(&self, moment: Moment) -> Moment {
        self.clock.in_machine_time(moment)
    }

    /// Gives a lock back.
    pub(super) async fn give_back(&self, hold: Hold) {
        let Hold { guard, watching, lock } = hold;
        let grant = (guard.name().clone(), guard.owner(), guard.token());
        drop(watching);
        _ = (self.say)(&Said::Ends(lock));
        // What could not be given back is free after its ttl; the release itself is recorded where it is sent.
        if let Ok(ReleaseOutcome::Released) = guard.release().await {
            let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
            over.push(grant);
            if over.len() > STRANGERS {
                over.remove(0);
            }
        }
    }

    /// Sends what a process might that has slept through the end of its hold: a renewal or a release of what is over.
    pub(super) async fn be_a_stranger(&self, chance: &Chance) {
        let grant = {
            let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
            chance.one_of(&over).cloned()
        };
        let Some((name, owner, token)) = grant else { return };
        // The answers are in the history, for the law of strangers.
        if chance.once_in(2) {
            _ = self.locks.provider().renew(&RenewRequest::new(name, owner, token, self.ttl)).await;
        } else {
            _ = self.locks.provider().release(&ReleaseRequest::new(name, owner, Some(token))).await;
        }
    }
}

/// How many grants that are over are remembered.
const STRANGERS: usize = 32;

async fn watch_over(lease: &Lease, pen: &Pen, clock: &WrongClock) {
    let look_at = |lease: &Lease| {
        let look =
            pen.invoke(F::Look, |event| event.lock(lease.name().as_str()).owner(lease.owner()).token(lease.token()));
        // The deadline first: a lease that is valid after that was so until then.
        let deadline = clock.in_machine_time(lease.deadline());
        let valid = lease.is_valid();
        pen.ok(&look, |event| if valid { event.valid(true).deadline(deadline) } else { event.valid(false) });
        valid
    };
    loop {
        let changed = lease.deadline_changed();
        tokio::select! {
            biased;
            reason = lease.lost() => {
                let why = match reason {
                    LossReason::Expired => Why::Expired,
                    LossReason::AtMostFor => Why::AtMostFor,
                    _ => Why::NotOurs,
                };
                pen.once(F::Lost, |event| {
                    event.lock(lease.name().as_str()).owner(lease.owner()).token(lease.token()).why(why)
                });
                look_at(lease);
                return;
            }
            // Neither of a loss nor of a release is there a way back (law 10).
            () = changed => if !look_at(lease) { return },
        }
    }
}
