//! Faults between a client and its store.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use lock_core::{LockName, LockProvider};

use crate::failure::Failure;

/// A client and the faults that can be done to it.
pub struct Faulty {
    /// The client.
    pub provider: Arc<dyn LockProvider>,
    /// The faults.
    pub faults: Arc<dyn Faults>,
}

/// What can happen between a client and its store.
pub trait Faults: Send + Sync {
    /// Arms, at once: the next request about this lock is applied and its answer never arrives.
    ///
    /// The returned future ends when the store has answered and the answer is gone.
    fn lose_next_reply(&self, name: &LockName) -> BoxFuture<'static, Result<(), Failure>>;

    /// From now on nothing passes in either direction, and nothing breaks.
    fn stall(&self);

    /// What was held goes on its way.
    fn resume(&self);
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").field("provider", &self.provider).finish_non_exhaustive()
    }
}
