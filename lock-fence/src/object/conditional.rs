//! The one thing that is asked of a store of objects: a write that happens only if nothing else did.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use lock_core::{ErrorKind, StoreError};
use object_store::{Error, GetOptions, ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion, path::Path};

/// A store of objects that can write on condition.
#[async_trait]
pub trait ConditionalObjects: fmt::Debug + Send + Sync + 'static {
    /// The object as it is now; `None` if there is none. Never an older state than one that was told as written.
    ///
    /// # Errors
    /// The store's.
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError>;

    /// Writes the object if it is still as it was found (`None`: if there is none); whether it was written. One atomic step.
    ///
    /// A state may be told by its content alone, as by an `ETag` of S3: no two states of an object that is written by
    /// [`FencedObjects`](super::FencedObjects) have the same. `false` may be the answer to a request that was sent again
    /// after the first one was applied.
    ///
    /// # Errors
    /// The store's, which says whether it may have been written.
    async fn put_if(&self, key: &str, bytes: Bytes, unchanged: Option<&UpdateVersion>) -> Result<bool, StoreError>;
}

/// An object as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it holds.
    pub bytes: Bytes,
    /// What the store calls this state of it.
    pub version: UpdateVersion,
}

#[async_trait]
impl ConditionalObjects for Arc<dyn ObjectStore> {
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let got = match self.get_opts(&path(key)?, GetOptions::default()).await {
            Ok(got) => got,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
        let bytes = got.bytes().await.map_err(failed)?;
        Ok(Some(Found { bytes, version }))
    }

    async fn put_if(&self, key: &str, bytes: Bytes, unchanged: Option<&UpdateVersion>) -> Result<bool, StoreError> {
        let mode = unchanged.map_or(PutMode::Create, |version| PutMode::Update(version.clone()));
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.put_opts(&path(key)?, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            // Another one was written, or it was deleted.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}

fn path(key: &str) -> Result<Path, StoreError> {
    // Strict: no two keys are one path.
    match Path::parse(key) {
        Ok(path) if path.as_ref() == key => Ok(path),
        Ok(path) => {
            let message = format!("{key:?} is no object's name as it stands; {:?} would be", path.as_ref());
            Err(StoreError::refused(ErrorKind::InvalidName, message))
        }
        Err(error) => {
            let message = format!("{key:?} can't be an object's name: {error}");
            Err(StoreError::refused(ErrorKind::InvalidName, message))
        }
    }
}

fn failed(error: Error) -> StoreError {
    let (kind, message) = match &error {
        Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            let message = "this store of objects can't write on condition, so nothing in it can be fenced";
            return StoreError::refused(ErrorKind::Unsupported, message).caused_by(error);
        }
        Error::PermissionDenied { .. } => (ErrorKind::Denied, "the store of objects refused the right to do this"),
        Error::Unauthenticated { .. } => (ErrorKind::Denied, "the store of objects refused the credentials"),
        _ => (ErrorKind::Other, "the store of objects failed"),
    };
    StoreError::unknown(kind, message).caused_by(error)
}
