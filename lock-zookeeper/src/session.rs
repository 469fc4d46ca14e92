//! Sessions: one for each class of ttls, kept alive and believed in as its heartbeats say.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lock_core::{Applied, Moment, StoreError};
use tokio::sync::{Notify, watch};
use zookeeper_client::{Client, CreateMode};

use crate::{
    belief::{Belief, apart},
    error::Trouble,
    ground::{Ground, Patience},
    opening::Opening,
    renegotiated::{Link, keep_proving},
};

/// A session nobody uses is closed after this long.
const LINGER: Duration = Duration::from_secs(30);

/// A session, and what its writes prove.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) timeout: Duration,
    pub(crate) ground: Arc<Ground>,
    pub(crate) link: Arc<Link>,
    belief: Mutex<Belief>,
    /// Told when there is more to believe, or the session has ended.
    news: watch::Sender<()>,
    /// Whether a request was left unanswered since the last that was answered.
    silent: AtomicBool,
    /// Nothing new is begun with it.
    is_retired: AtomicBool,
    /// Nothing can be promised by it any more, whatever the driver's state says.
    is_dead: AtomicBool,
    /// Told when heartbeats are wanted sooner than they would come.
    wanted: Arc<Notify>,
}

impl Session {
    async fn open(ground: &Arc<Ground>, timeout: Duration) -> Result<Arc<Self>, StoreError> {
        let (client, asked) = ground.open(timeout).await?;
        let granted = client.session_timeout();
        let session = Arc::new(Self {
            timeout: granted,
            belief: Mutex::new(Belief::new(granted, apart(granted, ground.tick), asked, ground.now())),
            link: Arc::new(Link::of(&client)),
            client,
            ground: Arc::clone(ground),
            news: watch::Sender::default(),
            silent: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            is_dead: AtomicBool::new(false),
            wanted: Arc::default(),
        });
        // Without the right to write it, a lease would begin that can't go on.
        let path = session.heartbeat_path();
        session.make_heartbeat(&path).await.map_err(|trouble| trouble.told(&path, Applied::No))?;
        Ok(session)
    }

    /// Whether it has ended for good, with everything it kept.
    pub(crate) fn is_over(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst) || self.client.state().is_terminated()
    }

    /// Takes in an acknowledged write that was sent at this moment.
    pub(crate) fn wrote(&self, sent: Moment) {
        let now = self.ground.now();
        self.silent.store(false, Ordering::SeqCst);
        self.belief().wrote(sent, now);
        self.has_news();
    }

    /// Lets those look again who wait for more to believe.
    pub(crate) fn has_news(&self) {
        self.news.send_replace(());
    }

    /// Lets nothing be promised by it any more.
    pub(crate) fn ends(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.has_news();
    }

    /// Takes in what went wrong with a request. If it had no answer in its time, then until there is one others are better
    /// off with a new session, which may find another server; the driver itself waits for longer.
    pub(crate) fn note(&self, trouble: &Trouble) {
        self.silent.fetch_or(trouble.is_silence(), Ordering::SeqCst);
        if trouble.is_driver_gone() {
            self.ends();
        }
    }

    /// Lets nothing new begin with it: it keeps something that can't be ended otherwise.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }

    /// Whether something can be asked over it.
    fn is_open(&self) -> bool {
        let is_barred = self.silent.load(Ordering::SeqCst) || self.is_retired.load(Ordering::SeqCst);
        !is_barred && !self.is_over() && !self.belief().left(self.ground.now()).is_zero()
    }

    /// Whether a lease can be begun with it.
    fn is_good(&self) -> bool {
        let now = self.ground.now();
        // One that isn't proved soon is no better than a new one.
        let is_late = self.link.unproved(now).is_some_and(|since| now.since(since) > self.timeout / 4);
        !is_late && self.is_open() && self.belief().left(now) >= least(self.timeout)
    }

    /// What is left of it for certain, counted from this moment.
    pub(crate) fn left(&self, from: Moment) -> Duration {
        // Before the look at the connection: what a reconnection brings must not be counted as proved.
        let left = self.belief().left(from);
        let is_certain = !self.is_over() && self.link.unproved(self.ground.now()).is_none();
        if is_certain { left } else { Duration::ZERO }
    }

    /// Waits until at least so much is left of it.
    pub(crate) async fn await_left(&self, least: Duration, patience: &Patience<'_>) -> Result<(), Trouble> {
        let mut news = self.news.subscribe();
        loop {
            if self.is_over() {
                return Err(Trouble::Said(zookeeper_client::Error::SessionExpired));
            }
            if self.left(self.ground.now()) >= least {
                return Ok(());
            }
            self.wanted.notify_one();
            patience.of(async { news.changed().await.map_err(|_| patience.silent()) }).await?;
        }
    }

    /// What is to be left for a renewal.
    pub(crate) fn fresh(&self) -> Duration {
        self.belief().fresh()
    }

    fn belief(&self) -> std::sync::MutexGuard<'_, Belief> {
        self.belief.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heartbeat_path(&self) -> String {
        format!("{}/{:016x}", self.ground.paths.sessions(), self.client.session_id().0)
    }

    /// One heartbeat: a write to a node of the session's own.
    async fn beat(&self, path: &str) -> Result<(), Trouble> {
        let patience = self.ground.patience(self.timeout);
        let sent = self.ground.now();
        match patience.of(self.client.set_data(path, b"", None)).await {
            Ok(_) => {
                self.wrote(sent);
                Ok(())
            }
            Err(trouble) if trouble.is_no_node() => self.make_heartbeat(path).await,
            Err(trouble) => {
                self.note(&trouble);
                Err(trouble)
            }
        }
    }

    /// Makes the node that heartbeats are written to.
    async fn make_heartbeat(&self, path: &str) -> Result<(), Trouble> {
        let patience = self.ground.patience(self.timeout);
        let options = self.ground.options(CreateMode::Ephemeral);
        loop {
            let sent = self.ground.now();
            match patience.of(self.client.create(path, b"", &options)).await {
                Ok(_) => {
                    self.wrote(sent);
                    return Ok(());
                }
                // Made by an attempt whose answer was lost.
                Err(Trouble::Said(zookeeper_client::Error::NodeExists)) => return Ok(()),
                Err(trouble) if trouble.is_no_node() => {
                    self.ground.make(&self.client, &self.ground.paths.sessions(), &patience).await?;
                }
                Err(trouble) if trouble.is_connection_lost() && !patience.is_over() => patience.pause().await,
                Err(trouble) => return Err(trouble),
            }
        }
    }
}

/// Each class's session. They close when this is dropped, and whatever else uses them.
pub(crate) struct Sessions {
    ground: Arc<Ground>,
    limits: Limits,
    classes: Arc<Classes>,
}

/// Which sessions the servers grant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) shortest: Duration,
    pub(crate) longest: Duration,
}

#[derive(Default)]
struct Classes(Mutex<HashMap<Duration, Class>>);

/// The session of a class of ttls.
type Class = Arc<Opening<Arc<Session>>>;

impl Sessions {
    pub(crate) fn new(ground: &Arc<Ground>, limits: Limits) -> Self {
        Self { ground: Arc::clone(ground), limits, classes: Arc::default() }
    }

    /// The session for leases of this ttl, with enough of it left for one.
    pub(crate) async fn of(&self, ttl: Duration, patience: &Patience<'_>) -> Result<Arc<Session>, StoreError> {
        let ttl = self.limits.class(ttl);
        // The old one, if it lives, lives on with what it keeps.
        let open = async {
            let session = Session::open(&self.ground, ttl).await?;
            let classes = Arc::downgrade(&self.classes);
            tokio::spawn(keep_proving(
                Arc::downgrade(&session),
                Arc::clone(&session.link),
                session.client.state_watcher(),
            ));
            tokio::spawn(keep_beating(Arc::downgrade(&session), Arc::clone(&self.ground), classes));
            Ok(session)
        };
        self.classes.of(ttl).get(&self.ground, patience, |session| session.is_good(), open).await
    }

    /// The session for this ttl, if it is open.
    pub(crate) fn open_one(&self, ttl: Duration) -> Option<Arc<Session>> {
        self.classes.of(self.limits.class(ttl)).good(|session| session.is_open())
    }

    /// Lets nothing new begin with a session, and closes it when what is kept by it has ended.
    pub(crate) fn retire(&self, session: &Arc<Session>) {
        session.retire();
        self.classes.forget(session);
    }
}

impl Limits {
    /// The session timeout that serves a ttl: each has a bounded share of longer ones, so that a process has few sessions,
    /// however its ttls are spread. It is at most an eighth longer, and a round number serves itself.
    fn class(self, ttl: Duration) -> Duration {
        let millis = u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let decade = 10_u64.pow(millis.max(1).ilog10());
        let step = match millis / decade {
            0 | 1 => decade / 10,
            2 | 3 => decade / 4,
            _ => decade / 2,
        };
        Duration::from_millis(millis.next_multiple_of(step.max(1))).min(self.longest.max(ttl))
    }
}

impl Classes {
    fn of(&self, ttl: Duration) -> Class {
        let mut classes = self.classes();
        Arc::clone(classes.entry(ttl).or_insert_with(|| Arc::new(Opening::new(None))))
    }

    fn classes(&self) -> std::sync::MutexGuard<'_, HashMap<Duration, Class>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of a session that nobody uses but this and the caller.
    fn close_unused(&self, session: &Arc<Session>) {
        self.drop_if(|open| Arc::ptr_eq(open, session) && Arc::strong_count(open) <= 2);
    }

    /// Lets go of a session, whoever uses it.
    fn forget(&self, session: &Arc<Session>) {
        self.drop_if(|open| Arc::ptr_eq(open, session));
    }

    fn drop_if(&self, is_so: impl Fn(&Arc<Session>) -> bool) {
        self.classes().retain(|_, class| {
            class.close_if(&is_so);
            // One that is being opened is somebody's.
            !class.is_closed() || Arc::strong_count(class) > 1
        });
    }
}

/// A lease isn't begun with less of a session than this.
pub(crate) fn least(timeout: Duration) -> Duration {
    timeout / 3
}

/// Writes heartbeats in their rhythm, or sooner where more is wanted, until the session ends or nobody has used it for a
/// while.
async fn keep_beating(session: Weak<Session>, ground: Arc<Ground>, classes: Weak<Classes>) {
    let (mut last, mut idle_since) = (ground.now(), None);
    loop {
        let Some(strong) = session.upgrade() else { return };
        let (due, wanted) = (last + strong.belief().rhythm(), Arc::clone(&strong.wanted));
        // Not held meanwhile: it closes when nobody else holds it.
        drop(strong);
        tokio::select! {
            () = ground.clock.sleep_until(due) => {}
            () = wanted.notified() => {
                let Some(strong) = session.upgrade() else { return };
                let useful = strong.belief().next_useful(ground.now()).min(due);
                drop(strong);
                ground.clock.sleep_until(useful).await;
            }
        }
        let Some(strong) = session.upgrade() else { return };
        let beaten = if strong.is_over() { Ok(()) } else { strong.beat(&strong.heartbeat_path()).await };
        if strong.is_over() {
            strong.has_news();
            if let Some(classes) = classes.upgrade() {
                classes.forget(&strong);
            }
            return;
        }
        if let Err(trouble) = beaten {
            tracing::debug!(session = %strong.client.session_id(), ?trouble, "a heartbeat failed");
            // The next attempt follows soon.
            let pause = (strong.timeout / 64).max(Duration::from_millis(5));
            drop(strong);
            ground.clock.sleep_until(ground.now() + pause).await;
            wanted.notify_one();
            continue;
        }
        last = ground.now();
        // The class's and this one.
        if Arc::strong_count(&strong) > 2 {
            idle_since = None;
        } else if last.since(*idle_since.get_or_insert(last)) >= LINGER {
            let Some(classes) = classes.upgrade() else { return };
            classes.close_unused(&strong);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttls_share_few_sessions_that_are_hardly_longer() {
        let limits = Limits { shortest: Duration::from_millis(200), longest: Duration::from_secs(60) };
        let class = |millis| limits.class(Duration::from_micros(millis)).as_micros();
        let mut classes = std::collections::BTreeSet::new();
        for micros in (200_000..=60_000_000).step_by(999) {
            let class = class(micros);
            assert!(class >= u128::from(micros) && class <= u128::from(micros) * 9 / 8 + 1, "{micros}: {class}");
            classes.insert(class);
        }
        assert!(classes.len() < 80, "{}", classes.len());
        for round in [200, 250, 1000, 1500, 2000, 5000, 10_000, 15_000, 30_000, 45_000, 60_000] {
            assert_eq!(class(round * 1000), u128::from(round * 1000));
        }
    }
}
