//! Leases at the store: one for all entries of a process that have the same ttl.
//!
//! # When a keep-alive counts
//! That a server says OK to a keep-alive proves nothing: a leader that was deposed, or hangs in a write, says it too
//! (etcd #15247), and the new leader counts the lease from its own election. So one counts only if a linearizable read
//! that was begun after its answer reports the raft term that the answer reports. The answer's term is read before the
//! keep-alive is handled, so whoever handled it was leader in that term or a later one; and the read proves that a
//! majority followed the leader of that very term after the keep-alive, so that no later one had been elected, and the
//! lease was extended where it counts. A grant of a lease is agreed on by a majority and needs no such proof.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use etcd_client::{Error as DriverError, LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper};
use lock_core::{Entropy, ErrorKind, Moment, OsEntropy, StoreError};

use crate::{
    error::{self, Failure, Remedy},
    link::{Connection, Link},
};

/// The classes of a process, by their ttl in seconds.
pub(crate) struct Classes {
    link: Arc<Link>,
    classes: Mutex<HashMap<u64, Arc<Class>>>,
}

/// All entries with one ttl.
pub(crate) struct Class {
    pub(crate) seconds: u64,
    link: Arc<Link>,
    state: Mutex<State>,
    /// Held by the one who asks the server; taken out meanwhile, so that nobody takes the answer to another's message
    /// for the answer to his own.
    stream: tokio::sync::Mutex<Option<Stream>>,
}

#[derive(Default)]
struct State {
    lease: Option<Shared>,
    retired: Option<Moment>,
    /// There was another doubt since.
    retire_again: bool,
}

/// A lease at the store, and until when it may be believed in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    pub(crate) id: i64,
    /// What the server granted.
    pub(crate) ttl: Duration,
    /// When the grant or the keep-alive was sent from which it counts.
    pub(crate) sent: Moment,
    /// The raft term under which it was kept alive; `None` for a grant, which needs no proof.
    term: Option<u64>,
}

struct Stream {
    id: i64,
    number: u64,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Classes {
    pub(crate) fn new(link: &Arc<Link>) -> Self {
        Self { link: Arc::clone(link), classes: Mutex::default() }
    }

    /// The class of this ttl, rounded up to whole seconds.
    pub(crate) fn of(&self, ttl: Duration) -> Arc<Class> {
        let seconds = whole_seconds(ttl);
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        let class = || Class {
            seconds,
            link: Arc::clone(&self.link),
            state: Mutex::default(),
            stream: tokio::sync::Mutex::default(),
        };
        Arc::clone(classes.entry(seconds).or_insert_with(|| Arc::new(class())))
    }

    /// The leases that are in use now.
    pub(crate) fn leases(&self) -> Vec<i64> {
        let classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        classes.values().filter_map(|class| Some(class.current()?.id)).collect()
    }
}

/// Seconds as the store counts them.
pub(crate) fn whole_seconds(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)
}

impl Class {
    /// The class's lease, kept alive at most `age` ago or by now.
    ///
    /// Several askers share one message. Cancel safe.
    pub(crate) async fn lease(&self, age: Duration) -> Result<Shared, StoreError> {
        let asked = self.link.clock.now();
        self.retire_if_due(asked);
        let good = |lease: &Shared| lease.sent >= asked || asked.since(lease.sent) <= age;
        if let Some(lease) = self.current().filter(|lease| !age.is_zero() && good(lease)) {
            return Ok(lease);
        }
        let give_up = asked + self.link.operation_timeout;
        let late = || {
            let message = format!("no lease could be had or kept alive within {:?}", self.link.operation_timeout);
            StoreError::refused(ErrorKind::Timeout, message)
        };
        // Who waits for his turn waits no longer than anybody: a store that doesn't answer doesn't answer him either.
        let mut stream = tokio::select! {
            biased;
            stream = self.stream.lock() => stream,
            () = self.link.clock.sleep_until(give_up) => return Err(late()),
        };
        let mut failures = 0;
        loop {
            if self.link.clock.now() >= give_up {
                return Err(late());
            }
            let Some(lease) = self.current() else { return self.grant().await };
            // Somebody else's message, sent since.
            if good(&lease) {
                return Ok(lease);
            }
            match self.keep_alive(&mut stream, lease).await {
                Ok(()) => {}
                Err(failure) => {
                    failures += 1;
                    let over = self.link.clock.now() >= give_up;
                    if failures > 3 || over || failure.remedy() == Remedy::None {
                        return Err(error::of_reading(failure));
                    }
                }
            }
        }
    }

    /// Keeps it alive once, or forgets it if it is gone.
    async fn keep_alive(&self, slot: &mut Option<Stream>, lease: Shared) -> Result<(), Failure> {
        let open = slot.take().filter(|open| open.id == lease.id && self.link.is_current(open.number));
        let limit = self.link.attempt_timeout();
        let Connection { client, number } = self.link.connection().await?;
        let mut sent = self.link.clock.now();
        let asking = async {
            let mut open = match open {
                Some(open) => open,
                None => {
                    // This sends one already; its answer's term is told to nobody.
                    let (keeper, answers) = client.lease_client().keep_alive(lease.id).await?;
                    Stream { id: lease.id, number, keeper, answers }
                }
            };
            sent = self.link.clock.now();
            open.keeper.keep_alive().await?;
            let answer = open.answers.message().await?;
            let answer = answer.ok_or_else(|| DriverError::LeaseKeepAliveError("the stream ended".to_owned()))?;
            Ok((open, answer))
        };
        let outcome = self.link.within(limit, asking).await.unwrap_or(Err(Failure::Silent(limit)));
        match outcome {
            Ok((_, answer)) if answer.ttl() <= 0 => {
                self.forget(lease.id);
                Ok(())
            }
            Ok((open, answer)) => {
                let mut state = self.state();
                if let Some(lease) = state.lease.as_mut().filter(|current| current.id == lease.id) {
                    // Never above what was granted: the rest is told to nobody who could count on it.
                    lease.ttl = lease.ttl.min(seconds(answer.ttl()));
                    lease.sent = sent;
                    lease.term = Some(answer.header().map_or(0, etcd_client::ResponseHeader::raft_term));
                }
                *slot = Some(open);
                Ok(())
            }
            Err(Failure::Driver(DriverError::LeaseKeepAliveError(said))) if said.contains("not found") => {
                self.forget(lease.id);
                Ok(())
            }
            Err(failure) if failure.lease_is_gone() => {
                self.forget(lease.id);
                Ok(())
            }
            Err(failure) => {
                self.link.broken(number);
                Err(failure)
            }
        }
    }

    /// A new lease, which all who ask from now on share.
    async fn grant(&self) -> Result<Shared, StoreError> {
        let lease = new_lease(&self.link, self.seconds).await?;
        let mut state = self.state();
        state.lease = Some(lease);
        Ok(lease)
    }

    /// The lease in use; an entry of another one is to be moved to it.
    pub(crate) fn current(&self) -> Option<Shared> {
        self.state().lease
    }

    /// Forgets a lease that the store no longer has.
    pub(crate) fn forget(&self, id: i64) {
        let mut state = self.state();
        state.lease = state.lease.filter(|lease| lease.id != id);
    }

    /// Takes another lease from now on, because something may yet be written under this one that nobody will know of: it
    /// ends, and what was left under it, when all that is known has moved away.
    ///
    /// At most once per ttl: what comes of a doubt before that is over a ttl later.
    pub(crate) fn retire(&self) {
        self.state().retire_again = true;
        self.retire_if_due(self.link.clock.now());
    }

    fn retire_if_due(&self, now: Moment) {
        let mut state = self.state();
        let long_ago = |before| now.since(before) > Duration::from_secs(self.seconds);
        if state.retire_again && state.retired.is_none_or(long_ago) {
            *state = State { lease: None, retired: Some(now), retire_again: false };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// How much is left of it, counted from this moment; less the drift of the clocks over what is over.
    pub(crate) fn rest(&self, from: Moment) -> Duration {
        let over = from.since(self.sent);
        self.ttl.saturating_sub(over).saturating_sub(over / 100)
    }

    /// Whether a linearizable read that reports this term, begun after the keep-alive was answered, proves that it counts.
    pub(crate) fn is_proven_by(&self, term: u64) -> bool {
        self.term.is_none_or(|kept| kept == term)
    }
}

/// A lease of so many seconds. Its number is chosen here, so that a second attempt finds the first one's.
pub(crate) async fn new_lease(link: &Link, length: u64) -> Result<Shared, StoreError> {
    let length_wanted = i64::try_from(length).unwrap_or(i64::MAX);
    let id = i64::try_from(OsEntropy.next_u64() >> 1).unwrap_or(i64::MAX).max(1);
    let options = || Some(LeaseGrantOptions::new().with_id(id));
    let sent = link.clock.now();
    let granted = link
        .read(|client| async move {
            match client.lease_client().grant(length_wanted, options()).await {
                Ok(answer) => Ok(answer.ttl()),
                Err(error) if Failure::lease_is_there_already(&error) => {
                    client.lease_client().time_to_live(id, None).await.map(|answer| answer.granted_ttl())
                }
                Err(error) => Err(error),
            }
        })
        .await?;
    if granted <= 0 {
        return Err(StoreError::refused(ErrorKind::Timeout, "the lease ended before its grant was answered"));
    }
    Ok(Shared { id, ttl: seconds(granted), sent, term: None })
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(sent: u64, term: Option<u64>) -> Shared {
        Shared { id: 1, ttl: seconds(10), sent: Moment::from_nanos(sent * 1_000_000_000), term }
    }

    #[test]
    fn a_lock_is_kept_for_at_least_as_long_as_it_should() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(2001)), 3);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
    }

    #[test]
    fn what_is_told_counts_from_the_message_that_kept_it_alive() {
        let from = Moment::from_nanos(104_000_000_000);
        assert_eq!(shared(104, None).rest(from), seconds(10));
        assert_eq!(shared(105, None).rest(from), seconds(10), "never more than was granted");
        assert_eq!(shared(100, None).rest(from), Duration::from_millis(5960), "less the drift over what is gone");
        assert_eq!(shared(90, None).rest(from), Duration::ZERO);
    }

    #[test]
    fn only_the_same_term_proves_a_keep_alive() {
        assert!(shared(0, Some(7)).is_proven_by(7));
        assert!(!shared(0, Some(7)).is_proven_by(8));
        assert!(shared(0, None).is_proven_by(8), "a grant was agreed on");
    }
}
