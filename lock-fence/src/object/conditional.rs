//! The one thing that is asked of a store of objects: a write that happens only if nothing else did.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use lock_core::{ErrorKind, StoreError};
use object_store::{
    Attributes, Error, GetOptions, ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion, path::Path,
};

/// A store of objects that can write on condition.
#[async_trait]
pub trait ConditionalObjects: fmt::Debug + Send + Sync + 'static {
    /// The object as it is now; `None` if there is none. Never an older state than one that was told as written.
    ///
    /// # Errors
    /// The store's.
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError>;

    /// Writes the object if it is still as it was found (`None`: if there is none), and leaves its attributes as they were
    /// found; whether it was written. One atomic step. `false` may be told of a write that was done all the same, if it
    /// was sent more than once.
    ///
    /// # Errors
    /// The store's, which says whether it may have been written.
    async fn put_if(&self, key: &str, bytes: Bytes, unchanged: Option<&Found>) -> Result<bool, StoreError>;
}

/// An object as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it holds.
    pub bytes: Bytes,
    /// What else is kept of it, such as its content type.
    pub attributes: Attributes,
    /// What the store calls this state of it. No two states that hold different bytes have the same; those that hold the
    /// same bytes may, as an S3 ETag does.
    pub version: UpdateVersion,
}

#[async_trait]
impl ConditionalObjects for Arc<dyn ObjectStore> {
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let read = |error| failed(error, StoreError::refused);
        let got = match self.get_opts(&path(key)?, GetOptions::default()).await {
            Ok(got) => got,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(read(error)),
        };
        let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
        let attributes = got.attributes.clone();
        let bytes = got.bytes().await.map_err(read)?;
        Ok(Some(Found { bytes, attributes, version }))
    }

    async fn put_if(&self, key: &str, bytes: Bytes, unchanged: Option<&Found>) -> Result<bool, StoreError> {
        let (mode, attributes) = match unchanged {
            Some(found) => (PutMode::Update(found.version.clone()), found.attributes.clone()),
            None => (PutMode::Create, Attributes::new()),
        };
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        match self.put_opts(&path(key)?, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            // Another one was written.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            // It was deleted. Where there was none it is the bucket that isn't there.
            Err(Error::NotFound { .. }) if unchanged.is_some() => Ok(false),
            Err(error) => Err(failed(error, StoreError::unknown)),
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

fn failed(error: Error, applied: fn(ErrorKind, &'static str) -> StoreError) -> StoreError {
    let (kind, message) = match &error {
        Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            let message = "this store of objects can't write on condition, so nothing in it can be fenced";
            return StoreError::refused(ErrorKind::Unsupported, message).caused_by(error);
        }
        Error::NotFound { .. } => {
            return StoreError::refused(ErrorKind::NotReady, "the bucket isn't there").caused_by(error);
        }
        Error::PermissionDenied { .. } => (ErrorKind::Denied, "the store of objects refused the right to do this"),
        Error::Unauthenticated { .. } => (ErrorKind::Denied, "the store of objects refused the credentials"),
        _ => (ErrorKind::Other, "the store of objects failed"),
    };
    applied(kind, message).caused_by(error)
}
