//! What a client works with.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use lock_core::{Applied, Clock, FenceError, Lease, Lock, LockProvider};

use crate::FencedList;

/// Where a process of a run finds everything.
#[derive(Clone, Debug)]
pub struct Site {
    /// Which kind of store, as the test program calls it.
    pub store: String,
    /// Where it is, as its [`Ground`](super::Ground) says.
    pub place: String,
    /// A folder that all processes of the run share.
    pub folder: PathBuf,
    /// The process's clock, which may be wrong.
    pub clock: Arc<dyn Clock>,
    /// Whether the store may lose what it acknowledged; then nothing is to be written there under a fence.
    pub loses_data: bool,
}

/// A store of locks and the resources that are written under them, by connections of this process's own.
#[allow(missing_debug_implementations, reason = "lists and counters have nothing to show")]
pub struct Scene {
    /// The locks.
    pub locks: Arc<dyn LockProvider>,
    /// What is appended to under a fence, by name; one lock each.
    pub sets: Vec<(&'static str, Arc<dyn FencedList>)>,
    /// What is appended to in transactions of the store.
    pub transacted: Option<Arc<dyn TransactedSet>>,
    /// What is counted up under a fence, in some place that survives all faults of the store.
    pub counter: Arc<dyn FencedCounter>,
}

/// A set that is written to in transactions under a lock of the same store
/// ([`Lock::run_in_transaction`](lock_core::Lock::run_in_transaction)).
///
/// Its futures stay in the thread that polls them: the work of a transaction is a closure that borrows.
#[async_trait(?Send)]
pub trait TransactedSet: Send + Sync {
    /// Acquires the lock, appends the entry that `begun` makes of the lease, commits, and releases.
    ///
    /// # Errors
    /// Why it may not be there.
    async fn append(&self, lock: Lock, begun: &Begun<'_>) -> Result<(), NotCommitted>;

    /// All entries, in their order.
    ///
    /// # Errors
    /// The store's.
    async fn entries(&self) -> Result<Vec<String>, FenceError>;
}

/// Told of the lease as the work begins; makes the entry.
pub type Begun<'a> = dyn Fn(&Lease) -> String + Send + Sync + 'a;

/// Why a transaction was not committed, or may not have been.
#[derive(Clone, Debug)]
pub struct NotCommitted {
    /// Whether it may be there.
    pub applied: Applied,
    /// Whether it was the lock that was not to be had in time.
    pub busy: bool,
    /// Whether it was refused as not the holder's any more.
    pub refused: bool,
    /// The error's text.
    pub text: String,
}

/// A number that is read and written under a fence.
#[async_trait]
pub trait FencedCounter: Send + Sync {
    /// Reads it, and lets no older grant write from here on.
    ///
    /// # Errors
    /// A refusal, or the store's.
    async fn read(&self, lease: &Lease) -> Result<u64, FenceError>;

    /// Writes it.
    ///
    /// # Errors
    /// A refusal, after which nothing was written; or the store's.
    async fn write(&self, lease: &Lease, value: u64) -> Result<(), FenceError>;

    /// What it is in the end.
    ///
    /// # Errors
    /// The store's.
    async fn value(&self) -> Result<u64, FenceError>;
}
