//! How waiters are woken: one `LISTEN` connection, opened for the first watch and closed when nobody has
//! watched for a while.
//!
//! What is announced while that connection is cut is lost (a `NOTIFY` is for who listens now), so everybody is
//! woken once it listens again. An expiry announces nothing: waiters sleep until it themselves.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use lock_core::{Clock, ErrorKind, LockName, Moment, StoreError, WakeHub, Watch};
use sqlx::{
    Acquire, Connection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{sync::watch, task::AbortHandle};

use crate::{connections::address, error};

/// How often an idle connection is asked whether it is still there, and whether anybody still watches.
///
/// The driver sets no TCP keepalive, so a connection that was cut silently would be listened to for ever.
/// What is sent is a bare `Sync` message: the server runs no statement for it.
const LOOK_EVERY: Duration = Duration::from_secs(15);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A connection that listened for so long counts as good, and the next pause is a short one again.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// The watchers of a provider and what wakes them.
pub(crate) struct Wakes {
    hub: WakeHub,
    options: PgConnectOptions,
    channel: String,
    connect_timeout: Duration,
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
    /// `LISTEN` is in force.
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
    pub(crate) fn new(
        options: PgConnectOptions,
        channel: String,
        connect_timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let (hub, listener) = (WakeHub::default(), Mutex::default());
        Arc::new(Self { hub, options, channel, connect_timeout, clock, listener })
    }

    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    /// Subscribes; returns once `LISTEN` is in force.
    ///
    /// Cancel safe: the connection is made all the same, and closed when nobody watches.
    pub(crate) async fn watch(self: &Arc<Self>, name: &LockName) -> Result<Watch, StoreError> {
        // Before the task is looked for: it ends only if, under the same mutex, it finds nobody watching.
        let watch = self.hub.subscribe(name);
        let mut state = self.listener_state();
        let settled = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match settled.as_deref() {
            Ok(State::Listening) => Ok(watch),
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

    /// A new connection on which `LISTEN` is in force.
    async fn connect(&self) -> Result<PgListener, StoreError> {
        let give_up = self.clock.now() + self.connect_timeout;
        let connect = async {
            // A pool of its own for each connection: the remains of a dead one don't stand in the next one's way.
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(self.connect_timeout)
                .max_lifetime(None)
                .idle_timeout(None)
                .connect_lazy_with(self.options.clone());
            let mut listener = PgListener::connect_with(&pool).await?;
            // Otherwise it reconnects before it tells of the gap, and again and again without a pause.
            listener.eager_reconnect(false);
            listener.listen(&self.channel).await?;
            Ok(listener)
        };
        let server = address(&self.options);
        tokio::select! {
            made = connect => made.map_err(|error| error::of_connect(error, &server)),
            () = self.clock.sleep_until(give_up) => Err(StoreError::refused(
                ErrorKind::Unreachable,
                format!("{server} gave no connection to listen on within {:?}", self.connect_timeout),
            )),
        }
    }

    async fn serve(&self, listener: &mut PgListener) -> End {
        let mut idle_before = false;
        let mut look_at = self.clock.now() + LOOK_EVERY;
        loop {
            tokio::select! {
                event = listener.try_recv() => match event {
                    Ok(Some(event)) if event.channel() == self.channel => self.hub.wake(event.payload()),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return End::Lost,
                },
                () = self.clock.sleep_until(look_at) => {
                    if idle_before && self.retire_if_idle() {
                        return End::Idle;
                    }
                    idle_before = self.hub.is_idle();
                    if !self.is_alive(listener).await {
                        return End::Lost;
                    }
                    look_at = self.clock.now() + LOOK_EVERY;
                }
            }
        }
    }

    async fn is_alive(&self, listener: &mut PgListener) -> bool {
        let give_up = self.clock.now() + self.connect_timeout;
        let ping = async {
            let connection = listener.acquire().await?;
            connection.ping().await
        };
        tokio::select! {
            answered = ping => answered.is_ok(),
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
        match wakes.connect().await {
            Ok(mut listener) => {
                let since: Moment = wakes.clock.now();
                tell.send_replace(State::Listening);
                if heard_before {
                    wakes.hub.wake_all();
                }
                heard_before = true;
                if matches!(wakes.serve(&mut listener).await, End::Idle) {
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
    /// Without the options: they hold the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakes")
            .field("channel", &self.channel)
            .field("idle", &self.hub.is_idle())
            .finish_non_exhaustive()
    }
}
