//! What all operations share: the way to the store, the leases there, and what this process has there.

use std::{sync::Arc, time::Duration};

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, Txn};
use lock_core::{ErrorKind, FencingToken, Moment, Renewed, StoreError};

use crate::{
    book::{Book, Line, Own, Place, Stand, Who},
    class::{Class, Classes, Shared, whole_seconds},
    entry::Entry,
    error,
    keys::Keys,
    link::{Done, Link},
    txn::{self, Answered},
    wake::Wakes,
};

/// How often it is tried to prove that a keep-alive counts while the cluster changes its leader.
const ROUNDS: u32 = 4;

pub(crate) struct Store {
    pub(crate) link: Arc<Link>,
    pub(crate) keys: Keys,
    pub(crate) classes: Classes,
    pub(crate) book: Book,
    pub(crate) wakes: Arc<Wakes>,
}

/// A lease that is proven, and what is left of it for the one who asked.
pub(crate) struct Proven {
    pub(crate) shared: Shared,
    pub(crate) told: Duration,
}

impl Store {
    pub(crate) fn now(&self) -> Moment {
        self.link.clock.now()
    }

    pub(crate) fn key(&self, who: &Who) -> Vec<u8> {
        self.keys.entry(&who.0, who.1)
    }

    /// Sends a transaction that writes.
    pub(crate) async fn change(&self, txn: &Txn) -> Result<Done<Answered>, StoreError> {
        self.link.write(|client| txn::send(client, txn.clone())).await
    }

    /// Sends a transaction that reads only.
    pub(crate) async fn look(&self, txn: &Txn) -> Result<Answered, StoreError> {
        self.link.read(|client| txn::send(client, txn.clone())).await
    }

    /// An entry as it is at the store, with the raft term of the answer.
    pub(crate) async fn entry(&self, who: &Who) -> Result<(Option<KeyValue>, u64), StoreError> {
        let key = self.key(who);
        let answer = self
            .link
            .read(|client| {
                let key = key.clone();
                async move { client.kv_client().get(key, None).await }
            })
            .await?;
        let term = answer.header().map_or(0, etcd_client::ResponseHeader::raft_term);
        Ok((answer.kvs().first().cloned(), term))
    }

    /// What may be told of a lease to one who asked at this moment, once it is proven by a read, begun after the lease was
    /// had, that reported this term.
    pub(crate) async fn prove(
        &self,
        class: &Class,
        mut shared: Shared,
        mut term: u64,
        who: &Who,
        asked: Moment,
    ) -> Result<Proven, StoreError> {
        for _ in 0..ROUNDS {
            if shared.is_proven_by(term) {
                return Ok(Proven { told: shared.rest(asked), shared });
            }
            let again = class.lease(Duration::ZERO).await?;
            if again.id != shared.id {
                break;
            }
            shared = again;
            term = self.entry(who).await?.1;
        }
        let message = "the cluster changes its leader, and the lease can't be proven to be kept alive";
        Err(StoreError::unknown(ErrorKind::Timeout, message))
    }

    /// Extends somebody's hold: what is left of it by now. `asked` is when the provider was asked.
    pub(crate) async fn extend(
        &self,
        who: &Who,
        token: FencingToken,
        ttl: Duration,
        asked: Moment,
    ) -> Result<Renewed, StoreError> {
        let known = self.book.get(who);
        if let Some((own, until)) = &known
            && (own.leaving || *until <= asked)
        {
            return Ok(Renewed::Lost);
        }
        // Never to a shorter lease than it has.
        let wanted = whole_seconds(ttl);
        let seconds = known.as_ref().map_or(wanted, |(own, _)| own.seconds.max(wanted));
        let class = self.classes.of(Duration::from_secs(seconds));
        let shared = class.lease(Duration::from_secs(seconds) / 6).await?;
        let (found, mut term) = self.entry(who).await?;
        let created = i64::try_from(token.get()).unwrap_or(0);
        let Some(kv) = found.filter(|kv| kv.create_revision() == created && !Entry::read(kv.value()).rests) else {
            // Of another grant than the one that is known here, nothing was learned.
            if known.is_some_and(|(own, _)| own.stand().is_some_and(|stand| stand.created == created)) {
                self.forget(who);
            }
            return Ok(Renewed::Lost);
        };
        let mut stand = Stand { created, modified: kv.mod_revision() };
        if kv.lease() != shared.id {
            // If it is elsewhere by now, nobody renews it here any more: it is seen to at its end.
            let Some((moved, at)) = self.move_entry(who, stand, kv.value(), shared.id).await? else {
                return Ok(Renewed::Lost);
            };
            (stand, term) = (moved, at);
        }
        let proven = self.prove(&class, shared, term, who, asked).await?;
        let told = of_wanted(&proven, seconds, wanted);
        let own = Own {
            who: who.clone(),
            seconds,
            lease: shared.id,
            value: kv.value().to_vec(),
            place: Place::Held(stand),
            leaving: false,
        };
        let kept = match known {
            Some(_) => self.book.extend(who, asked + told, |known| *known = own),
            // Another client's until now: this one keeps it from here on.
            None => self.book.enter(own, asked + told),
        };
        Ok(if kept { Renewed::Held(told) } else { Renewed::Lost })
    }

    /// Puts an entry under another lease; its new version, or nothing if it isn't as it was.
    pub(crate) async fn move_entry(
        &self,
        who: &Who,
        stand: Stand,
        value: &[u8],
        lease: i64,
    ) -> Result<Option<(Stand, u64)>, StoreError> {
        let key = self.key(who);
        let done = self.change(&txn::move_to(&key, stand.modified, value, lease)).await?;
        let Answered { answer, revision, term } = done.answer;
        if answer.succeeded() {
            return Ok(Some((Stand { modified: revision, ..stand }, term)));
        }
        // An attempt whose answer was lost, or another request of this process, may have moved it there.
        let found = txn::gets(&answer)?.into_iter().next().flatten();
        let moved = found.filter(|kv| kv.lease() == lease && kv.create_revision() == stand.created);
        Ok(moved.map(|kv| (Stand { modified: kv.mod_revision(), ..stand }, term)))
    }

    /// Enters a place in a queue and follows the entry before it; `false` if it was given back meanwhile. `from` is the
    /// first revision that isn't known.
    #[must_use]
    pub(crate) fn queue(&self, own: Own, until: Moment, from: i64) -> bool {
        let Place::Line(_, Line { before, .. }) = &own.place else { return false };
        let (who, before) = (own.who.clone(), before.clone());
        let queued = self.book.settle(own, until);
        if queued {
            self.wakes.follow(&who, before, from);
        }
        queued
    }

    /// Deletes what was written for somebody who gave it back meanwhile, or whose time was over.
    pub(crate) async fn undo(&self, own: &Own) {
        if let Err(error) = self.expire(own).await {
            // It ends with its lease then, which nobody keeps alive any more.
            tracing::debug!(lock = %own.who.0, %error, "an entry that nobody wants could not be deleted");
            self.classes.of(Duration::from_secs(own.seconds)).retire();
        }
    }

    /// Knows nothing of an entry any more.
    pub(crate) fn forget(&self, who: &Who) -> Option<Own> {
        self.wakes.unfollow(who);
        self.book.remove(who)
    }

    /// Deletes an entry that is leaving, under whichever lease of this process it is by now, and forgets it.
    pub(crate) async fn expire(&self, own: &Own) -> Result<(), StoreError> {
        let key = self.key(&own.who);
        let mut as_it_was = match own.stand() {
            Some(stand) => vec![Compare::mod_revision(key.as_slice(), CompareOp::Equal, stand.modified)],
            // Under another lease it is somebody else's who took it up.
            None => vec![
                Compare::value(key.as_slice(), CompareOp::Equal, own.value.as_slice()),
                Compare::lease(key.as_slice(), CompareOp::Equal, own.lease),
            ],
        };
        while !self
            .change(&txn::delete(&self.keys, &own.who.0, own.who.1, as_it_was.clone()))
            .await?
            .answer
            .answer
            .succeeded()
        {
            let Some(kv) = self.entry(&own.who).await?.0.filter(|kv| self.is_still(own, kv)) else { break };
            // Moved to another lease meanwhile.
            as_it_was = vec![Compare::mod_revision(key.as_slice(), CompareOp::Equal, kv.mod_revision())];
        }
        // Its owner may have asked anew meanwhile.
        if self.book.get(&own.who).is_some_and(|(now, _)| now.leaving) {
            self.forget(&own.who);
        }
        Ok(())
    }

    /// Whether what is at the store is this entry, and not another grant of its owner's, a lock that rests, or taken over by
    /// another process.
    fn is_still(&self, own: &Own, kv: &KeyValue) -> bool {
        let class = self.classes.of(Duration::from_secs(own.seconds));
        let ours = kv.lease() == own.lease || class.current().is_some_and(|shared| shared.id == kv.lease());
        let same = own.stand().map_or(kv.value() == own.value, |stand| stand.created == kv.create_revision());
        same && ours && !Entry::read(kv.value()).rests
    }

    /// Those before this entry in its queue, the nearest one; the entry itself; and the revision of the look.
    pub(crate) async fn neighbours(&self, who: &Who, created: i64) -> Result<Neighbours, StoreError> {
        let (start, end) = self.keys.queue(&who.0);
        let options = GetOptions::new()
            .with_range(end)
            .with_max_create_revision(created)
            .with_sort(etcd_client::SortTarget::Create, etcd_client::SortOrder::Descend)
            .with_limit(2);
        let answer = self
            .link
            .read(|client| {
                let (start, options) = (start.clone(), options.clone());
                async move { client.kv_client().get(start, Some(options)).await }
            })
            .await?;
        let (revision, term) = answer.header().map_or((0, 0), |header| (header.revision(), header.raft_term()));
        let mut found = answer.kvs().iter().cloned();
        let key = self.key(who);
        let own = found.next().filter(|kv| kv.key() == key && kv.create_revision() == created);
        Ok(Neighbours { before: own.as_ref().and_then(|_| found.next()), own, revision, term })
    }

    /// Takes in that something may come under a lease that nobody knows of.
    pub(crate) fn doubts(&self, class: &Class, error: &StoreError) {
        if error.applied() == lock_core::Applied::Maybe {
            class.retire();
        }
    }

    /// Whether an error says that the lease of a class is gone; then it has another one.
    pub(crate) async fn renewed_lease(&self, class: &Class, error: &StoreError) -> Result<bool, StoreError> {
        if !error::lease_is_gone(error) {
            return Ok(false);
        }
        class.lease(Duration::ZERO).await?;
        Ok(true)
    }
}

/// An entry and the one before it.
pub(crate) struct Neighbours {
    pub(crate) own: Option<KeyValue>,
    pub(crate) before: Option<KeyValue>,
    pub(crate) revision: i64,
    pub(crate) term: u64,
}

/// What is told to one who wanted so many seconds of a lease that may have more.
pub(crate) fn of_wanted(proven: &Proven, seconds: u64, wanted: u64) -> Duration {
    let most = if seconds == wanted { proven.shared.ttl } else { Duration::from_secs(wanted) };
    proven.told.min(most)
}
