//! What is fenced.

use std::fmt;

use crate::{
    error::{ErrorKind, StoreError},
    name::{Complaint, check},
};

/// The name of a resource that is fenced, such as `accounts` or `invoices/42`: 1 to 512 bytes of UTF-8 without NUL.
///
/// A resource is what one lock protects as a whole. Its name is the resource's own, whatever the lock is called; names are
/// compared byte by byte.
///
/// ```
/// use lock_core::Resource;
/// assert!(Resource::new("accounts").is_ok());
/// assert!(Resource::new("").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(std::sync::Arc<str>);

impl Resource {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = crate::LockName::MAX_BYTES;

    /// Checks a name; says which rule it breaks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`], definitely not applied: nothing was sent.
    pub fn new(name: impl AsRef<str>) -> Result<Self, StoreError> {
        let name = name.as_ref();
        check("resource", name, Self::MAX_BYTES)
            .map_err(|Complaint(complaint)| StoreError::refused(ErrorKind::InvalidName, complaint))?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Resource {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Resource {
    /// Writes the name with control characters escaped, so that an untrusted name can't forge lines of a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::name::write_escaped(&self.0, f)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
