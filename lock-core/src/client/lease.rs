//! The lease as its holder sees it: what may be believed, and until when.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::sync::watch;

use super::error::{LossReason, Lost};
use crate::{
    clock::{Clock, Moment},
    fence::{Fence, InvalidFence},
    name::LockName,
    owner::OwnerId,
    request::Mode,
    token::FencingToken,
};

/// The right to a lock until a deadline, as seen by its holder. Clones are views of one lease; none of them releases it.
///
/// Every look reads the clock anew, so a process that stood still (stopped, suspended, swapped out) sees at its first
/// look that the lease is over.
#[derive(Clone)]
pub struct Lease {
    hold: Arc<Inner>,
    /// The at-most-for of work that joined the hold, which ends for that work alone.
    own_cap: Option<Arc<watch::Sender<Moment>>>,
}

struct Inner {
    name: LockName,
    owner: OwnerId,
    token: FencingToken,
    mode: Mode,
    clock: Arc<dyn Clock>,
    /// What the application calls this use of the lock, for its metrics.
    class: Option<Arc<str>>,
    phase: watch::Sender<Phase>,
    /// Whether the work said that it failed.
    failed: AtomicBool,
}

/// A lease is live, then ended; it never comes back (law 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Live(Term),
    Released,
    Lost(LossReason),
}

/// Until when a lease is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// What may be believed of what the store granted.
    granted: Moment,
    /// The end of at-most-for.
    cap: Option<Moment>,
}

impl Term {
    /// The earlier of the two: no renewal goes beyond the cap.
    pub(super) fn deadline(self) -> Moment {
        self.cap.map_or(self.granted, |cap| self.granted.min(cap))
    }
}

/// What came of a good renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extended {
    Live,
    TooLate,
}

impl Lease {
    pub(super) fn new(
        name: LockName,
        owner: OwnerId,
        token: FencingToken,
        clock: Arc<dyn Clock>,
        deadline: Moment,
        cap: Option<Moment>,
    ) -> Self {
        let phase = watch::Sender::new(Phase::Live(Term { granted: deadline, cap }));
        let hold = Inner { name, owner, token, mode: Mode::Exclusive, clock, class: None, phase, failed: false.into() };
        Self { hold: Arc::new(hold), own_cap: None }
    }

    /// The same, of this mode and class; only for a lease that nobody has seen yet.
    pub(super) fn of(mut self, mode: Mode, class: Option<Arc<str>>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.hold) {
            (inner.mode, inner.class) = (mode, class);
        }
        self
    }

    /// The same hold as work sees it that joined it, and that is to end at this moment if nothing does before.
    pub(super) fn joined(&self, cap: Option<Moment>) -> Self {
        let own_cap = cap.map(|cap| Arc::new(watch::Sender::new(cap)));
        Self { hold: self.hold.clone(), own_cap: own_cap.or_else(|| self.own_cap.clone()) }
    }

    /// The same hold, as a lease of its own: for keeping a lock taken that its holder has let go.
    pub(super) fn again_until(&self, deadline: Moment) -> Self {
        let inner = &self.hold;
        Self::new(inner.name.clone(), inner.owner, inner.token, inner.clock.clone(), deadline, None)
            .of(inner.mode, inner.class.clone())
    }

    /// Which lock.
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.hold.name
    }

    /// The id of this hold.
    #[must_use]
    pub fn owner(&self) -> OwnerId {
        self.hold.owner
    }

    /// The fencing token: hand it to every resource that is written under this lock.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.hold.token
    }

    /// What a write under this lease says to the resource, here or in another process: see [`Fence`].
    ///
    /// Also of a lease that is over: whether a write passes is the resource's to say, not this process's.
    ///
    /// # Errors
    /// [`InvalidFence`] for a lease that isn't exclusive: others hold the lock at the same time, so its tokens order no writes.
    pub fn fence(&self) -> Result<Fence, InvalidFence> {
        match self.hold.mode {
            Mode::Exclusive => Fence::new(self.hold.name.clone(), self.hold.token),
            mode => Err(InvalidFence::mode(&self.hold.name, mode)),
        }
    }

    /// Whether the lock is still ours, by the clock as it is now. Once `false`, always `false`.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        matches!(self.phase(), Phase::Live(_))
    }

    /// For how long it may still be believed if no renewal comes; zero once it ended.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline().since(self.hold.clock.now())
    }

    /// Until when it may be believed as things stand; the clock's start once it ended.
    #[must_use]
    pub fn deadline(&self) -> Moment {
        match self.phase() {
            Phase::Live(term) => term.deadline(),
            Phase::Released | Phase::Lost(_) => Moment::from_nanos(0),
        }
    }

    /// Says whether the work may go on; for synchronous code, between two steps of its work.
    ///
    /// # Errors
    /// [`Lost`] once the lease has ended, and why; also after its release, for work that outlived it.
    pub fn check(&self) -> Result<(), Lost> {
        match self.phase() {
            Phase::Live(_) => Ok(()),
            Phase::Lost(reason) => Err(self.loss(reason)),
            Phase::Released => Err(self.loss(LossReason::Released)),
        }
    }

    /// Moves the end of at-most-for by this much; where there is none, nothing needs to be moved. No request: the lease is
    /// renewed up to its end anyway. In work that joined the lease with an at-most-for of its own, it moves that one.
    ///
    /// # Errors
    /// [`Lost`] if the lease has ended: what is over stays over.
    pub fn extend_at_most(&self, by: Duration) -> Result<(), Lost> {
        if let Some(own) = &self.own_cap {
            own.send_if_modified(|cap| {
                let live = self.hold.clock.now() < *cap;
                if live {
                    *cap = *cap + by;
                }
                live
            });
            return self.check();
        }
        self.change(|term| Some(Phase::Live(Term { cap: term.cap.map(|cap| cap + by), ..term })));
        self.check()
    }

    /// Says that the work failed, though it will end like work that didn't: a tick that is used up by work well done
    /// ([`Lock::retry`](crate::Lock::retry)) isn't, so that somebody runs it again.
    pub fn fail(&self) {
        self.hold.failed.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.hold.failed.load(Ordering::SeqCst)
    }

    pub(super) fn class(&self) -> Option<&str> {
        self.hold.class.as_deref()
    }

    /// Returns when the lease is lost, and why; never after a normal release.
    ///
    /// It returns at the deadline by itself, whatever became of the renewals. Cancel safe. The future doesn't borrow
    /// the lease.
    pub fn lost(&self) -> impl Future<Output = LossReason> + Send + 'static {
        let lease = self.clone();
        async move {
            loop {
                let changed = lease.changed();
                match lease.phase() {
                    Phase::Lost(reason) => return reason,
                    Phase::Released => std::future::pending().await,
                    Phase::Live(term) => tokio::select! {
                        biased;
                        () = changed => {}
                        () = lease.hold.clock.sleep_until(term.deadline()) => {}
                    },
                }
            }
        }
    }

    /// Returns when the deadline has moved, or the lease ended. The future doesn't borrow the lease.
    ///
    /// It tells of moves after the call; look at [`deadline`](Self::deadline) after calling it, not before. Cancel safe.
    pub fn deadline_changed(&self) -> impl Future<Output = ()> + Send + 'static {
        let (lease, changed) = (self.clone(), self.changed());
        async move {
            if lease.phase() != Phase::Released {
                tokio::select! {
                    biased;
                    () = changed => {}
                    _ = lease.lost() => {}
                }
            }
        }
    }

    /// Returns once something was changed since this was called.
    fn changed(&self) -> impl Future<Output = ()> + Send + 'static {
        let (lease, mut phases) = (self.clone(), self.hold.phase.subscribe());
        let mut own = self.own_cap.as_ref().map(|own| own.subscribe());
        async move {
            // The senders live in the lease, so neither can fail.
            let _lease = lease;
            tokio::select! {
                biased;
                _ = phases.changed() => {}
                _ = async { own.as_mut()?.changed().await.ok() }, if own.is_some() => {}
            }
        }
    }

    pub(super) fn loss(&self, reason: LossReason) -> Lost {
        Lost { name: self.hold.name.clone(), token: self.hold.token, reason }
    }

    /// Where the lease stands now. A deadline that has passed is noticed here and is final.
    pub(super) fn phase(&self) -> Phase {
        let (phase, now) = (*self.hold.phase.borrow(), self.hold.clock.now());
        let phase = match phase {
            Phase::Live(term) if now >= term.deadline() => self.change(|_| None),
            phase => phase,
        };
        match (phase, self.own_cap.as_ref().map(|own| *own.borrow())) {
            (Phase::Live(_), Some(own)) if now >= own => Phase::Lost(LossReason::AtMostFor),
            (Phase::Live(term), Some(own)) => {
                Phase::Live(Term { cap: Some(term.cap.map_or(own, |cap| cap.min(own))), ..term })
            }
            (phase, _) => phase,
        }
    }

    /// Raises the deadline after an acknowledged renewal; never lowers it, never revives.
    pub(super) fn extend(&self, deadline: Moment) -> Extended {
        let after = self.change(|term| Some(Phase::Live(Term { granted: term.granted.max(deadline), ..term })));
        if matches!(after, Phase::Live(_)) { Extended::Live } else { Extended::TooLate }
    }

    /// Ends it as lost, unless it has ended.
    pub(super) fn lose(&self, reason: LossReason) -> Phase {
        self.change(|_| Some(Phase::Lost(reason)))
    }

    /// Ends it by the holder's will, unless it has ended. From here on nobody believes in it (law 1).
    pub(super) fn end(&self) -> Phase {
        self.change(|_| Some(Phase::Released))
    }

    /// Looks at the clock before each poll of some work: the reason as soon as the lease is over, or what the work gives.
    pub(super) async fn while_held<T>(&self, work: impl Future<Output = T>) -> Result<T, Lost> {
        let mut lost = std::pin::pin!(self.lost());
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|context| {
            // Also when nobody woke the timer, as after a suspend.
            if let Err(lost) = self.check() {
                return Poll::Ready(Err(lost));
            }
            if let Poll::Ready(reason) = lost.as_mut().poll(context) {
                return Poll::Ready(Err(self.loss(reason)));
            }
            // Work that blocked its thread beyond the deadline ended outside the lease, however it ended.
            work.as_mut().poll(context).map(|value| self.check().map(|()| value))
        })
        .await
    }

    /// The one way to change the phase: from live only, and only after a passed deadline was noticed.
    fn change(&self, next: impl FnOnce(Term) -> Option<Phase>) -> Phase {
        let mut after = Phase::Released;
        self.hold.phase.send_if_modified(|phase| {
            let before = *phase;
            if let Phase::Live(term) = before {
                if self.hold.clock.now() >= term.deadline() {
                    let capped = term.cap.is_some_and(|cap| term.granted >= cap);
                    *phase = Phase::Lost(if capped { LossReason::AtMostFor } else { LossReason::Expired });
                } else if let Some(next) = next(term) {
                    *phase = next;
                }
            }
            after = *phase;
            before != *phase
        });
        after
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("name", &self.hold.name)
            .field("owner", &self.hold.owner)
            .field("token", &self.hold.token)
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TestClock;
    use futures_util::FutureExt;

    fn lease(clock: &Arc<TestClock>, secs: u64, cap: Option<u64>) -> Lease {
        let at = |secs| clock.now() + Duration::from_secs(secs);
        let owner = OwnerId::from_u128(1);
        let name = LockName::new("x").unwrap();
        Lease::new(name, owner, FencingToken::new(1), clock.clone(), at(secs), cap.map(at))
    }

    #[test]
    fn what_others_hold_at_the_same_time_fences_nothing() {
        let clock = Arc::new(TestClock::new());
        assert_eq!(lease(&clock, 10, None).fence().unwrap().to_string(), "1@x");
        for mode in [Mode::Shared, Mode::Permits(3.try_into().unwrap())] {
            let error = lease(&clock, 10, None).of(mode, None).fence().unwrap_err();
            assert!(error.to_string().contains("fences nothing"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_longer_than_the_lease_is_seen_at_the_first_look() {
        let clock = Arc::new(TestClock::new());
        let lease = lease(&clock, 10, None);
        assert!(lease.is_valid());
        clock.suspend(Duration::from_secs(11));
        assert!(!lease.is_valid());
        assert_eq!(lease.check().unwrap_err().reason, LossReason::Expired);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_renewal_never_revives() {
        let clock = Arc::new(TestClock::new());
        let lease = lease(&clock, 10, None);
        clock.suspend(Duration::from_secs(10));
        // Nobody has looked yet: the renewal itself must notice.
        assert_eq!(lease.extend(clock.now() + Duration::from_secs(60)), Extended::TooLate);
        assert!(!lease.is_valid());
        assert_eq!(lease.lost().await, LossReason::Expired);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_never_lowers_the_deadline() {
        let clock = Arc::new(TestClock::new());
        let lease = lease(&clock, 10, None);
        let deadline = lease.deadline();
        assert_eq!(lease.extend(clock.now() + Duration::from_secs(1)), Extended::Live);
        assert_eq!(lease.deadline(), deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn lost_comes_at_the_deadline_without_any_keeper() {
        let clock = Arc::new(TestClock::new());
        let lease = lease(&clock, 10, None);
        let deadline = lease.deadline();
        assert_eq!(lease.lost().await, LossReason::Expired);
        assert!(clock.now() >= deadline && clock.now().since(deadline) < Duration::from_millis(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_release_is_not_a_loss() {
        let clock = Arc::new(TestClock::new());
        let lease = lease(&clock, 10, None);
        let mut lost = Box::pin(lease.lost());
        assert!(lost.as_mut().now_or_never().is_none());
        lease.end();
        clock.sleep_until(clock.now() + Duration::from_secs(60)).await;
        assert!(lost.as_mut().now_or_never().is_none());
        assert_eq!(lease.check().unwrap_err().reason, LossReason::Released);
        lease.deadline_changed().await;
        assert_eq!(lease.lose(LossReason::NotOurs), Phase::Released, "what is over is over");
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_for_caps_every_renewal() {
        let clock = Arc::new(TestClock::new());
        let lease = lease(&clock, 10, Some(15));
        let cap = clock.now() + Duration::from_secs(15);
        lease.extend(clock.now() + Duration::from_secs(60));
        assert_eq!(lease.deadline(), cap);
        assert_eq!(lease.lost().await, LossReason::AtMostFor);
        assert!(lease.extend_at_most(Duration::from_secs(60)).is_err(), "what is over stays over");
        assert!(!lease.is_valid());
    }

    #[tokio::test(start_paused = true)]
    async fn extended_at_most_for_ends_later_and_never_after_what_was_granted() {
        let clock = Arc::new(TestClock::new());
        let (start, lease) = (clock.now(), lease(&clock, 10, Some(5)));
        let lost = lease.lost();
        lease.extend_at_most(Duration::from_secs(3)).unwrap();
        assert_eq!(lost.await, LossReason::AtMostFor);
        assert!(clock.now().since(start).as_secs_f64() - 8.0 < 0.005);

        let capped = self::lease(&clock, 10, Some(5));
        capped.extend_at_most(Duration::from_secs(60)).unwrap();
        assert_eq!(capped.remaining(), Duration::from_secs(10));
        assert_eq!(capped.lost().await, LossReason::Expired);
    }

    #[tokio::test(start_paused = true)]
    async fn a_moved_deadline_is_told() {
        let clock = Arc::new(TestClock::new());
        let lease = lease(&clock, 10, None);
        let mut moved = Box::pin(lease.deadline_changed());
        assert!(moved.as_mut().now_or_never().is_none());
        lease.extend(clock.now() + Duration::from_secs(20));
        moved.await;
    }
}
