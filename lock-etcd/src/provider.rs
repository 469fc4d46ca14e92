//! The provider: requests become transactions, and answers of them.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;
use lock_core::{
    AcquireRequest, Acquired, Capabilities, Durability, ErrorKind, Fairness, FenceReport, KeptBy, ListRequest,
    LockName, LockProvider, LockStatus, Operation, OwnerId, ReleaseRequest, Released, RenewRequest, Renewed,
    StoreError, Wake, Watch, in_waves,
};
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    book::Book,
    class::Classes,
    config::{Builder, Settings},
    contact,
    link::Link,
    source::Source,
    store::Store,
    tend,
    wake::Wakes,
};

/// This store's word in capabilities and errors.
pub(crate) const STORE: &str = "etcd";

/// Locks in etcd. Clones share their connection and their leases at the store.
#[derive(Clone)]
pub struct EtcdLocks {
    inner: Arc<Inner>,
    /// Of what fenced writes come to.
    pub(crate) report: FenceReport,
}

struct Inner {
    store: Arc<Store>,
    capabilities: Capabilities,
    tending: [AbortHandle; 2],
    runtime: Handle,
}

impl EtcdLocks {
    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Connects by URL, with the defaults of [`Builder`]: `etcd://user:password@host1:2379,host2:2379/` or, over TLS,
    /// `etcds://…`.
    ///
    /// # Errors
    /// As [`Builder::build`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build().await
    }

    /// Sets a provider up, from a URL or from the application's own client.
    ///
    /// The application's client shares its connection with it: see the [crate] for what its options should be.
    pub fn builder(source: impl Into<Source>) -> Builder {
        Builder::new(source.into())
    }

    pub(crate) async fn start(settings: Settings) -> Result<Self, StoreError> {
        let Settings { way, keys, clock, operation_timeout, connect_timeout, group } = settings;
        let link = Arc::new(Link::new(way, clock, operation_timeout, connect_timeout));
        let (classes, wakes) = (Classes::new(&link), Wakes::new(&link));
        let store = Arc::new(Store { link, keys, classes, book: Book::default(), wakes });
        contact::first(&store.link, &store.keys, 'l').await?;

        let mut capabilities = Capabilities::new(STORE);
        capabilities.durability = Durability::Durable;
        capabilities.ttl.min = Duration::from_secs(1);
        capabilities.ttl.granularity = Duration::from_millis(1);
        capabilities.fairness = Fairness::Fifo;
        capabilities.wake = Wake::Event;
        capabilities.minimum_hold = KeptBy::Store;
        capabilities.ticks = true;
        capabilities.grouping = NonZeroUsize::new(group);
        let tending = [
            tokio::spawn(tend::delete_overdue(Arc::clone(&store))).abort_handle(),
            tokio::spawn(tend::keep_waiting(Arc::clone(&store))).abort_handle(),
        ];
        let inner = Arc::new(Inner { store, capabilities, tending, runtime: Handle::current() });
        Ok(Self { inner, report: FenceReport::new(STORE) })
    }
}

#[async_trait]
impl LockProvider for EtcdLocks {
    fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        only(self.acquire_many(std::slice::from_ref(request)).await)
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        only(self.renew_many(std::slice::from_ref(request)).await)
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        only(self.release_many(std::slice::from_ref(request)).await)
    }

    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        Ok(self.inner.store.wakes.watch(&(name.clone(), owner)))
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        self.inner.store.inspect(name).await.map_err(|error| error.at(STORE, Operation::Inspect, Some(name)))
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.inner.store.list(request).await.map_err(|error| error.at(STORE, Operation::List, None))
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let done = self.inner.store.force_release(name).await;
        done.map_err(|error| error.at(STORE, Operation::ForceRelease, Some(name)))
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        in_waves(requests, self.capabilities(), |wave| self.inner.store.acquire_wave(wave)).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        in_waves(requests, self.capabilities(), |wave| self.inner.store.renew_wave(wave)).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        in_waves(requests, self.capabilities(), |wave| self.inner.store.release_wave(wave)).await
    }
}

impl Drop for Inner {
    /// Ends the tasks, and the leases if nothing lives off them; otherwise the store ends them after their ttl.
    fn drop(&mut self) {
        self.tending.iter().for_each(AbortHandle::abort);
        self.store.wakes.end();
        let leases = if self.store.book.is_empty() { self.store.classes.leases() } else { Vec::new() };
        if leases.is_empty() {
            return;
        }
        let store = Arc::clone(&self.store);
        self.runtime.spawn(async move {
            for lease in leases {
                let revoke = |client: etcd_client::Client| async move { client.lease_client().revoke(lease).await };
                if let Err(error) = store.link.read(revoke).await {
                    tracing::debug!(%error, "a lease could not be ended; it ends by itself");
                    return;
                }
            }
        });
    }
}

impl fmt::Debug for EtcdLocks {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdLocks")
            .field("servers", &self.inner.store.link.shown())
            .field("prefix", &self.inner.store.keys.prefix())
            .finish_non_exhaustive()
    }
}

fn only<A>(answers: Vec<Result<A, StoreError>>) -> Result<A, StoreError> {
    answers.into_iter().next().unwrap_or_else(|| Err(StoreError::unknown(ErrorKind::Corrupt, "there was no answer")))
}
