//! What the errors of files mean here.

use std::{io, path::Path};

use lock_core::{ErrorKind, LockName, Operation, StoreError};

/// What the errors of files, and the refusals that are counted, call the store.
pub(crate) const STORE: &str = "files";

/// Names the place.
pub(crate) fn here(error: StoreError, lock: Option<&LockName>) -> StoreError {
    error.at(STORE, Operation::Fence, lock)
}

/// Nothing was changed.
pub(crate) fn before(path: &Path, error: io::Error) -> StoreError {
    let (kind, message) = explain(path, &error);
    StoreError::refused(kind, message).caused_by(error)
}

/// The change was made, and may not be on the disk.
pub(crate) fn in_doubt(path: &Path, error: io::Error) -> StoreError {
    let (kind, message) = explain(path, &error);
    StoreError::unknown(kind, message).caused_by(error)
}

fn explain(path: &Path, error: &io::Error) -> (ErrorKind, String) {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::StorageFull => ErrorKind::NotReady,
        _ => ErrorKind::Other,
    };
    (kind, format!("{} can't be used: {error}", quoted(path)))
}

/// For one line of a message, whatever the path holds.
pub(crate) fn quoted(path: &Path) -> String {
    path.display().to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
