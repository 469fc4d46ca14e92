//! Where the highest token of each resource is kept.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{error::FenceError, judge::Pass, resource::Resource, value::Fence};

/// The highest fence that each resource has seen, wherever that is kept.
///
/// The check bites only in one atomic step with the write, and how that is done is each store's own: a transaction, a
/// script, a conditional write. Those are methods of the registers themselves. This trait is what is common to them: a step
/// of its own that raises, and a look.
#[async_trait]
pub trait FenceRegister: fmt::Debug + Send + Sync + 'static {
    /// Raises what the resource has seen to this fence, if it passes: from then on every lower token is refused.
    ///
    /// For a new holder, before its first *read*: what it reads then can't be changed behind its back by the one before.
    /// One atomic step. The first fence decides which lock the resource is fenced by.
    ///
    /// # Errors
    /// [`FenceError::Stale`] and [`FenceError::OtherLock`], with nothing changed; [`FenceError::Store`].
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError>;

    /// The highest fence that the resource has seen; `None` if it has seen none.
    ///
    /// # Errors
    /// [`FenceError::Store`].
    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError>;

    /// Forgets what the resource has seen, so that another lock can fence it; `true` if there was something.
    ///
    /// For people, when no holder of the lock before can be at work any more: its late writes would pass.
    ///
    /// # Errors
    /// [`FenceError::Store`].
    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError>;
}

#[async_trait]
impl<R: FenceRegister + ?Sized> FenceRegister for Arc<R> {
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        (**self).raise(resource, fence, pass).await
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        (**self).highest(resource).await
    }

    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        (**self).forget(resource).await
    }
}
