//! Whether a session is still as long as it was when it was opened.
//!
//! Each connection of a session negotiates its timeout anew, and the driver doesn't tell what came of it. A server whose
//! `maxSessionTimeout` was lowered meanwhile, or is lower than another's, gives less. So after a reconnection nothing is
//! promised by a session until every server that lets somebody in has shown that it grants so much.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lock_core::Moment;
use tokio::sync::Notify;
use zookeeper_client::{Client, SessionState, StateWatcher};

use crate::{
    ground::{Ground, LONGEST},
    session::Session,
};

/// A session's connections.
pub(crate) struct Link {
    state: Mutex<State>,
    /// Told when a connection was noticed.
    noticed: Notify,
}

struct State {
    watcher: StateWatcher,
    /// When a connection was noticed of which it isn't known yet what it came to.
    unproved: Option<Moment>,
}

impl Link {
    pub(crate) fn of(client: &Client) -> Self {
        let state = State { watcher: client.state_watcher(), unproved: None };
        Self { state: Mutex::new(state), noticed: Notify::new() }
    }

    /// Since when it isn't known how long the session is; `None` if it is.
    pub(crate) fn unproved(&self, now: Moment) -> Option<Moment> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Told before any answer that comes over the new connection.
        while let Some(change) = state.watcher.changed().now_or_never() {
            match change {
                SessionState::SyncConnected => {
                    state.unproved = Some(now);
                    self.noticed.notify_one();
                }
                change if change.is_terminated() => break,
                _ => {}
            }
        }
        state.unproved
    }

    /// Takes in what was found out of the connection that was noticed then.
    fn proved(&self, since: Moment) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).unproved.take_if(|unproved| *unproved == since);
    }
}

/// What was found out last, for all sessions of the process: when that began, and the longest session that every server
/// grants.
pub(crate) type Found = tokio::sync::Mutex<Option<(Moment, Duration)>>;

impl Ground {
    /// The longest session that every server grants that lets one in, as they were at this moment or after; `None` if none
    /// does.
    async fn longest_everywhere(&self, since: Moment) -> Option<Duration> {
        let mut found = self.found.lock().await;
        if let Some((_, longest)) = found.filter(|(began, _)| *began >= since) {
            return Some(longest);
        }
        let began = self.now();
        let mut asked: FuturesUnordered<_> = self
            .hosts()
            .split(',')
            .map(|host| {
                let connector = self.connector(LONGEST).with_fail_eagerly();
                async { connector.connect(host).await.map(|client| client.session_timeout()).ok() }
            })
            .collect();
        let mut longest: Option<Duration> = None;
        let mut patience = self.patience(self.connect_timeout);
        while let Ok(Some(answer)) = patience.within(asked.next()).await {
            let Some(granted) = answer else { continue };
            if longest.is_none() {
                // Who is much later than others keeps no session alive either.
                patience = self.patience(self.connect_timeout / 8);
            }
            longest = Some(longest.map_or(granted, |least| least.min(granted)));
        }
        *found = longest.map(|longest| (began, longest));
        longest
    }
}

/// Looks after each reconnection, for as long as the session goes on.
pub(crate) async fn keep_proving(session: Weak<Session>, link: Arc<Link>, mut watcher: StateWatcher) {
    loop {
        // Either may see it first.
        tokio::select! {
            state = watcher.changed() => if state.is_terminated() { return },
            () = link.noticed.notified() => {}
        }
        loop {
            let Some(strong) = session.upgrade() else { return };
            let Some(since) = strong.link.unproved(strong.ground.now()) else { break };
            let ground = Arc::clone(&strong.ground);
            match ground.longest_everywhere(since).await {
                Some(longest) if longest < strong.timeout => {
                    tracing::warn!(?longest, session = ?strong.timeout, "a server grants no session as long as before");
                    strong.ends();
                    return;
                }
                Some(_) => {
                    strong.link.proved(since);
                    strong.has_news();
                }
                None => {
                    drop(strong);
                    ground.clock.sleep_until(ground.now() + ground.connect_timeout / 30).await;
                }
            }
        }
    }
}
