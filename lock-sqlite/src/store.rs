//! The provider's state: the file as it is opened now, and the one way to change it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lock_core::{Capabilities, Durability, ErrorKind, KeptBy, LockName, Moment, StoreError, TtlRange, Wake, WakeHub};
use tokio::task::JoinHandle;

use crate::{
    boot,
    config::SqliteLocksBuilder,
    database::{DISK_PATIENCE, Database, Timekeeping},
    ledger::Ledger,
    place,
    provider::STORE,
    wake,
};

/// How many operations go into one transaction: more gain nothing over their shared fsync.
const GROUP: std::num::NonZeroUsize = std::num::NonZeroUsize::new(256).unwrap();

/// How often, at most, idle records are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) path: PathBuf,
    pub(crate) time: Timekeeping,
    pub(crate) capabilities: Capabilities,
    pub(crate) wakes: WakeHub,
    /// The task that hears of other processes' releases, while somebody waits.
    pub(crate) listener: Mutex<Option<JoinHandle<()>>>,
    busy_timeout: Duration,
    retention: Duration,
    database: Mutex<Arc<Database>>,
    reopening: tokio::sync::Mutex<()>,
    swept: Mutex<Option<Moment>>,
}

impl Store {
    pub(crate) async fn open(config: SqliteLocksBuilder) -> Result<Self, StoreError> {
        let boot_id = boot::boot_id()?.into();
        let database = Database::open(&config.path, config.busy_timeout).await?;
        let mut capabilities = Capabilities::new(STORE);
        capabilities.durability = Durability::Durable;
        capabilities.ttl = TtlRange {
            min: Duration::from_millis(50),
            max: Duration::from_secs(24 * 3600),
            granularity: Duration::from_millis(1),
        };
        capabilities.wake = if wake::events_can_be_had() { Wake::Event } else { Wake::Poll(wake::POLL_EVERY) };
        capabilities.minimum_hold = KeptBy::Store;
        capabilities.ticks = true;
        capabilities.grouping = Some(GROUP);
        Ok(Self {
            // The kernel names the file by its own directory, whatever links led to it.
            path: std::fs::canonicalize(&config.path).unwrap_or(config.path),
            time: Timekeeping { clock: config.clock, boot_id },
            capabilities,
            wakes: WakeHub::default(),
            listener: Mutex::new(None),
            busy_timeout: config.busy_timeout,
            retention: config.retention,
            database: Mutex::new(Arc::new(database)),
            reopening: tokio::sync::Mutex::new(()),
            swept: Mutex::new(None),
        })
    }

    /// The file, opened anew if it was deleted or its connections broke.
    pub(crate) async fn database(&self) -> Result<Arc<Database>, StoreError> {
        let current = || Arc::clone(&self.database.lock().unwrap_or_else(PoisonError::into_inner));
        let database = current();
        if !database.is_stale() {
            return Ok(database);
        }
        let busy = |_| StoreError::refused(ErrorKind::Contention, "the file is being opened anew; try again");
        let _one_at_a_time = tokio::time::timeout(self.busy_timeout, self.reopening.lock()).await.map_err(busy)?;
        let database = current();
        if !database.is_stale() {
            return Ok(database);
        }
        tracing::warn!(path = %self.path.display(), "the file of locks was replaced or broke; opening it anew");
        place::check(&self.path, false)?;
        let database = Arc::new(Database::open(&self.path, self.busy_timeout).await?);
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&database);
        // Whatever was waited for was in the other file.
        self.wakes.wake_all();
        Ok(database)
    }

    /// Reads some locks' records, as they are now, without a write lock.
    pub(crate) async fn read(&self, names: &[LockName]) -> Result<Ledger, StoreError> {
        self.database().await?.read(names, &self.time).await
    }

    /// Judges requests about some locks in one transaction. Dropped before its turn, nothing happens; later, the
    /// transaction runs to its end all the same, and its outcome is unknown to the caller.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        names: Vec<LockName>,
        judge: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.database().await?;
        let mut writer = database.writer().await?;
        let store = Arc::clone(self);
        let transaction = tokio::spawn(async move {
            let sweep = |now, wall| store.sweep_before(now, wall);
            let judge = |ledger: &mut Ledger| (judge(ledger), std::mem::take(&mut ledger.freed));
            let (answer, freed) = database.change(&mut writer, &names, &store.time, sweep, judge).await?;
            drop(writer);
            // After the commit, so that whoever is woken sees it.
            if !freed.is_empty() {
                freed.iter().for_each(|name| store.wakes.wake(name.as_str()));
                wake::announce(&store.path);
            }
            Ok(answer)
        });
        // The driver ends by itself within the busy timeout; only a disk that hangs lets this run out.
        match tokio::time::timeout(self.busy_timeout + DISK_PATIENCE, transaction).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(ended)) => {
                Err(StoreError::unknown(ErrorKind::Other, "the transaction's task was ended").caused_by(ended))
            }
            Err(_) => Err(StoreError::unknown(ErrorKind::Timeout, "the disk did not answer in time; try again")),
        }
    }

    /// Up to which wall time idle records are to be swept now, if it is time to.
    fn sweep_before(&self, now: Moment, wall_micros: u64) -> Option<u64> {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_some_and(|last| now.since(last) < SWEEP_EVERY) {
            return None;
        }
        *swept = Some(now);
        let retention = u64::try_from(self.retention.as_micros()).unwrap_or(u64::MAX);
        Some(wall_micros.saturating_sub(retention))
    }
}
