//! Faults for stores that have no network to break.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::{BoxFuture, join_all};
use lock_core::{
    AcquireRequest, Acquired, Capabilities, ErrorKind, ListRequest, LockName, LockProvider, LockStatus, OwnerId,
    ReleaseRequest, Released, RenewRequest, Renewed, StoreError, Watch,
};
use tokio::sync::{oneshot, watch};

use crate::{asker::sleep, failure::Failure, faults::Faults};

/// A provider between whose client and whose store things go wrong, by script. Clones share the script.
///
/// It behaves as a network does: a request that was sent arrives, even if its sender gave up or was dropped meanwhile.
/// Wake-ups pass untouched.
#[derive(Clone)]
pub struct Unreliable {
    store: Arc<dyn LockProvider>,
    script: Arc<Script>,
}

struct Script {
    stalled: watch::Sender<bool>,
    fates: Mutex<HashMap<LockName, Fate>>,
    patience: Duration,
}

/// What will happen to the next request about a lock.
enum Fate {
    /// It arrives and is applied, its reply is lost.
    ReplyLost(oneshot::Sender<()>),
    /// It never arrives, and the client knows.
    NeverSent,
}

impl Unreliable {
    /// How long a request waits for its reply by default before it is given up as unknown.
    pub const PATIENCE: Duration = Duration::from_secs(2);

    /// A provider in front of this one, with nothing wrong yet.
    #[must_use]
    pub fn new(store: Arc<dyn LockProvider>) -> Self {
        let script = Script { stalled: watch::Sender::new(false), fates: Mutex::default(), patience: Self::PATIENCE };
        Self { store, script: Arc::new(script) }
    }

    /// The next request about this lock fails before it leaves: definitely not applied.
    pub fn fail_next(&self, name: &LockName) {
        self.fates().insert(name.clone(), Fate::NeverSent);
    }

    fn fates(&self) -> std::sync::MutexGuard<'_, HashMap<LockName, Fate>> {
        self.script.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request on its way, and waits for its reply as long as the patience lasts.
    async fn send<T, F>(&self, name: Option<&LockName>, request: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn LockProvider>) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    {
        let lost = match name.and_then(|name| self.fates().remove(name)) {
            Some(Fate::NeverSent) => return Err(StoreError::refused(ErrorKind::Unreachable, "cut off, by script")),
            Some(Fate::ReplyLost(gone)) => Some(gone),
            None => None,
        };
        let (store, mut stalled) = (self.store.clone(), self.script.stalled.subscribe());
        let (reply, replied) = oneshot::channel();
        // In a task of its own: what was sent arrives, whatever becomes of the sender.
        tokio::spawn(async move {
            let _ = stalled.wait_for(|stalled| !stalled).await;
            let answer = request(store).await;
            if let Some(gone) = lost {
                let _ = gone.send(());
                return;
            }
            let _ = stalled.wait_for(|stalled| !stalled).await;
            let _ = reply.send(answer);
        });
        tokio::select! {
            answer = replied => answer.unwrap_or_else(|_| Err(StoreError::unknown(ErrorKind::Unreachable, "the connection broke, by script"))),
            () = sleep(self.script.patience) => Err(StoreError::unknown(ErrorKind::Timeout, "no answer came, by script")),
        }
    }
}

impl Faults for Unreliable {
    fn lose_next_reply(&self, name: &LockName) -> BoxFuture<'static, Result<(), Failure>> {
        let (gone, lost) = oneshot::channel();
        self.fates().insert(name.clone(), Fate::ReplyLost(gone));
        Box::pin(async move { lost.await.map_err(|_| Failure::new("the request never arrived")) })
    }

    fn stall(&self) {
        self.script.stalled.send_replace(true);
    }

    fn resume(&self) {
        self.script.stalled.send_replace(false);
    }
}

impl fmt::Debug for Unreliable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unreliable").field(&self.store).finish()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl LockProvider for Unreliable {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        let wish = request.clone();
        self.send(Some(&request.name), |store| Box::pin(async move { store.acquire(&wish).await })).await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        let wish = request.clone();
        self.send(Some(&request.name), |store| Box::pin(async move { store.renew(&wish).await })).await
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        let wish = request.clone();
        self.send(Some(&request.name), |store| Box::pin(async move { store.release(&wish).await })).await
    }

    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        self.store.watch(name, owner).await
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let name = name.clone();
        self.send(None, |store| Box::pin(async move { store.inspect(&name).await })).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        let request = request.clone();
        self.send(None, |store| Box::pin(async move { store.list(&request).await })).await
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let wish = name.clone();
        self.send(Some(name), |store| Box::pin(async move { store.force_release(&wish).await })).await
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        join_all(requests.iter().map(|request| self.acquire(request))).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        join_all(requests.iter().map(|request| self.renew(request))).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        join_all(requests.iter().map(|request| self.release(request))).await
    }
}
