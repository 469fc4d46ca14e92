//! The fenced objects.

use async_trait::async_trait;
use bytes::Bytes;
use lock_core::{
    Entropy, ErrorKind, Fence, FenceError, FenceRegister, OsEntropy, Pass, Resource, StoreError, ToFence, admit,
};

use super::{
    conditional::{ConditionalObjects, Found},
    envelope::{Opened, Trail, sealed},
    placed,
};

/// How often a write that others came before is tried again: those have written, so somebody gets on.
const TRIES: usize = 64;

/// Objects, each of which keeps the highest fence it has seen before its content. The name of a resource is the object's key.
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
        Ok(self.found(resource).await?.map(|found| Opened::of(&found).content))
    }

    async fn write(
        &self,
        resource: &Resource,
        fence: &Fence,
        pass: Pass,
        change: &(dyn Fn(Option<Bytes>) -> Bytes + Send + Sync + '_),
        only_raise: bool,
    ) -> Result<(), FenceError> {
        // By it a write is known again whose answer was lost, or was sent again below us.
        let mark = OsEntropy.next_u64();
        // What a write found that was told as too late.
        let mut told: Option<Trail> = None;
        for _ in 0..TRIES {
            let found = self.found(resource).await?;
            let Opened { seen, trail, content } = found.as_ref().map(Opened::of).unwrap_or_default();
            match told.map(|before| trail.tells_of(mark, &before)) {
                Some(Some(true)) => return Ok(()),
                Some(None) => return Err(untold(resource).into()),
                Some(Some(false)) | None => {}
            }
            let raises = admit(seen.get()?.as_ref(), resource, fence, pass)?;
            if only_raise && !raises {
                return Ok(());
            }
            let bytes = sealed(Some(fence), &trail.and(mark), &change(found.is_some().then_some(content)));
            if self.put_if(resource, bytes, found.as_ref()).await? {
                return Ok(());
            }
            told = Some(trail);
        }
        Err(contended(resource).into())
    }

    async fn put_if(&self, resource: &Resource, bytes: Bytes, found: Option<&Found>) -> Result<bool, StoreError> {
        self.0.put_if(resource.as_str(), bytes, found.map(|found| &found.version)).await.map_err(placed)
    }

    async fn found(&self, resource: &Resource) -> Result<Option<Found>, FenceError> {
        Ok(self.0.get(resource.as_str()).await.map_err(placed)?)
    }
}

fn contended(resource: &Resource) -> StoreError {
    // The last of them may be one that was sent again.
    placed(StoreError::unknown(ErrorKind::Contention, format!("others wrote \"{resource}\" first, {TRIES} times")))
}

fn untold(resource: &Resource) -> StoreError {
    let message = format!("others wrote \"{resource}\" so often since that it can't be told whether this was written");
    placed(StoreError::unknown(ErrorKind::Contention, message))
}

#[async_trait]
impl<S: ConditionalObjects> FenceRegister for FencedObjects<S> {
    /// An object that isn't there is made, with nothing in it.
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        self.write(resource, fence, pass, &|before| before.unwrap_or_default(), true).await
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        match self.found(resource).await? {
            Some(found) => Ok(Opened::of(&found).seen.get()?),
            None => Ok(None),
        }
    }

    /// Writes the object anew without what it has seen; its content stays.
    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        for _ in 0..TRIES {
            let Some(found) = self.found(resource).await? else { return Ok(false) };
            let Opened { seen, trail, content } = Opened::of(&found);
            if matches!(seen.get(), Ok(None)) {
                return Ok(false);
            }
            let bytes = sealed(None, &trail.and(OsEntropy.next_u64()), &content);
            if self.put_if(resource, bytes, Some(&found)).await? {
                return Ok(true);
            }
        }
        Err(contended(resource).into())
    }
}
