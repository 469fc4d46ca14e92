//! Listening to a store: one subscription for all watchers of a client, there while somebody watches.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::task::AbortHandle;

use crate::{
    clock::Clock,
    error::{ErrorKind, StoreError},
    name::LockName,
    told::Told,
    wake::{WakeHub, Watch},
};

/// What a store offers to be listened to: one connection on which it tells which locks were released.
#[async_trait]
pub trait EventSource: Send + Sync + 'static {
    /// A subscription in force, with its connection.
    type Subscription: Send;

    /// Whether [`next`](Self::next) and [`subscribe`](Self::subscribe) may be dropped half-way when the provider goes.
    /// Otherwise the last `next` ends by itself, a while after the provider.
    const MAY_BE_DROPPED: bool = true;

    /// Subscribes. What happens once it has returned is heard. Ends by itself within a bounded time.
    async fn subscribe(&self) -> Result<Self::Subscription, StoreError>;

    /// Waits for the next event. [`Heard::Nothing`] now and then while there is none, after a look at whether the
    /// connection is still there.
    async fn next(&self, subscription: &mut Self::Subscription) -> Heard;
}

/// What [`EventSource::next`] heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The lock of this name may have become free. What isn't a name wakes nobody.
    Lock(String),
    /// Any lock may have.
    Any,
    /// Nothing, for a while.
    Nothing,
    /// The subscription was cut: what happens now is missed.
    Cut,
}

/// Listens for the watchers of a [`WakeHub`], with one subscription: made for the first watch, made again when it was cut
/// (which then wakes everybody), and given up when nobody has watched for a while. Ends when it is dropped.
pub struct Listener<S: EventSource>(Arc<Shared<S>>);

struct Shared<S> {
    hub: WakeHub,
    source: S,
    clock: Arc<dyn Clock>,
    task: Mutex<Option<Task>>,
    /// Whether the listener is gone.
    over: AtomicBool,
}

/// The task that listens.
struct Task {
    state: Arc<Told<State>>,
    handle: AbortHandle,
}

#[derive(Clone, Debug)]
enum State {
    /// Not known yet.
    Subscribing,
    /// The subscription is in force.
    Listening,
    /// It couldn't be had; another attempt follows.
    Down(StoreError),
    /// The task was ended before it knew.
    CutOff,
}

/// Where the task tells how it stands.
struct Tell(Arc<Told<State>>);

impl Tell {
    fn tell(&self, state: State) {
        self.0.change(|before| *before = state);
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        // Nobody is left to find out: whoever waits for it is told.
        self.0.change(|state| {
            if matches!(state, State::Subscribing) {
                *state = State::CutOff;
            }
        });
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A subscription that was in force for so long counts as good, and the next pause is a short one again.
const GOOD_AFTER: Duration = Duration::from_secs(10);

impl<S: EventSource> Listener<S> {
    /// Will listen to this source for the watchers of this hub, which other listeners may share.
    #[must_use]
    pub fn new(hub: WakeHub, source: S, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared { hub, source, clock, task: Mutex::default(), over: AtomicBool::new(false) }))
    }

    /// Subscribes; once it returns, no release that the source tells of is missed without a wake-up.
    ///
    /// Cancel safe: the subscription is made all the same, and given up when nobody watches.
    ///
    /// # Errors
    /// The source's, of the last attempt.
    pub async fn watch(&self, name: &LockName) -> Result<Watch, StoreError> {
        // Before the task is looked for: it ends only if, under the same mutex, it finds nobody watching.
        let watch = self.0.hub.subscribe(name);
        self.listen().await?;
        Ok(watch)
    }

    /// Returns once what the source tells of wakes the hub's watchers. Somebody must watch, or it ends again.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub async fn listen(&self) -> Result<(), StoreError> {
        let settled = |state: &State| match state {
            State::Subscribing => None,
            State::Listening => Some(Ok(())),
            State::Down(error) => Some(Err(error.clone())),
            State::CutOff => {
                Some(Err(StoreError::refused(ErrorKind::Other, "the task that listens was ended by the runtime")))
            }
        };
        self.state().wait_for(settled).await
    }

    /// What is listened to.
    pub fn source(&self) -> &S {
        &self.0.source
    }

    fn state(&self) -> Arc<Told<State>> {
        let mut task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner);
        // A task whose runtime has ended is as good as none.
        if let Some(running) = task.as_ref().filter(|running| !running.handle.is_finished()) {
            return running.state.clone();
        }
        let state = Arc::new(Told::new(State::Subscribing));
        let handle = tokio::spawn(self.0.clone().work(Tell(state.clone()))).abort_handle();
        task.insert(Task { state, handle }).state.clone()
    }
}

impl<S: EventSource> Shared<S> {
    /// Listens as long as somebody watches.
    async fn work(self: Arc<Self>, tell: Tell) {
        let mut pause = FIRST_PAUSE;
        let mut heard_before = false;
        loop {
            match self.source.subscribe().await {
                Ok(mut subscription) => {
                    let since = self.clock.now();
                    tell.tell(State::Listening);
                    if heard_before {
                        self.hub.wake_all();
                    }
                    heard_before = true;
                    if self.hear(&mut subscription).await == End::Idle {
                        return;
                    }
                    tracing::debug!("a subscription was cut");
                    tell.tell(State::Subscribing);
                    if self.clock.now().since(since) > GOOD_AFTER {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no subscription");
                    tell.tell(State::Down(error));
                }
            }
            if self.retire_if_idle() {
                return;
            }
            self.clock.sleep_until(self.clock.now() + pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn hear(&self, subscription: &mut S::Subscription) -> End {
        let mut idle_before = false;
        while !self.over.load(Ordering::Relaxed) {
            match self.source.next(subscription).await {
                Heard::Lock(name) => self.hub.wake(&name),
                Heard::Any => self.hub.wake_all(),
                // Twice in a row: who comes back soon finds the subscription still there.
                Heard::Nothing if idle_before && self.retire_if_idle() => return End::Idle,
                Heard::Nothing => idle_before = self.hub.is_idle(),
                Heard::Cut => return End::Cut,
            }
        }
        End::Idle
    }

    /// Forgets the task if nobody watches, or nobody can be told; then it must end.
    fn retire_if_idle(&self) -> bool {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = self.hub.is_idle() || self.over.load(Ordering::Relaxed);
        if idle {
            *task = None;
        }
        idle
    }
}

/// Why a subscription isn't listened to any more.
#[derive(PartialEq, Eq)]
enum End {
    Cut,
    Idle,
}

impl<S: EventSource> Drop for Listener<S> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        let task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task.filter(|_| S::MAY_BE_DROPPED) {
            task.handle.abort();
        }
    }
}

impl<S: EventSource> fmt::Debug for Listener<S> {
    /// Without the source, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("idle", &self.0.hub.is_idle()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TestClock;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    /// Tells what the test sends; each subscription ends with the sender that it was made with.
    #[derive(Default)]
    struct Told {
        subscriptions: AtomicUsize,
        down: AtomicBool,
        mouth: Mutex<Option<UnboundedSender<Heard>>>,
    }

    #[async_trait]
    impl EventSource for Arc<Told> {
        type Subscription = UnboundedReceiver<Heard>;

        async fn subscribe(&self) -> Result<Self::Subscription, StoreError> {
            if self.down.load(Ordering::SeqCst) {
                return Err(StoreError::refused(ErrorKind::Unreachable, "down"));
            }
            self.subscriptions.fetch_add(1, Ordering::SeqCst);
            let (mouth, ear) = unbounded_channel();
            *self.mouth.lock().unwrap() = Some(mouth);
            Ok(ear)
        }

        async fn next(&self, ear: &mut Self::Subscription) -> Heard {
            ear.recv().await.unwrap_or(Heard::Cut)
        }
    }

    impl Told {
        fn tell(&self, heard: Heard) {
            self.mouth.lock().unwrap().as_ref().unwrap().send(heard).unwrap();
        }

        /// Returns once the one who listens has heard it all and left.
        async fn until_left(&self) {
            let mouth = self.mouth.lock().unwrap().clone().unwrap();
            mouth.closed().await;
        }
    }

    fn listener() -> (Arc<Told>, Listener<Arc<Told>>, LockName) {
        let told = Arc::<Told>::default();
        let listener = Listener::new(WakeHub::default(), told.clone(), Arc::new(TestClock::new()));
        (told, listener, LockName::new("x").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn several_watches_share_a_subscription_and_hear_their_own() {
        let (told, listener, name) = listener();
        let (mut one, mut two) = (listener.watch(&name).await.unwrap(), listener.watch(&name).await.unwrap());
        told.tell(Heard::Lock("x".to_owned()));
        one.woken().await;
        two.woken().await;
        told.tell(Heard::Any);
        one.woken().await;
        assert_eq!(told.subscriptions.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_missed_while_it_was_cut_wakes_everybody() {
        let (told, listener, name) = listener();
        let mut watch = listener.watch(&name).await.unwrap();
        told.down.store(true, Ordering::SeqCst);
        told.tell(Heard::Cut);
        told.until_left().await;
        assert!(matches!(listener.watch(&name).await, Err(error) if error.kind() == ErrorKind::Unreachable));
        told.down.store(false, Ordering::SeqCst);
        watch.woken().await;
        assert_eq!(told.subscriptions.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscription_that_nobody_needs_is_given_up_and_made_again() {
        let (told, listener, name) = listener();
        drop(listener.watch(&name).await.unwrap());
        told.tell(Heard::Nothing);
        told.tell(Heard::Nothing);
        told.until_left().await;
        let mut watch = listener.watch(&name).await.unwrap();
        assert_eq!(told.subscriptions.load(Ordering::SeqCst), 2);
        told.tell(Heard::Nothing);
        told.tell(Heard::Nothing);
        told.tell(Heard::Lock("x".to_owned()));
        watch.woken().await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_its_provider() {
        let (told, listener, name) = listener();
        let watch = listener.watch(&name).await.unwrap();
        drop(listener);
        told.until_left().await;
        drop(watch);
    }
}
