//! What every fence register keeps (law 4): the highest fence of each resource, and who passes it.
//!
//! Each property is a public function under its own name, over a [`Registers`]; all of them are in
//! [`REGISTER_PROPERTIES`]. What they can't show is that a store's own method judges in one step with the write: that is
//! what [`frozen`](crate::frozen) is for.

mod names;
mod refusals;
mod rule;
mod table;
mod together;

use std::sync::Arc;

use async_trait::async_trait;
use lock_core::{
    Fence, FenceError, FenceRegister, FencingToken, LockName, Observer, OsEntropy, OwnerId, Pass, Resource,
};

pub use names::{locks_are_told_apart, resources_are_told_apart};
pub use refusals::a_refusal_is_told_once_with_its_reason;
pub use rule::{
    a_higher_token_is_taken_and_seen, a_lower_token_is_refused_and_changes_nothing,
    a_token_of_another_lock_is_refused_however_high, forgotten_it_is_open_to_another_lock, once_each_token_passes_once,
    the_first_fence_is_taken_and_seen, the_highest_passes_again, tokens_are_told_apart_to_the_last,
    what_was_raised_outlives_its_client,
};
pub use table::{REGISTER_PROPERTIES, RegisterProperty};
pub use together::{of_many_at_once_the_highest_stays, of_many_with_one_token_one_passes_once};

use crate::{Failure, Lacking, asker::Outcome, ensure};

/// A fence register under test.
#[async_trait]
pub trait Registers: Send + Sync {
    /// A fresh client, with connections of its own. All of one harness see the same register.
    async fn register(&self) -> Result<Arc<dyn FenceRegister>, Failure>;

    /// Likewise, one that tells this observer what it refuses.
    ///
    /// # Errors
    /// [`Failure::Lacking`] if the registers tell nobody.
    async fn observed(&self, _observer: Arc<dyn Observer>) -> Result<Arc<dyn FenceRegister>, Failure> {
        Err(Lacking::new("its registers tell nobody what they refuse").into())
    }

    /// Whether another run may be at the same register now, as at a server's. Where that can't be, names such as `..` and
    /// `*`, which two runs would share, are tested alone, too.
    fn is_shared(&self) -> bool {
        true
    }
}

/// The resource of a property, with a client that writes to it.
struct Writer {
    register: Arc<dyn FenceRegister>,
    resource: Resource,
}

impl Writer {
    /// On a resource that nothing was seen of, of a name that no other property and no other run uses.
    async fn new(h: &dyn Registers, about: &str) -> Result<Self, Failure> {
        let resource = Resource::new(fresh(about))?;
        Ok(Self { register: h.register().await?, resource })
    }

    async fn raise(&self, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        self.register.raise(&self.resource, fence, pass).await
    }

    async fn must_pass(&self, fence: &Fence, pass: Pass) -> Outcome {
        let passed = self.raise(fence, pass).await;
        ensure!(passed.is_ok(), "{fence} was to pass ({pass:?}) at {}: {passed:?}", self.resource);
        self.must_show(Some(fence)).await
    }

    async fn must_show(&self, highest: Option<&Fence>) -> Outcome {
        let seen = self.register.highest(&self.resource).await?;
        ensure!(seen.as_ref() == highest, "at {} {highest:?} was to be seen, and {seen:?} is", self.resource);
        Ok(())
    }

    /// Must be told as stale, with all that it says, and change nothing.
    async fn must_be_stale(&self, fence: &Fence, pass: Pass, highest: &Fence) -> Outcome {
        let refused = self.raise(fence, pass).await;
        let told = matches!(&refused, Err(FenceError::Stale(stale)) if stale.resource == self.resource
            && stale.lock == *fence.lock() && stale.token == fence.token() && stale.highest == highest.token());
        ensure!(told, "{fence} was to be refused ({pass:?}) where {highest} was seen, and told so: {refused:?}");
        self.must_show(Some(highest)).await
    }

    /// Must be told as another lock's, with all that it says, and change nothing.
    async fn must_be_of_another_lock(&self, fence: &Fence, pass: Pass, highest: &Fence) -> Outcome {
        let refused = self.raise(fence, pass).await;
        let told = matches!(&refused, Err(FenceError::OtherLock(other)) if other.resource == self.resource
            && other.lock == *fence.lock() && other.fenced_by == *highest.lock());
        ensure!(told, "{fence} was to be refused ({pass:?}) where {highest} was seen, and told so: {refused:?}");
        self.must_show(Some(highest)).await
    }
}

/// A name that no other property and no other run uses.
fn fresh(about: &str) -> String {
    format!("{about}-{}", OwnerId::random(&OsEntropy))
}

fn fence(lock: &str, token: u64) -> Result<Fence, Failure> {
    Ok(Fence::new(LockName::new(lock)?, FencingToken::new(token))?)
}
