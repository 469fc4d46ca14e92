//! A multi in which conditions of ours stand before what the caller writes.

use lock_core::{Applied, ErrorKind, FenceError, StoreError};
use zookeeper_client::{CheckWriteError, CheckWriter, Client, Error, MultiWriteError, MultiWriteResult};

use crate::{config::invalid, error::Trouble, ground::Patience};

/// Why a multi has no good answer.
pub(super) enum Miss {
    /// What stands before the caller's operations was refused, so nothing was done.
    Own(Error),
    /// One of the caller's operations was refused, so nothing was done.
    Theirs(StoreError),
    /// The request failed as a whole.
    Request(Trouble),
}

/// Sends a multi whose first operations are ours: the check, and `own` more; the answers to the caller's.
///
/// It is sent with the call: from then on it may be done, whatever becomes of the future.
pub(super) async fn commit(
    multi: CheckWriter<'_>,
    own: usize,
    patience: &Patience<'_>,
) -> Result<Vec<MultiWriteResult>, Miss> {
    match patience.within(multi.commit()).await.map_err(Miss::Request)? {
        Ok(mut results) => {
            results.drain(..own.min(results.len()));
            Ok(results)
        }
        Err(CheckWriteError::CheckFailed { source }) => Err(Miss::Own(source)),
        Err(CheckWriteError::OperationFailed { index, source }) if index < own => Err(Miss::Own(source)),
        Err(CheckWriteError::OperationFailed { index, source }) => Err(Miss::Theirs(theirs(index - own, source))),
        Err(CheckWriteError::RequestFailed { source }) => Err(Miss::Request(source.into())),
    }
}

/// The driver's error goes along, its place counted as the caller counts.
fn theirs(index: usize, source: Error) -> StoreError {
    let kind = match &source {
        Error::NoAuth => ErrorKind::Denied,
        Error::QuotaExceeded => ErrorKind::NotReady,
        _ => ErrorKind::Other,
    };
    let message = format!("nothing was written: the server refused operation {index} of the write: {source}");
    StoreError::refused(kind, message).caused_by(MultiWriteError::OperationFailed { index, source })
}

/// What can't be sent at all.
pub(super) fn unsent(error: Error) -> StoreError {
    invalid(format!("the write can't be sent: {error}")).caused_by(error)
}

/// What is to be told of a request that failed as a whole: that it changed nothing only if a server said so.
pub(super) fn told(trouble: Trouble, path: &str) -> FenceError {
    let refused = matches!(
        &trouble,
        Trouble::Said(
            Error::NoAuth
                | Error::QuotaExceeded
                | Error::Throttled
                | Error::NotReadOnly
                | Error::Unimplemented
                | Error::InvalidAcl
        )
    );
    trouble.told(path, if refused { Applied::No } else { Applied::Maybe }).into()
}

/// A path as a client with this chroot has it; `None` if it isn't below that.
pub(super) fn below<'a>(chroot: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(chroot.strip_suffix('/').unwrap_or(chroot)).filter(|rest| rest.starts_with('/'))
}

/// The same session for paths below this chroot.
pub(super) fn rooted(client: &Client, chroot: &str) -> Client {
    if chroot.is_empty() {
        return client.clone();
    }
    // It was checked when it was read.
    client.clone().chroot(chroot).unwrap_or_else(|client| client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_from_its_chroot() {
        assert_eq!(below("", "/a/b"), Some("/a/b"));
        assert_eq!(below("/", "/a/b"), Some("/a/b"));
        assert_eq!(below("/a", "/a/b"), Some("/b"));
        assert_eq!(below("/a", "/ab/c"), None);
        assert_eq!(below("/a/b", "/a/b"), None);
    }
}
