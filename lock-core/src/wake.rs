//! Wake-ups: hints that a lock may have become free.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use crate::name::LockName;

/// The watchers of one process. Every provider has one, and calls [`wake`](Self::wake) for each event it hears.
///
/// Watchers are kept by lock where an event concerns all who wait for it, and by owner
/// ([`OwnerId`](crate::OwnerId) as `K`) where each waiter has an event of its own: its predecessor's leaving a queue.
#[derive(Clone, Debug)]
pub struct WakeHub<K = LockName> {
    watched: Arc<Mutex<Table<K>>>,
    /// Told whenever the last watcher has left.
    emptied: Arc<Notify>,
}

#[derive(Debug)]
struct Table<K> {
    watched: HashMap<K, Watched>,
    /// How many have entered so far.
    entered: u64,
}

/// What the watchers of one lock or owner have in common.
#[derive(Debug)]
struct Watched {
    events: watch::Sender<u64>,
    /// Its place among those that were ever watched.
    place: u64,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { watched: HashMap::new(), entered: 0 }
    }
}

impl<K> Default for WakeHub<K> {
    fn default() -> Self {
        Self { watched: Arc::default(), emptied: Arc::default() }
    }
}

impl WakeHub {
    /// Wakes the watchers of one lock.
    pub fn wake(&self, name: &str) {
        if let Ok(name) = LockName::new(name) {
            self.wake_one(&name);
        }
    }
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> WakeHub<K> {
    /// Subscribes. Wake-ups that come from now on are not missed, not even between two calls of [`Watch::woken`].
    #[must_use]
    pub fn subscribe(&self, key: &K) -> Watch {
        let events = {
            let mut table = self.table();
            let Table { watched, entered } = &mut *table;
            let entry = watched.entry(key.clone()).or_insert_with(|| {
                *entered += 1;
                Watched { events: watch::Sender::default(), place: *entered }
            });
            entry.events.subscribe()
        };
        let (hub, key) = (self.clone(), key.clone());
        Watch { events: Some(events), leave: Some(Box::new(move |events| hub.leave(&key, events))) }
    }

    /// Wakes the watchers of this lock or owner.
    pub fn wake_one(&self, key: &K) {
        if let Some(watched) = self.table().watched.get(key) {
            watched.events.send_modify(|count| *count += 1);
        }
    }

    /// Wakes everybody: events may have been missed (a subscription was cut), or they don't say which lock they are for.
    pub fn wake_all(&self) {
        let table = self.table();
        let mut watched: Vec<&Watched> = table.watched.values().collect();
        // What was watched first is woken first, and not what the hasher put first: no chance that wasn't handed in.
        watched.sort_unstable_by_key(|watched| watched.place);
        for watched in watched {
            watched.events.send_modify(|count| *count += 1);
        }
    }

    /// What is watched now, in no order: for providers whose events don't say which lock they are for.
    #[must_use]
    pub fn watched(&self) -> Vec<K> {
        self.table().watched.keys().cloned().collect()
    }

    /// Returns once nobody watches anything: a subscription at the store may end then. Cancel safe.
    pub async fn idle(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.is_idle() {
                return;
            }
            emptied.await;
        }
    }

    /// Whether nobody watches anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.table().watched.is_empty()
    }

    fn table(&self) -> MutexGuard<'_, Table<K>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, key: &K, events: watch::Receiver<u64>) {
        let watched = &mut self.table().watched;
        drop(events);
        if watched.get(key).is_some_and(|watched| watched.events.receiver_count() == 0) {
            watched.remove(key);
            if watched.is_empty() {
                self.emptied.notify_waiters();
            }
        }
    }
}

/// A subscription to one lock's wake-ups; dropping it ends it.
pub struct Watch {
    events: Option<watch::Receiver<u64>>,
    /// Taken on drop, with the events, so that the hub sees who is left.
    leave: Option<Leave>,
}

type Leave = Box<dyn FnOnce(watch::Receiver<u64>) + Send + Sync>;

impl Watch {
    /// Returns when the lock *may* have become free since the last call returned. A hint, never trusted.
    ///
    /// Cancel safe: a wake-up that comes while nobody waits is kept for the next call.
    pub async fn woken(&mut self) {
        if let Some(events) = &mut self.events
            && events.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let (Some(leave), Some(events)) = (self.leave.take(), self.events.take()) {
            leave(events);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_wake_up_between_two_looks_is_kept() {
        let (hub, name) = (WakeHub::default(), LockName::new("x").unwrap());
        let mut watch = hub.subscribe(&name);
        assert!(watch.woken().now_or_never().is_none());
        hub.wake("x");
        hub.wake("y");
        watch.woken().await;
        assert!(watch.woken().now_or_never().is_none(), "two hints may become one, one never becomes two");
        hub.wake_all();
        watch.woken().await;
    }

    #[tokio::test]
    async fn all_are_woken_in_the_order_in_which_they_came() {
        let hub = WakeHub::<u32>::default();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (came, mut waiting) = (0..20, tokio::task::JoinSet::new());
        for key in came.clone() {
            let (mut watch, order) = (hub.subscribe(&key), order.clone());
            waiting.spawn(async move {
                watch.woken().await;
                order.lock().unwrap().push(key);
            });
        }
        tokio::task::yield_now().await;
        hub.wake_all();
        waiting.join_all().await;
        assert_eq!(*order.lock().unwrap(), came.collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_last_watcher_leaves_nothing_behind() {
        let (hub, name) = (WakeHub::default(), LockName::new("x").unwrap());
        let (one, two) = (hub.subscribe(&name), hub.subscribe(&name));
        drop(one);
        assert!(!hub.is_idle());
        assert_eq!(hub.watched(), [name]);
        assert!(hub.idle().now_or_never().is_none());
        let waiting = tokio::spawn({
            let hub = hub.clone();
            async move { hub.idle().await }
        });
        tokio::task::yield_now().await;
        drop(two);
        waiting.await.unwrap();
        assert!(hub.is_idle());
    }
}
