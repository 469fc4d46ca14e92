//! What is written to.

use async_trait::async_trait;
use lock_core::{FenceError, Lease};

/// A list in some resource, appended to under a lock by one process after the other.
#[async_trait]
pub trait FencedList: Send + Sync {
    /// Appends an entry in one step with the check; once it returns `Ok`, the entry is there.
    ///
    /// # Errors
    /// A refusal, after which the entry isn't there; or the store's.
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError>;

    /// Appends an entry with no check at all: the negative control.
    ///
    /// # Errors
    /// The store's.
    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError>;

    /// All entries, in their order.
    ///
    /// # Errors
    /// The store's.
    async fn entries(&self) -> Result<Vec<String>, FenceError>;
}
