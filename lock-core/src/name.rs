//! Names of locks.

use std::fmt;

use crate::error::{ErrorKind, StoreError};

/// The name of a lock: 1 to 512 bytes of UTF-8 without NUL, otherwise anything.
///
/// `a/b`, `..`, `%` and emoji are all names. Names are compared byte by byte: case counts, and two
/// spellings of one glyph are two names. A store encodes names so that different names never meet.
///
/// ```
/// use lock_core::LockName;
/// assert!(LockName::new("invoice-42").is_ok());
/// assert!(LockName::new("").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockName(std::sync::Arc<str>);

impl LockName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 512;

    /// Checks a name; says which rule it breaks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`], definitely not applied: nothing was sent.
    pub fn new(name: impl AsRef<str>) -> Result<Self, StoreError> {
        let name = name.as_ref();
        check("lock", name, Self::MAX_BYTES)
            .map_err(|Complaint(complaint)| StoreError::refused(ErrorKind::InvalidName, complaint))?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for LockName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LockName {
    /// Writes the name with control characters escaped, so that an untrusted name can't forge lines of a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(&self.0, f)
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Which rule a name breaks.
pub(crate) struct Complaint(pub(crate) String);

/// The rules of all names that people choose, here for `what`.
pub(crate) fn check(what: &str, name: &str, most: usize) -> Result<(), Complaint> {
    Err(Complaint(if name.is_empty() {
        format!("a {what}'s name can't be empty")
    } else if name.len() > most {
        format!("a {what}'s name has at most {most} bytes, this one has {}", name.len())
    } else if name.contains('\0') {
        format!("a {what}'s name can't contain a NUL byte")
    } else {
        return Ok(());
    }))
}

/// Writes a name with its control characters escaped.
pub(crate) fn write_escaped(name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for c in name.chars() {
        if c.is_control() { write!(f, "{}", c.escape_debug())? } else { write!(f, "{c}")? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_exact() {
        assert!(LockName::new("x".repeat(512)).is_ok());
        assert!(LockName::new("x".repeat(513)).is_err());
        assert!(LockName::new("é".repeat(256)).is_ok(), "512 bytes of two-byte characters");
        assert!(LockName::new("é".repeat(257)).is_err());
        assert!(LockName::new("a\0b").is_err());
        assert!(LockName::new("").is_err());
    }

    #[test]
    fn hostile_names_are_names() {
        for name in ["a/b", "..", "%", "🔒", " ", "'; drop table locks; --", "{tag}", "a\nb"] {
            assert_eq!(LockName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_name_cannot_forge_a_line_of_a_log() {
        assert_eq!(LockName::new("a\nb").unwrap().to_string(), "a\\nb");
    }
}
