//! How waiters are woken: each by the deletion of the entry before its own. One stream for all who wait in a process.
//!
//! A watch begins at the revision after the one at which the place in the queue was learned, so nothing is missed between
//! the two. When the stream breaks, the new one begins at the same revision, and who waits is woken and looks: what was
//! deleted at the revision that a compaction kept is told to nobody (seen on 3.4).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use etcd_client::{
    Client, Error as DriverError, EventType, WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse,
    WatchResponseStream,
};
use lock_core::{WakeHub, Watch};
use tokio::{sync::Notify, task::AbortHandle};

use crate::{
    book::Who,
    error::Failure,
    link::{Connection, Link},
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The stream is closed when nobody has waited for so long.
const IDLE: Duration = Duration::from_secs(10);

/// The watchers of a provider and what wakes them.
pub(crate) struct Wakes {
    hub: WakeHub<Who>,
    link: Arc<Link>,
    wanted: Mutex<Wanted>,
    changed: Notify,
    /// Whether the provider is gone.
    over: AtomicBool,
}

#[derive(Default)]
struct Wanted {
    followed: HashMap<Who, Followed>,
    by_watch: HashMap<i64, Who>,
    next: i64,
    /// What the stream is yet to be told.
    changes: Vec<Change>,
    task: Option<AbortHandle>,
}

/// Whom a waiter follows.
struct Followed {
    watch: i64,
    key: Vec<u8>,
    from: i64,
    /// How often the server was asked to watch it.
    asked: u32,
    gone: bool,
}

enum Change {
    Add(i64),
    Cancel(i64),
}

/// A stream of what happens.
struct Stream {
    sender: WatchRequestSender,
    answers: WatchResponseStream,
    number: u64,
}

impl Wakes {
    pub(crate) fn new(link: &Arc<Link>) -> Arc<Self> {
        Arc::new(Self {
            hub: WakeHub::default(),
            link: Arc::clone(link),
            wanted: Mutex::default(),
            changed: Notify::new(),
            over: AtomicBool::new(false),
        })
    }

    /// Subscribes. What happened between the queueing and this is told at once.
    pub(crate) fn watch(&self, who: &Who) -> Watch {
        let watch = self.hub.subscribe(who);
        if self.wanted().followed.get(who).is_some_and(|followed| followed.gone) {
            self.hub.wake_one(who);
        }
        watch
    }

    /// Wakes this waiter when the entry is deleted, at this revision or later.
    pub(crate) fn follow(self: &Arc<Self>, who: &Who, key: Vec<u8>, from: i64) {
        let mut wanted = self.wanted();
        wanted.leave(who);
        wanted.next += 1;
        let watch = wanted.next;
        wanted.followed.insert(who.clone(), Followed { watch, key, from, asked: 0, gone: false });
        wanted.by_watch.insert(watch, who.clone());
        wanted.changes.push(Change::Add(watch));
        if wanted.task.as_ref().is_none_or(AbortHandle::is_finished) {
            wanted.task = Some(tokio::spawn(listen(Arc::clone(self))).abort_handle());
        }
        drop(wanted);
        self.changed.notify_one();
    }

    /// Follows once more whoever is no longer followed, because his watch ended without what it was for.
    pub(crate) fn follow_again(self: &Arc<Self>, who: &Who, key: &[u8], from: i64) {
        let heard = self.wanted().followed.get(who).is_some_and(|followed| !followed.gone);
        if !heard {
            self.follow(who, key.to_vec(), from);
        }
    }

    pub(crate) fn unfollow(&self, who: &Who) {
        let mut wanted = self.wanted();
        wanted.leave(who);
        drop(wanted);
        self.changed.notify_one();
    }

    pub(crate) fn wake(&self, who: &Who) {
        self.hub.wake_one(who);
    }

    /// Ends the task that listens.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the task is to end: nobody waits, or nobody can be told.
    fn retire_if_idle(&self, idle: bool) -> bool {
        let mut wanted = self.wanted();
        let ends = self.over.load(Ordering::Relaxed) || (idle && wanted.followed.is_empty());
        if ends {
            wanted.task = None;
        }
        ends
    }

    /// A stream with all that is wanted by now; `None` where nobody waits any more.
    async fn open(&self) -> Result<Option<Stream>, Failure> {
        let watches = {
            let mut wanted = self.wanted();
            wanted.changes.clear();
            wanted.options()
        };
        let Some(((key, options), more)) = watches.split_first() else { return Ok(None) };
        let Connection { client, number } = self.link.connection().await?;
        let limit = self.link.attempt_timeout();
        let opening = async {
            let (mut sender, answers) = watch(&client, key, options).await?;
            for (key, options) in more {
                sender.watch(key.clone(), Some(options.clone())).await?;
            }
            Ok(Stream { sender, answers, number })
        };
        let opened = self.link.within(limit, opening).await.unwrap_or(Err(Failure::Silent(limit)));
        opened.inspect_err(|_| self.link.broken(number)).map(Some)
    }

    /// Tells the stream what has changed.
    async fn tell(&self, stream: &mut Stream) -> Result<(), DriverError> {
        let (added, cancelled) = {
            let mut wanted = self.wanted();
            let changes = std::mem::take(&mut wanted.changes);
            let mut told = (Vec::new(), Vec::new());
            for change in changes {
                match change {
                    // Whoever has left meanwhile isn't there any more, and his cancellation comes behind.
                    Change::Add(watch) => told.0.extend(wanted.option(watch)),
                    Change::Cancel(watch) => told.1.push(watch),
                }
            }
            told
        };
        for (key, options) in added {
            stream.sender.watch(key, Some(options)).await?;
        }
        for watch in cancelled {
            stream.sender.cancel(watch).await?;
        }
        Ok(())
    }

    /// Whether the store ended a watch that is wanted, though it could keep it.
    fn is_refused(&self, answer: &WatchResponse) -> bool {
        answer.canceled() && answer.compact_revision() == 0 && self.wanted().by_watch.contains_key(&answer.watch_id())
    }

    fn heard(&self, answer: &WatchResponse) {
        let deleted = answer.events().iter().any(|event| event.event_type() == EventType::Delete);
        if answer.created() && !answer.canceled() {
            let wanted = self.wanted();
            let who = wanted.by_watch.get(&answer.watch_id());
            // Watched anew: what came between the two streams may have been forgotten.
            if let Some(who) = who.filter(|who| wanted.followed.get(*who).is_some_and(|followed| followed.asked > 1)) {
                self.hub.wake_one(who);
            }
        }
        if !deleted && !answer.canceled() {
            return;
        }
        let who = {
            let mut wanted = self.wanted();
            let Some(who) = wanted.by_watch.remove(&answer.watch_id()) else { return };
            if let Some(followed) = wanted.followed.get_mut(&who) {
                followed.gone = true;
            }
            if deleted {
                wanted.changes.push(Change::Cancel(answer.watch_id()));
            }
            who
        };
        self.hub.wake_one(&who);
    }

    /// Reads until the stream breaks (`true`), or nobody waits.
    async fn serve(&self, mut stream: Stream) -> bool {
        let mut breaks = self.link.breaks();
        loop {
            // Others noticed that the server says nothing any more.
            if !self.link.is_current(stream.number) {
                return true;
            }
            let idle_at = self.link.clock.now() + IDLE;
            tokio::select! {
                answer = stream.answers.message() => match answer {
                    // A server that isn't in touch with a leader ends all watches of a stream.
                    Ok(Some(answer)) if answer.canceled() && answer.watch_id() < 0 => return self.lost(&stream),
                    // For another reason than that it forgot: made anew after a pause, and not on this stream.
                    Ok(Some(answer)) if self.is_refused(&answer) => return self.lost(&stream),
                    Ok(Some(answer)) => self.heard(&answer),
                    Ok(None) => return self.lost(&stream),
                    Err(error) => {
                        tracing::debug!(%error, "the stream of events ended");
                        return self.lost(&stream);
                    }
                },
                () = self.changed.notified() => {}
                _ = breaks.changed() => continue,
                () = self.link.clock.sleep_until(idle_at) => {
                    if self.retire_if_idle(true) {
                        return false;
                    }
                }
            }
            if self.retire_if_idle(false) {
                return false;
            }
            let limit = self.link.attempt_timeout();
            if !matches!(self.link.within(limit, self.tell(&mut stream)).await, Some(Ok(()))) {
                return self.lost(&stream);
            }
        }
    }

    fn lost(&self, stream: &Stream) -> bool {
        self.link.broken(stream.number);
        true
    }
}

impl Wanted {
    fn leave(&mut self, who: &Who) {
        if let Some(followed) = self.followed.remove(who)
            && self.by_watch.remove(&followed.watch).is_some()
        {
            self.changes.push(Change::Cancel(followed.watch));
        }
    }

    fn option(&mut self, watch: i64) -> Option<(Vec<u8>, WatchOptions)> {
        let followed = self.followed.get_mut(self.by_watch.get(&watch)?)?;
        followed.asked += 1;
        let options = WatchOptions::new()
            .with_watch_id(watch)
            .with_start_revision(followed.from)
            .with_filters([WatchFilterType::NoPut]);
        Some((followed.key.clone(), options))
    }

    /// All that is yet to be heard of.
    fn options(&mut self) -> Vec<(Vec<u8>, WatchOptions)> {
        let watches: Vec<i64> = self.by_watch.keys().copied().collect();
        watches.into_iter().filter_map(|watch| self.option(watch)).collect()
    }
}

async fn watch(
    client: &Client,
    key: &[u8],
    options: &WatchOptions,
) -> Result<(WatchRequestSender, WatchResponseStream), DriverError> {
    Ok(client.watch_client().watch(key, Some(options.clone())).await?.split())
}

/// Listens as long as somebody waits and the provider lives.
async fn listen(wakes: Arc<Wakes>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match wakes.open().await {
            Ok(Some(stream)) => {
                pause = FIRST_PAUSE;
                if !wakes.serve(stream).await {
                    return;
                }
            }
            Ok(None) => {}
            Err(failure) => {
                tracing::debug!(?failure, "no stream of events to listen to");
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        if wakes.retire_if_idle(true) {
            return;
        }
        wakes.link.clock.sleep_until(wakes.link.clock.now() + pause).await;
    }
}
