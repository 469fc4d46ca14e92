//! How waiters are woken.
//!
//! Whoever frees a lock sets the times of the database file *after* its commit, and the kernel tells every process that
//! watches the file's directory (inotify). Listening to the writes themselves would not do: SQLite writes the WAL before
//! the commit can be seen, so a waiter would look too early and then sleep; and each renewal writes too. A releaser that is
//! killed between the two steps leaves the waiters to their safety net, as an expiry does.
//!
//! The event doesn't say which lock it is for, so the listener reads the records of all watched locks, in one query, and
//! wakes those that look free or changed hands since it last looked.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use lock_core::{FencingToken, LockName, Moment, Record, StoreError, WakeHub};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use crate::store::Store;

/// How often the file is asked for news where the kernel doesn't tell.
pub(crate) const POLL_EVERY: Duration = Duration::from_millis(100);

/// How long the listener stays after the last watcher has left: waits often follow each other.
const LINGER: Duration = Duration::from_secs(10);

/// Tells the other processes that a lock may be free. Never fails the release: the waiters have a safety net.
pub(crate) fn announce(path: &Path) {
    // Both times: then the kernel asks only for the right to write, and tells it as a change of attributes.
    let now = || Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now(), last_modification: now() };
    if let Err(why) = rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()) {
        tracing::warn!(path = %path.display(), %why, "the waiting processes could not be told of a release");
    }
}

/// Whether the kernel tells of changes.
pub(crate) fn events_can_be_had() -> bool {
    source::Events::can_be_had()
}

/// Sees to it that somebody listens as long as somebody watches. Subscribe before calling it.
pub(crate) fn listen(store: &Arc<Store>) {
    let mut listener = store.listener.lock().unwrap_or_else(PoisonError::into_inner);
    if listener.as_ref().is_some_and(|task| !task.is_finished()) {
        return;
    }
    let events = source::Events::of(&store.path);
    if let Err(why) = &events {
        tracing::warn!(path = %store.path.display(), %why, "no events of the file can be had; polling it");
    }
    let task = tokio::spawn(listener_task(Arc::downgrade(store), store.wakes.clone(), events.ok(), LINGER));
    if listener.replace(task).is_some() {
        // The one before ended with its runtime and not by itself: those who watched may have missed something.
        store.wakes.wake_all();
    }
}

/// What the source of events has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// Somebody released something.
    Freed,
    /// Events may have been missed, or the file was replaced.
    Missed,
    /// There will be no more.
    Ended,
}

async fn listener_task(store: Weak<Store>, wakes: WakeHub, mut events: Option<source::Events>, linger: Duration) {
    let mut seen = Seen::default();
    let mut version = None;
    let mut lingered = Box::pin(lingering(wakes.clone(), linger));
    loop {
        let news = tokio::select! {
            news = next(&mut events) => Some(news),
            () = &mut lingered => None,
        };
        let Some(store) = store.upgrade() else { return };
        let Some(news) = news else {
            let mut listener = store.listener.lock().unwrap_or_else(PoisonError::into_inner);
            // Under the lock that a new watcher takes after it has subscribed.
            if wakes.is_idle() {
                *listener = None;
                return;
            }
            lingered.set(lingering(wakes.clone(), linger));
            continue;
        };
        match news {
            News::Freed if wakes.is_idle() => {}
            News::Freed if events.is_none() && !has_news(&store, &mut version).await => {}
            News::Freed => seen.wake_changed(&store).await,
            News::Missed => wakes.wake_all(),
            News::Ended => {
                tracing::warn!(path = %store.path.display(), "the events of the file ended; polling it");
                events = None;
                wakes.wake_all();
            }
        }
    }
}

/// Returns some time after the last watcher has left, unless another came.
async fn lingering(wakes: WakeHub, span: Duration) {
    loop {
        wakes.idle().await;
        tokio::time::sleep(span).await;
        if wakes.is_idle() {
            return;
        }
    }
}

/// The next news. Without events it is time to ask.
async fn next(events: &mut Option<source::Events>) -> News {
    match events {
        Some(events) => events.next().await,
        None => {
            tokio::time::sleep(POLL_EVERY).await;
            News::Freed
        }
    }
}

/// Whether somebody has written since this was last asked.
async fn has_news(store: &Store, version: &mut Option<i64>) -> bool {
    let now = match store.database().await {
        Ok(database) => database.data_version().await.ok(),
        Err(_) => None,
    };
    let changed = now.is_none() || now != *version;
    *version = now;
    changed
}

/// What the listener last saw of each watched lock.
#[derive(Debug, Default)]
struct Seen(HashMap<LockName, Glimpse>);

/// What tells one hold from another: a waiter that sleeps for the rest of one must hear of the next.
type Glimpse = (FencingToken, bool);

impl Seen {
    async fn wake_changed(&mut self, store: &Store) {
        let watched = store.wakes.watched();
        let Ok(ledger) = store.read(&watched).await else {
            // They will see for themselves what is the matter.
            return store.wakes.wake_all();
        };
        let mut seen = HashMap::with_capacity(watched.len());
        for name in watched {
            let glimpse = glimpse(ledger.records.get(&name), ledger.now);
            if glimpse.is_none() || self.0.get(&name) != glimpse.as_ref() {
                store.wakes.wake(name.as_str());
            }
            seen.extend(glimpse.map(|glimpse| (name, glimpse)));
        }
        self.0 = seen;
    }
}

/// `None` if it looks free, or can't be understood.
fn glimpse(record: Option<&Result<Record, StoreError>>, now: Moment) -> Option<Glimpse> {
    let record = record?.as_ref().ok().filter(|record| record.is_taken(now))?;
    Some((record.token, record.lease.is_some()))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod source {
    //! inotify(7) on the directory: a watch of the file itself would go with the file when it is replaced.

    use std::{
        ffi::{OsStr, OsString},
        io,
        path::Path,
    };

    use futures_util::{FutureExt, StreamExt};
    use inotify::{EventMask, EventStream, Inotify, WatchMask};

    use super::News;

    #[derive(Debug)]
    pub(super) struct Events {
        stream: EventStream<Vec<u8>>,
        file: OsString,
    }

    /// Room for some dozens of events, each with the longest name.
    const BUFFER: usize = 16 * 1024;

    impl Events {
        /// Processes may run out of instances (`fs.inotify.max_user_instances`).
        pub(super) fn can_be_had() -> bool {
            Inotify::init().is_ok()
        }

        pub(super) fn of(path: &Path) -> io::Result<Self> {
            let (Some(directory), Some(file)) = (path.parent(), path.file_name()) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let inotify = Inotify::init()?;
            let replaced = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
            let gone = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
            inotify.watches().add(directory, WatchMask::ATTRIB | replaced | gone | WatchMask::ONLYDIR)?;
            Ok(Self { stream: inotify.into_event_stream(vec![0; BUFFER])?, file: file.to_owned() })
        }

        /// Waits for news of the file; what has piled up becomes one. Cancel safe.
        pub(super) async fn next(&mut self) -> News {
            let mut news = loop {
                let event = self.stream.next().await;
                if let Some(news) = about(&self.file, event) {
                    break news;
                }
            };
            while news != News::Ended
                && let Some(event) = self.stream.next().now_or_never()
            {
                match about(&self.file, event) {
                    None | Some(News::Freed) => {}
                    Some(graver) => news = graver,
                }
            }
            news
        }
    }

    fn about(file: &OsStr, event: Option<io::Result<inotify::EventOwned>>) -> Option<News> {
        let Some(Ok(event)) = event else { return Some(News::Ended) };
        let ours = event.name.as_deref() == Some(file);
        if event
            .mask
            .intersects(EventMask::IGNORED | EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT)
        {
            Some(News::Ended)
        } else if event.mask.contains(EventMask::Q_OVERFLOW) {
            Some(News::Missed)
        } else if !ours {
            None
        } else if event.mask.contains(EventMask::ATTRIB) {
            Some(News::Freed)
        } else {
            Some(News::Missed)
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod source {
    //! No events here.

    use std::{io, path::Path};

    use super::News;

    #[derive(Debug)]
    pub(super) enum Events {}

    impl Events {
        pub(super) fn can_be_had() -> bool {
            false
        }

        pub(super) fn of(_: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) async fn next(&mut self) -> News {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SqliteLocks;
    use lock_core::{AcquireRequest, LockProvider, OwnerId, ReleaseRequest};

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn where_there_are_no_events_the_file_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("locks.db");
        let (holder, waiter) =
            (SqliteLocks::builder(&path).build().await.unwrap(), SqliteLocks::builder(&path).build().await.unwrap());
        let name = LockName::new("x").unwrap();
        let store = &waiter.store;
        let task = tokio::spawn(listener_task(Arc::downgrade(store), store.wakes.clone(), None, PATIENCE));
        *store.listener.lock().unwrap() = Some(task);
        let mut watch = waiter.watch(&name, OwnerId::from_u128(1)).await.unwrap();
        let request = AcquireRequest::new(name.clone(), OwnerId::from_u128(1), Duration::from_secs(30));
        for _ in 0..3 {
            holder.acquire(&request).await.unwrap();
            holder.release(&ReleaseRequest::new(name.clone(), request.owner, None)).await.unwrap();
            tokio::time::timeout(PATIENCE, watch.woken()).await.expect("a wake-up");
        }
    }

    #[tokio::test]
    async fn the_listener_ends_when_nobody_watches_and_begins_again() {
        let directory = tempfile::tempdir().unwrap();
        let locks = SqliteLocks::builder(directory.path().join("locks.db")).build().await.unwrap();
        let name = LockName::new("x").unwrap();
        let store = &locks.store;
        let watch = store.wakes.subscribe(&name);
        let events = source::Events::of(&store.path).ok();
        let task = tokio::spawn(listener_task(Arc::downgrade(store), store.wakes.clone(), events, Duration::ZERO));
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        drop(watch);
        tokio::time::timeout(PATIENCE, task).await.expect("it ends").unwrap();
        assert!(store.listener.lock().unwrap().is_none());
        let _watch = locks.watch(&name, OwnerId::from_u128(1)).await.unwrap();
        assert!(store.listener.lock().unwrap().as_ref().is_some_and(|task| !task.is_finished()));
    }
}
