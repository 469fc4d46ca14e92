//! How waiters are woken: one connection that subscribes to one channel, opened for the first watch and closed when nobody
//! has watched for a while.
//!
//! What is published while that connection is cut is lost, so everybody is woken once it is subscribed again. An expiry
//! publishes nothing: waiters sleep until it themselves.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::StreamExt;
use lock_core::{Clock, ErrorKind, LockName, Moment, StoreError, WakeHub, Watch};
use redis::aio::{PubSub, PubSubSink};
use tokio::{sync::watch, task::AbortHandle};

use crate::door::Door;

/// How often an idle connection is asked whether it is still there, and whether anybody still watches: a connection
/// that was cut silently would be listened to for ever.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How long the answer to that may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A connection that listened for so long counts as good, and the next pause is a short one again.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// Hears of released locks on one channel of one server, and wakes their watchers. Several may share a hub.
pub(crate) struct Wakes {
    hub: WakeHub,
    door: Arc<Door>,
    channel: String,
    clock: Arc<dyn Clock>,
    listener: Mutex<Option<Listener>>,
}

/// The task that listens.
struct Listener {
    state: watch::Receiver<State>,
    task: AbortHandle,
}

#[derive(Clone, Debug)]
enum State {
    /// Not known yet.
    Connecting,
    /// The subscription is in force.
    Listening,
    /// It couldn't be had; another attempt follows.
    Down(StoreError),
}

/// Why a connection isn't listened to any more.
enum End {
    Lost,
    Idle,
}

impl Wakes {
    pub(crate) fn new(hub: WakeHub, door: Arc<Door>, channel: String, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { hub, door, channel, clock, listener: Mutex::default() })
    }

    /// Subscribes; once it returns, no published release is missed without a wake-up.
    ///
    /// Cancel safe: the connection is made all the same, and closed when nobody watches.
    pub(crate) async fn watch(self: &Arc<Self>, name: &LockName) -> Result<Watch, StoreError> {
        // Before the task is looked for: it ends only if, under the same mutex, it finds nobody watching.
        let watch = self.hub.subscribe(name);
        self.listen().await?;
        Ok(watch)
    }

    /// Returns once what is published wakes the hub's watchers. Somebody must watch, or it ends again.
    pub(crate) async fn listen(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut state = self.listener_state();
        let settled = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match settled.as_deref() {
            Ok(State::Listening) => Ok(()),
            Ok(State::Down(error)) => Err(error.clone()),
            Ok(State::Connecting) | Err(_) => {
                Err(StoreError::refused(ErrorKind::Other, "the task that listens was ended by the runtime"))
            }
        }
    }

    fn listener_state(self: &Arc<Self>) -> watch::Receiver<State> {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        // A task whose runtime has ended is as good as none.
        if let Some(running) = listener.as_ref().filter(|running| !running.task.is_finished()) {
            return running.state.clone();
        }
        let (tell, state) = watch::channel(State::Connecting);
        let task = tokio::spawn(listen(Arc::downgrade(self), tell)).abort_handle();
        listener.insert(Listener { state, task }).state.clone()
    }

    /// Forgets the task if nobody watches; then it must end.
    fn retire_if_idle(&self) -> bool {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = self.hub.is_idle();
        if idle {
            *listener = None;
        }
        idle
    }

    async fn serve(&self, subscription: PubSub) -> End {
        let (mut requests, mut messages) = subscription.split();
        let mut idle_before = false;
        let mut look_at = self.clock.now() + LOOK_EVERY;
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    // Not everybody who may publish is one of us: what is no name wakes nobody.
                    Some(message) => if let Ok(name) = std::str::from_utf8(message.get_payload_bytes()) {
                        self.hub.wake(name);
                    },
                    None => return End::Lost,
                },
                () = self.clock.sleep_until(look_at) => {
                    if idle_before && self.retire_if_idle() {
                        return End::Idle;
                    }
                    idle_before = self.hub.is_idle();
                    if !self.is_alive(&mut requests).await {
                        return End::Lost;
                    }
                    look_at = self.clock.now() + LOOK_EVERY;
                }
            }
        }
    }

    async fn is_alive(&self, requests: &mut PubSubSink) -> bool {
        let give_up = self.clock.now() + LOOK_TIMEOUT;
        tokio::select! {
            answered = requests.ping::<redis::Value>() => answered.is_ok(),
            () = self.clock.sleep_until(give_up) => false,
        }
    }
}

/// Listens as long as somebody watches and the provider lives.
async fn listen(wakes: Weak<Wakes>, tell: watch::Sender<State>) {
    let mut pause = FIRST_PAUSE;
    let mut heard_before = false;
    loop {
        // Held while it listens: the provider's end aborts the task (see `Shutdown`).
        let Some(wakes) = wakes.upgrade() else { return };
        match wakes.door.subscription(&wakes.channel).await {
            Ok(subscription) => {
                let since: Moment = wakes.clock.now();
                tell.send_replace(State::Listening);
                if heard_before {
                    wakes.hub.wake_all();
                }
                heard_before = true;
                if matches!(wakes.serve(subscription).await, End::Idle) {
                    return;
                }
                tracing::debug!(channel = wakes.channel, "the connection that listens was cut");
                tell.send_replace(State::Connecting);
                if wakes.clock.now().since(since) > GOOD_AFTER {
                    pause = FIRST_PAUSE;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no connection to listen on");
                tell.send_replace(State::Down(error));
            }
        }
        if wakes.retire_if_idle() {
            return;
        }
        wakes.clock.sleep_until(wakes.clock.now() + pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Ends the task that listens when the last clone of the provider goes.
#[derive(Debug)]
pub(crate) struct Shutdown(pub(crate) Arc<Wakes>);

impl Drop for Shutdown {
    fn drop(&mut self) {
        let listener = self.0.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            listener.task.abort();
        }
    }
}

impl fmt::Debug for Wakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakes")
            .field("channel", &self.channel)
            .field("idle", &self.hub.is_idle())
            .finish_non_exhaustive()
    }
}
