//! What was let in.

use std::{fs::File, sync::Arc};

use lock_core::{ErrorKind, Fence, StoreError};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{directory::Directory, failure::here};

/// The one place inside: nobody else is let in while any part of this process has it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: Arc<Directory>,
    /// Closed, it is unlocked. Before the turn is given up, so that the next one of this process finds it free.
    _lock: File,
    _turn: OwnedMutexGuard<()>,
    /// Had by the one piece of work that is under way: all of them make their file under one name at first.
    busy: Arc<Mutex<()>>,
}

impl Place {
    pub(crate) fn new(directory: Arc<Directory>, lock: File, turn: OwnedMutexGuard<()>) -> Arc<Self> {
        Arc::new(Self { directory, _lock: lock, _turn: turn, busy: Arc::default() })
    }

    /// Works on the disk, on a thread that may block. The place is kept until the work is through, even if nobody waits for
    /// it any more: otherwise a write could come when somebody else is inside. One piece after the other, in the order in
    /// which they were asked for.
    pub(crate) async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Directory) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = Arc::clone(self);
        let alone = Arc::clone(&self.busy).lock_owned().await;
        on_a_thread(move || {
            let _alone = alone;
            work(&place.directory)
        })
        .await
    }
}

/// Works on a thread that may block.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|ended| {
        Err(StoreError::unknown(ErrorKind::Other, "the thread of the work was ended").caused_by(ended))
    })
}

/// A fence that was let in: until this is dropped nobody else is, so what is read and written in between is one step.
///
/// Made by [`FileFences::admit`](crate::files::FileFences::admit). Keep it short: all other writers of the directory wait.
///
/// Its operations are done one after the other, also where several are asked for at once.
///
/// Cancel safety: an operation that was begun is carried to its end behind, before the next one and before anybody else is let
/// in. One that still waited for another of the same admission is not begun.
#[derive(Debug)]
#[must_use = "dropping it lets others in"]
pub struct FileAdmission {
    place: Arc<Place>,
    fence: Fence,
}

impl FileAdmission {
    pub(crate) fn new(place: Arc<Place>, fence: Fence) -> Self {
        Self { place, fence }
    }

    /// Reads a file of the directory; `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] for a name that leads out of the directory; those of the file system.
    pub async fn read(&self, file: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let file = file.to_owned();
        self.place.work(move |directory| directory.read(&file)).await.map_err(|error| self.here(error))
    }

    /// Replaces a file of the directory as a whole, or makes it, and flushes it to the disk. Its permissions stay; a link
    /// is replaced by a file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] for a name that leads out of the directory; those of the file system, which say whether
    /// the file may have been replaced.
    pub async fn write(&self, file: &str, bytes: impl Into<Vec<u8>>) -> Result<(), StoreError> {
        let (file, bytes) = (file.to_owned(), bytes.into());
        self.place.work(move |directory| directory.write(&file, &bytes)).await.map_err(|error| self.here(error))
    }

    fn here(&self, error: StoreError) -> StoreError {
        here(error, Some(self.fence.lock()))
    }
}
