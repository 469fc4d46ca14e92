//! The one thing that is asked of a store of objects: a write that happens only if nothing else did.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use lock_core::{ErrorKind, StoreError};
use object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion, path::Path,
};

/// A store of objects that can write on condition.
#[async_trait]
pub trait ConditionalObjects: fmt::Debug + Send + Sync + 'static {
    /// The object as it is now, with its two words of metadata; `None` if there is none. Never an older state than one that
    /// was told as written.
    ///
    /// # Errors
    /// The store's.
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError>;

    /// Writes the object with this metadata if it is still as it was found (`None`: if there is none); whether it was
    /// written. One atomic step.
    ///
    /// # Errors
    /// The store's, which says whether it may have been written.
    async fn put_if(&self, key: &str, object: Conditional<'_>) -> Result<bool, StoreError>;
}

/// An object as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it holds.
    pub bytes: Bytes,
    /// The metadata `fence`.
    pub fence: Option<String>,
    /// The metadata `fence-write`.
    pub write: Option<String>,
    /// What the store calls this state of it.
    pub version: UpdateVersion,
}

/// An object to be written.
#[derive(Debug)]
pub struct Conditional<'a> {
    /// What it is to hold.
    pub bytes: Bytes,
    /// The metadata `fence`: visible ASCII, 1,556 bytes at most.
    pub fence: &'a str,
    /// The metadata `fence-write`: hexadecimal digits.
    pub write: &'a str,
    /// Only if the object is in this state; `None`: only if there is none.
    pub unchanged: Option<&'a UpdateVersion>,
}

const FENCE: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("fence"));
const WRITE: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("fence-write"));

#[async_trait]
impl ConditionalObjects for Arc<dyn ObjectStore> {
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let got = match self.get_opts(&path(key)?, GetOptions::default()).await {
            Ok(got) => got,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let word = |attribute| got.attributes.get(&attribute).map(|value| value.as_ref().to_owned());
        let (fence, write) = (word(FENCE), word(WRITE));
        let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
        let bytes = got.bytes().await.map_err(failed)?;
        Ok(Some(Found { bytes, fence, write, version }))
    }

    async fn put_if(&self, key: &str, object: Conditional<'_>) -> Result<bool, StoreError> {
        let mut attributes = Attributes::new();
        attributes.insert(FENCE, object.fence.to_owned().into());
        attributes.insert(WRITE, object.write.to_owned().into());
        let mode = object.unchanged.map_or(PutMode::Create, |version| PutMode::Update(version.clone()));
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        match self.put_opts(&path(key)?, PutPayload::from(object.bytes), options).await {
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
