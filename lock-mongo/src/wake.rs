//! How waiters are woken: one change stream, opened for the first watch and closed when nobody has watched for a while.
//!
//! A release is seen in the stream once a majority has it; it sends nothing of its own. The driver resumes a stream that
//! was cut where it ended. If it can't, a new stream begins later than the old one ended, so everybody is woken once it is
//! open. An expiry changes nothing at the server: waiters sleep until it themselves.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lock_core::{ErrorKind, LockName, Moment, StoreError, WakeHub, Watch};
use mongodb::{bson::Document, change_stream::ChangeStream};
use tokio::{sync::watch, task::AbortHandle};

use crate::{error, operation::Runner};

/// How long the server keeps a question for events that there are none of.
///
/// Each is a command of its own, so the longer the quieter. A server that fell silent is noticed by the driver's heartbeat.
const ASK_AGAIN: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A stream that was open for so long counts as good, and the next pause is a short one again.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// The watchers of a provider and what wakes them.
pub(crate) struct Wakes {
    hub: WakeHub,
    runner: Arc<Runner>,
    listener: Mutex<Option<Listener>>,
    /// Whether the provider is gone.
    over: AtomicBool,
}

/// The task that reads the stream.
struct Listener {
    state: watch::Receiver<State>,
    task: AbortHandle,
}

#[derive(Clone, Debug)]
enum State {
    /// Not known yet.
    Connecting,
    /// The stream is open.
    Listening,
    /// It couldn't be had; another attempt follows.
    Down(StoreError),
}

/// Why a stream isn't read any more.
enum End {
    Lost,
    Idle,
}

impl Wakes {
    pub(crate) fn new(runner: &Arc<Runner>) -> Arc<Self> {
        Arc::new(Self {
            hub: WakeHub::default(),
            runner: Arc::clone(runner),
            listener: Mutex::default(),
            over: AtomicBool::new(false),
        })
    }

    /// Subscribes; returns once the stream is open.
    ///
    /// Cancel safe: the stream is opened all the same, and closed when nobody watches.
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
        let task = tokio::spawn(listen(Arc::clone(self), tell)).abort_handle();
        listener.insert(Listener { state, task }).state.clone()
    }

    /// Forgets the task if nobody watches any more, or nobody can be told; then it must end.
    fn retire_if_idle(&self) -> bool {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = self.hub.is_idle() || self.over.load(Ordering::Relaxed);
        if idle {
            *listener = None;
        }
        idle
    }

    /// A stream of what happens from now on.
    async fn open(&self) -> Result<ChangeStream<Document>, StoreError> {
        let give_up = self.runner.clock.now() + self.runner.timeout;
        let runner = Arc::clone(&self.runner);
        // In a task of its own: a stream that comes too late is closed there.
        let opening = tokio::spawn(async move {
            let pipeline = runner.pipelines.watch.to_vec();
            runner.collection.watch().pipeline(pipeline).max_await_time(ASK_AGAIN).await
        });
        tokio::select! {
            opened = opening => match opened {
                Ok(Ok(stream)) => Ok(stream.with_type::<Document>()),
                Ok(Err(error)) => Err(error::of_reading(error.into())),
                Err(error) => {
                    Err(StoreError::refused(ErrorKind::Other, "the runtime ended the operation").caused_by(error))
                }
            },
            () = self.runner.clock.sleep_until(give_up) => Err(StoreError::refused(
                ErrorKind::Timeout,
                format!("the server opened no change stream within {:?}", self.runner.timeout),
            )),
        }
    }

    /// Reads one answer after the other. A stream is left between two of them, never in the middle of one.
    async fn serve(&self, stream: &mut ChangeStream<Document>) -> End {
        let mut idle_before = false;
        while stream.is_alive() {
            if self.over.load(Ordering::Relaxed) {
                return End::Idle;
            }
            match stream.next_if_any().await {
                Ok(Some(event)) => self.heard(&event),
                Ok(None) => {
                    if idle_before && self.retire_if_idle() {
                        return End::Idle;
                    }
                    idle_before = self.hub.is_idle();
                }
                Err(error) => {
                    tracing::debug!(%error, "the change stream ended");
                    return End::Lost;
                }
            }
        }
        End::Lost
    }

    fn heard(&self, event: &Document) {
        match event.get_document("documentKey").and_then(|key| key.get_str("_id")) {
            Ok(name) => self.hub.wake(name),
            // The whole collection is gone; or a record that is none of ours.
            Err(_) => self.hub.wake_all(),
        }
    }
}

/// Listens as long as somebody watches and the provider lives.
async fn listen(wakes: Arc<Wakes>, tell: watch::Sender<State>) {
    let mut pause = FIRST_PAUSE;
    let mut heard_before = false;
    loop {
        match wakes.open().await {
            Ok(mut stream) => {
                let since: Moment = wakes.runner.clock.now();
                tell.send_replace(State::Listening);
                if heard_before {
                    wakes.hub.wake_all();
                }
                heard_before = true;
                if matches!(wakes.serve(&mut stream).await, End::Idle) {
                    return;
                }
                tell.send_replace(State::Connecting);
                if wakes.runner.clock.now().since(since) > GOOD_AFTER {
                    pause = FIRST_PAUSE;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no change stream to listen to");
                tell.send_replace(State::Down(error));
            }
        }
        if wakes.retire_if_idle() {
            return;
        }
        wakes.runner.clock.sleep_until(wakes.runner.clock.now() + pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Ends the task that listens when the last clone of the provider goes.
///
/// It isn't aborted: a driver's future must not be dropped, and a stream that was left in the middle of a command stays
/// open at the server. It ends with the answer under way, which takes as long as [`ASK_AGAIN`] where nothing happens.
#[derive(Debug)]
pub(crate) struct Shutdown(pub(crate) Arc<Wakes>);

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Wakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakes").field("idle", &self.hub.is_idle()).finish_non_exhaustive()
    }
}
