//! One process of the machine at a time.

use std::fs::{File, OpenOptions};
use std::io;

/// Lets one process of the machine at a time do `what`, until dropped.
///
/// In the directory for temporary files and not in a target directory, because container
/// names belong to the machine as well. Where there can be no lock, a race is the lesser evil.
pub(crate) fn machine(what: &str) -> Option<File> {
    let path = std::env::temp_dir().join(format!("leasehold-testbed-{what}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .or_else(|error| match error.kind() {
            // Another user's file: a lock needs no right to write.
            io::ErrorKind::PermissionDenied => File::open(&path),
            _ => Err(error),
        })
        .ok()?;
    file.lock().ok()?;
    Some(file)
}
