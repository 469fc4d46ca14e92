//! The provider: one operation of the contract after another.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use lock_core::{
    AcquireRequest, Acquired, Capabilities, Durability, Fairness, FenceReport, FencingToken, KeptBy, ListRequest,
    LockName, LockProvider, LockStatus, Operation, OwnerId, ReleaseRequest, Released, RenewRequest, Renewed,
    StoreError, TtlRange, Wake, WakeHub, Watch,
};

use crate::{
    config::{Builder, Settings, Source},
    fence::Remembered,
    ground::Ground,
    line::Line,
    people::Front,
    session::Sessions,
    sweep::Sweeper,
    table::Table,
};

/// This store's word in capabilities and errors.
pub(crate) const STORE: &str = "zookeeper";

/// Locks in ZooKeeper. Clones share their sessions.
#[derive(Clone)]
pub struct ZooKeeperLocks {
    pub(crate) inner: Arc<Inner>,
    /// Of what fenced writes come to.
    pub(crate) report: FenceReport,
}

pub(crate) struct Inner {
    pub(crate) ground: Arc<Ground>,
    pub(crate) line: Arc<Line>,
    pub(crate) front: Front,
    /// The entries of leases that other clients acquired.
    pub(crate) others: Remembered<(OwnerId, FencingToken), String>,
    capabilities: Capabilities,
}

impl ZooKeeperLocks {
    /// Connects by URL, with the defaults of [`Builder`]:
    /// `zookeeper://user:password@host1:2181,host2:2181/chroot?leasehold_path=/locks`.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build().await
    }

    /// Sets a provider up, from a URL.
    pub fn builder(source: impl Into<Source>) -> Builder {
        Builder::new(source.into())
    }

    pub(crate) async fn start(settings: Settings) -> Result<Self, StoreError> {
        let ground = Arc::new(Ground::new(settings));
        let (client, limits) = ground.learn().await?;
        let nodes = [ground.paths.locks(), ground.paths.ticks(), ground.paths.sessions()];
        ground.prepare(&client, &nodes).await?;
        let mut capabilities = Capabilities::new(STORE);
        // Every write is told when a majority has it in its log.
        capabilities.durability = Durability::Durable;
        capabilities.ttl =
            TtlRange { min: limits.shortest, max: limits.longest, granularity: Duration::from_millis(1) };
        capabilities.fairness = Fairness::Fifo;
        capabilities.wake = Wake::Event;
        capabilities.minimum_hold = KeptBy::Process;
        capabilities.ticks = true;
        capabilities.portable_leases = false;
        let line = Line {
            sessions: Sessions::new(&ground, limits),
            table: Arc::new(Table::default()),
            wakes: WakeHub::default(),
            sweeper: Sweeper::default(),
            ground: Arc::clone(&ground),
        };
        let front = Front::new(&ground, client);
        let others = Remembered::default();
        let inner = Inner { ground, line: Arc::new(line), front, others, capabilities };
        Ok(Self { inner: Arc::new(inner), report: FenceReport::new(STORE) })
    }
}

#[async_trait]
impl LockProvider for ZooKeeperLocks {
    fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        let asked = self.inner.ground.now();
        let acquired = async {
            request.check(self.capabilities())?;
            self.inner.line.acquire(request, asked).await
        };
        acquired.await.map_err(|error: StoreError| error.at(STORE, Operation::Acquire, Some(&request.name)))
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        let asked = self.inner.ground.now();
        let renewed = async {
            request.check(self.capabilities())?;
            self.inner.line.renew(request, asked).await
        };
        renewed.await.map_err(|error: StoreError| error.at(STORE, Operation::Renew, Some(&request.name)))
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        let released = async {
            request.check(self.capabilities())?;
            self.inner.line.release(&self.inner.front, request).await
        };
        released.await.map_err(|error: StoreError| error.at(STORE, Operation::Release, Some(&request.name)))
    }

    async fn watch(&self, _name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        Ok(self.inner.line.wakes.subscribe(&owner))
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let status = self.inner.front.inspect(name).await;
        status.map_err(|error| error.at(STORE, Operation::Inspect, Some(name)))
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.inner.front.list(request).await.map_err(|error| error.at(STORE, Operation::List, None))
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let done = self.inner.front.force_release(name).await;
        done.map_err(|error| error.at(STORE, Operation::ForceRelease, Some(name)))
    }
}

impl fmt::Debug for ZooKeeperLocks {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperLocks")
            .field("servers", &self.inner.ground.hosts())
            .field("path", &self.inner.ground.paths.base())
            .finish_non_exhaustive()
    }
}
