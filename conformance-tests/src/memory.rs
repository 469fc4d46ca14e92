//! The harness of the in-memory provider: the example for others.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use lock_core::{LockName, LockProvider, MemoryLocks};

use crate::{Counted, Failure, Faulty, Harness, Hook, Missing, Unreliable};

/// Locks in this process's memory.
#[derive(Debug, Default)]
pub struct MemoryHarness {
    store: MemoryLocks,
    commands: Arc<AtomicU64>,
}

#[async_trait]
impl Harness for MemoryHarness {
    async fn open() -> Result<Self, Missing> {
        Ok(Self::default())
    }

    fn store(&self) -> &'static str {
        "memory"
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(Counted::new(Arc::new(self.store.clone()), self.commands.clone())))
    }

    /// The store's clock is the process's; a client has none of its own that could be off.
    fn skewed_provider(&self, _micros: i64) -> Hook<'_, Arc<dyn LockProvider>> {
        Err(crate::Lacking::new("clients and store share one process and its one clock"))
    }

    fn delete_record<'a>(&'a self, name: &'a LockName) -> Hook<'a> {
        Ok(Box::pin(async move {
            self.store.delete_record(name);
            Ok(())
        }))
    }

    fn wipe(&self) -> Hook<'_> {
        Ok(Box::pin(async move {
            self.store.wipe();
            Ok(())
        }))
    }

    fn faulty(&self) -> Hook<'_, Faulty> {
        Ok(Box::pin(async move {
            let unreliable = Arc::new(Unreliable::new(self.provider().await?));
            Ok(Faulty { provider: unreliable.clone(), faults: unreliable })
        }))
    }

    fn commands(&self) -> Hook<'_, u64> {
        Ok(Box::pin(async move { Ok(self.commands.load(Ordering::SeqCst)) }))
    }
}
