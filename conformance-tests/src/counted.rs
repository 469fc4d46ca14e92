//! A count of commands, for stores that have no server to count them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use lock_core::{
    AcquireRequest, Acquired, Capabilities, ListRequest, LockName, LockProvider, LockStatus, OwnerId, ReleaseRequest,
    Released, RenewRequest, Renewed, StoreError, Watch,
};

/// Counts the operations that reach a provider; several together are one.
#[derive(Clone, Debug)]
pub struct Counted {
    store: Arc<dyn LockProvider>,
    count: Arc<AtomicU64>,
}

impl Counted {
    /// Counts what reaches `store` on top of `count`, which other clients of the same store may share.
    #[must_use]
    pub fn new(store: Arc<dyn LockProvider>, count: Arc<AtomicU64>) -> Self {
        Self { store, count }
    }

    fn store(&self) -> &dyn LockProvider {
        self.count.fetch_add(1, Ordering::SeqCst);
        &*self.store
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl LockProvider for Counted {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        self.store().acquire(request).await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        self.store().renew(request).await
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        self.store().release(request).await
    }

    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        self.store().watch(name, owner).await
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        self.store().inspect(name).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.store().list(request).await
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        self.store().force_release(name).await
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        self.store().acquire_many(requests).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        self.store().renew_many(requests).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        self.store().release_many(requests).await
    }
}
