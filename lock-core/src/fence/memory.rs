//! The register of one process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    error::FenceError,
    judge::{Pass, admit},
    register::FenceRegister,
    report::FenceReport,
    resource::Resource,
    value::{Fence, ToFence},
};
use crate::client::Observer;

/// Fences of what lives in this process's memory. Clones share one register.
///
/// ```
/// use lock_core::{Fence, MemoryFences, Pass, Resource};
///
/// let (fences, accounts) = (MemoryFences::new(), Resource::new("accounts")?);
/// let (old, new): (Fence, Fence) = ("5@accounts".parse()?, "6@accounts".parse()?);
/// let mut balance = 0;
/// fences.write(&accounts, &new, Pass::Again, || balance = 100)?;
/// assert!(fences.write(&accounts, &old, Pass::Again, || balance = 7).is_err());
/// assert_eq!(balance, 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryFences {
    seen: Arc<Mutex<HashMap<Resource, Fence>>>,
    report: FenceReport,
}

impl MemoryFences {
    /// A register that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { seen: Arc::default(), report: FenceReport::new("memory") }
    }

    /// Tells refusals to this observer, for metrics. Clones that were made before don't.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// Does the write if the fence passes; no other write of this register comes between. Keep it short: it holds all of
    /// them up.
    ///
    /// The fence was seen even if the write panics.
    ///
    /// # Errors
    /// But for [`FenceError::Store`] any; then the write was not called.
    pub fn write<T>(
        &self,
        resource: &Resource,
        fence: &impl ToFence,
        pass: Pass,
        write: impl FnOnce() -> T,
    ) -> Result<T, FenceError> {
        let fence = &self.report.told(None, fence.to_fence())?;
        // Told when the register is free again: whoever counts refusals holds nobody up.
        let outcome = self.judged(resource, fence, pass, write);
        self.report.told(Some(fence.lock()), outcome)
    }

    fn judged<T>(
        &self,
        resource: &Resource,
        fence: &Fence,
        pass: Pass,
        write: impl FnOnce() -> T,
    ) -> Result<T, FenceError> {
        let mut seen = self.seen();
        if admit(seen.get(resource), resource, fence, pass)? {
            seen.insert(resource.clone(), fence.clone());
        }
        Ok(write())
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Resource, Fence>> {
        // Each change is one insertion or removal, so a panic leaves nothing half done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryFences {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl FenceRegister for MemoryFences {
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        self.write(resource, fence, pass, || ())
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        Ok(self.seen().get(resource).cloned())
    }

    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        Ok(self.seen().remove(resource).is_some())
    }
}
