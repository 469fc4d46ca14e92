//! Wake-ups: hints that a lock may have become free.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Notify, watch};

use crate::name::LockName;

/// The watchers of one process, by lock. Every provider has one, and calls [`wake`](Self::wake) for each event it hears.
#[derive(Clone, Debug, Default)]
pub struct WakeHub {
    watched: Arc<Mutex<HashMap<LockName, watch::Sender<u64>>>>,
    /// Told whenever the last watcher has left.
    emptied: Arc<Notify>,
}

impl WakeHub {
    /// Subscribes. Wake-ups that come from now on are not missed, not even between two calls of [`Watch::woken`].
    #[must_use]
    pub fn subscribe(&self, name: &LockName) -> Watch {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let events = watched.entry(name.clone()).or_default().subscribe();
        Watch { events: Some(events), name: name.clone(), hub: self.clone() }
    }

    /// Wakes the watchers of one lock.
    pub fn wake(&self, name: &str) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, events)) = LockName::new(name).ok().and_then(|name| watched.get_key_value(&name)) {
            events.send_modify(|count| *count += 1);
        }
    }

    /// Wakes everybody: events may have been missed (a subscription was cut), or they don't say which lock they are for.
    pub fn wake_all(&self) {
        for events in self.watched.lock().unwrap_or_else(PoisonError::into_inner).values() {
            events.send_modify(|count| *count += 1);
        }
    }

    /// The locks that are watched now, in no order: for providers whose events don't say which lock they are for.
    #[must_use]
    pub fn watched(&self) -> Vec<LockName> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
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

    /// Whether anybody watches anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// A subscription to one lock's wake-ups; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    /// Taken on drop, so that the hub sees who is left.
    events: Option<watch::Receiver<u64>>,
    name: LockName,
    hub: WakeHub,
}

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

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.hub.watched.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.events.take());
        if watched.get(&self.name).is_some_and(|events| events.receiver_count() == 0) {
            watched.remove(&self.name);
            if watched.is_empty() {
                self.hub.emptied.notify_waiters();
            }
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
