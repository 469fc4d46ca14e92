//! The fenced objects.

use async_trait::async_trait;
use bytes::Bytes;
use lock_core::{
    Entropy, ErrorKind, Fence, FenceError, FenceRegister, Operation, OsEntropy, Pass, Resource, StoreError, ToFence,
    admit,
};

use super::conditional::{Conditional, ConditionalObjects, Found};

/// How often a write that others came before is tried again: those have written, so somebody gets on.
const TRIES: usize = 64;

/// Objects, each of which keeps the highest fence it has seen beside its content. The name of a resource is the object's key.
#[derive(Debug)]
pub struct FencedObjects<S>(S);

impl<S: ConditionalObjects> FencedObjects<S> {
    /// Over this store.
    pub const fn new(store: S) -> Self {
        Self(store)
    }

    /// Replaces the object, or makes it, if the fence passes. Two round trips if nobody comes between.
    ///
    /// # Errors
    /// Refusals ([`FenceError::is_refusal`]), with nothing written; [`FenceError::Store`], which says whether it may have
    /// been written: then a `put` of the same may be tried again. Not cancel safe: dropped, it may be written or not.
    pub async fn put(
        &self,
        resource: &Resource,
        lease: &impl ToFence,
        pass: Pass,
        bytes: Bytes,
    ) -> Result<(), FenceError> {
        self.update(resource, lease, pass, |_| bytes.clone()).await
    }

    /// Makes the object's new content of what it holds now (`None`: there is none), if the fence passes. `change` may be
    /// called more than once, each time with newer content, until nobody came between.
    ///
    /// # Errors
    /// Those of [`put`](Self::put). After a [`FenceError::Store`] that may have been applied, look before you try again.
    pub async fn update(
        &self,
        resource: &Resource,
        lease: &impl ToFence,
        pass: Pass,
        change: impl Fn(Option<Bytes>) -> Bytes + Send + Sync,
    ) -> Result<(), FenceError> {
        let fence = lease.to_fence()?;
        self.write(resource, &fence, pass, &change, false).await
    }

    /// What the object holds; `None` if there is none. The fence isn't asked: who reads to write reads by
    /// [`update`](Self::update), or raises first.
    ///
    /// # Errors
    /// [`FenceError::Store`].
    pub async fn get(&self, resource: &Resource) -> Result<Option<Bytes>, FenceError> {
        Ok(self.found(resource).await?.map(|found| found.bytes))
    }

    async fn write(
        &self,
        resource: &Resource,
        fence: &Fence,
        pass: Pass,
        change: &(dyn Fn(Option<Bytes>) -> Bytes + Send + Sync + '_),
        only_raise: bool,
    ) -> Result<(), FenceError> {
        // By it a write is known again whose answer was lost, or was tried again below us.
        let mark = format!("{:016x}{:016x}", OsEntropy.next_u64(), OsEntropy.next_u64());
        let text = fence.to_string();
        for _ in 0..TRIES {
            let found = self.found(resource).await?;
            if found.as_ref().is_some_and(|found| found.write.as_deref() == Some(&*mark)) {
                return Ok(());
            }
            let seen = found.as_ref().map_or(Ok(None), seen)?;
            let raises = admit(seen.as_ref(), resource, fence, pass)?;
            if only_raise && !raises {
                return Ok(());
            }
            let bytes = change(found.as_ref().map(|found| found.bytes.clone()));
            let unchanged = found.as_ref().map(|found| &found.version);
            let object = Conditional { bytes, fence: &text, write: &mark, unchanged };
            if self.0.put_if(resource.as_str(), object).await.map_err(placed)? {
                return Ok(());
            }
        }
        let message = format!("others wrote \"{resource}\" first, {TRIES} times");
        Err(placed(StoreError::refused(ErrorKind::Contention, message)).into())
    }

    async fn found(&self, resource: &Resource) -> Result<Option<Found>, FenceError> {
        Ok(self.0.get(resource.as_str()).await.map_err(placed)?)
    }
}

/// The fence that an object has seen; none if it was written by somebody who had none.
fn seen(found: &Found) -> Result<Option<Fence>, FenceError> {
    // Empty: it was told to forget.
    let Some(text) = found.fence.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse() {
        Ok(fence) => Ok(Some(fence)),
        Err(error) => {
            let message = format!("the object's metadata \"fence\" is {error}");
            Err(placed(StoreError::refused(ErrorKind::Corrupt, message)).into())
        }
    }
}

fn placed(error: StoreError) -> StoreError {
    error.at("object store", Operation::Fence, None)
}

#[async_trait]
impl<S: ConditionalObjects> FenceRegister for FencedObjects<S> {
    /// An object that isn't there is made, with nothing in it.
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        self.write(resource, fence, pass, &|before| before.unwrap_or_default(), true).await
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        match self.found(resource).await? {
            Some(found) => seen(&found),
            None => Ok(None),
        }
    }

    /// Writes the object anew without what it has seen; its content stays.
    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        for _ in 0..TRIES {
            let Some(found) = self.found(resource).await? else { return Ok(false) };
            if seen(&found).is_ok_and(|seen| seen.is_none()) {
                return Ok(false);
            }
            let object =
                Conditional { bytes: found.bytes.clone(), fence: "", write: "", unchanged: Some(&found.version) };
            if self.0.put_if(resource.as_str(), object).await.map_err(placed)? {
                return Ok(true);
            }
        }
        let message = format!("others wrote \"{resource}\" first, {TRIES} times");
        Err(placed(StoreError::refused(ErrorKind::Contention, message)).into())
    }
}
