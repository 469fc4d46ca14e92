//! What has to be done while nobody asks: entries are deleted at their end, and the leases of those who wait are kept alive.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use lock_core::Clock;

use crate::{
    book::{Own, Place},
    class::Class,
    store::Store,
};

/// So many are deleted at once.
const AT_ONCE: usize = 64;
/// What couldn't be deleted is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// How often those who wait are looked through, at least: it costs the store nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Deletes entries whose end is over. Never returns.
pub(crate) async fn delete_overdue(store: Arc<Store>) {
    loop {
        let clock = &store.link.clock;
        let told = store.book.earlier.notified();
        match store.book.first_end() {
            None => told.await,
            Some(end) => tokio::select! {
                () = told => continue,
                () = clock.sleep_until(end) => {}
            },
        }
        let now = clock.now();
        let again = now + store.link.operation_timeout + AGAIN;
        let overdue = store.book.overdue(now, again, AT_ONCE);
        let deletions = overdue.iter().map(|own| store.expire(own));
        for (deleted, own) in join_all(deletions).await.into_iter().zip(&overdue) {
            if own.stand().is_none() {
                // Nobody knows what came of it, so it may yet come.
                store.classes.of(Duration::from_secs(own.seconds)).retire();
            }
            if let Err(error) = deleted {
                tracing::debug!(lock = %own.who.0, %error, "an entry that is over could not be deleted; it is tried again");
            }
        }
    }
}

/// Keeps the leases alive under which somebody waits, and moves those who wait to the lease that is in use. Never returns.
///
/// Who holds renews; who waits asks nothing of the store.
pub(crate) async fn keep_waiting(store: Arc<Store>) {
    loop {
        let clock: Arc<dyn Clock> = Arc::clone(&store.link.clock);
        let told = store.book.queued.notified();
        let mut classes: BTreeMap<u64, Vec<Own>> = BTreeMap::new();
        for own in store.book.waiting() {
            classes.entry(own.seconds).or_default().push(own);
        }
        let Some(shortest) = classes.keys().next().copied() else {
            told.await;
            continue;
        };
        let tended = classes.into_iter().map(|(seconds, waiting)| {
            let class = store.classes.of(Duration::from_secs(seconds));
            let store = &store;
            async move { store.tend(&class, waiting).await }
        });
        join_all(tended).await;
        // Each lease a third of its ttl after it was last kept alive, or soon after; and of whichever class the next comes.
        clock.sleep_until(clock.now() + (Duration::from_secs(shortest) / 12).min(LOOK_AGAIN)).await;
    }
}

impl Store {
    async fn tend(&self, class: &Class, waiting: Vec<Own>) {
        let before = class.current().map(|lease| lease.id);
        let shared = match class.lease(Duration::from_secs(class.seconds) / 3).await {
            Ok(shared) => shared,
            Err(error) => {
                tracing::debug!(%error, "the lease of those who wait could not be kept alive; it is tried again");
                return;
            }
        };
        for own in waiting.into_iter().filter(|own| own.lease != shared.id) {
            let Place::Line(stand, _) = &own.place else { continue };
            match self.move_entry(&own.who, *stand, &own.value, shared.id).await {
                Ok(Some((moved, _))) => {
                    // If he is leaving, he is deleted under whichever lease it is.
                    let _ = self.book.extend(&own.who, self.now(), |own| {
                        own.lease = shared.id;
                        // His turn may have come meanwhile.
                        if let Place::Line(stand, _) | Place::Held(stand) = &mut own.place {
                            *stand = moved;
                        }
                    });
                }
                // The place is lost with the lease: he looks, and queues anew.
                Ok(None) => self.wakes.wake(&own.who),
                Err(error) => {
                    tracing::debug!(?before, %error, "a waiter's place could not be moved to another lease");
                    return;
                }
            }
        }
    }
}
