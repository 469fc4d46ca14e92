//! The register, and the door.

use std::{fs::TryLockError, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use lock_core::{
    ErrorKind, Fence, FenceError, FenceRegister, FenceReport, Observer, Operation, Pass, Resource, StoreError, ToFence,
    admit,
};
use tokio::sync::Mutex;

use super::{
    admission::{FileAdmission, Place, on_a_thread},
    directory::Directory,
    failure::{STORE, before},
    name::checked,
};

/// How long one waits to be let in, if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often one asks whether the process that is inside has left. The kernel could tell, but only to a thread that blocks
/// for as long as that takes.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// Fences of the files of one directory, which are kept beside them (in `.leasehold-fences`). Clones are one party; others,
/// in this process or another one, may open the same directory.
///
/// Leave that directory alone while somebody writes: who deletes it deletes the fences, and parts those who are inside from
/// those who come after.
///
/// See the [crate](crate) for an example and for what is guaranteed.
#[derive(Clone, Debug)]
pub struct FileFences {
    directory: Arc<Directory>,
    /// In one process one waits in line; only its first asks the operating system.
    line: Arc<Mutex<()>>,
    patience: Duration,
    report: FenceReport,
}

impl FileFences {
    /// The fences of a directory, which must be there.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] or [`ErrorKind::Denied`] if there is no directory, or it can't be written.
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = directory.as_ref().to_owned();
        let opened = on_a_thread(move || Directory::open(&path)).await;
        let directory = Arc::new(opened.map_err(|why| why.at(STORE, Operation::Connect, None))?);
        Ok(Self { directory, line: Arc::default(), patience: PATIENCE, report: FenceReport::new(STORE) })
    }

    /// Tells refusals to this observer, for metrics. Clones that were made before don't.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// How long one waits to be let in before it is [`Contention`](ErrorKind::Contention); 10 s by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Lets the fence in if it passes, raises what the resource has seen, and keeps others out until the answer is dropped.
    ///
    /// The fence was seen from then on, whether or not anything is written: with [`Pass::Once`] a write that fails has used
    /// the token up.
    ///
    /// # Errors
    /// [`FenceError::Stale`] and [`FenceError::OtherLock`]. [`FenceError::Store`]: [`ErrorKind::Contention`] if others are
    /// inside for too long, [`ErrorKind::Corrupt`] for a register that no version of this crate writes; the error says
    /// whether the fence may have been raised.
    ///
    /// Cancel safe; whether the fence was raised is then unknown.
    pub async fn admit(
        &self,
        resource: &Resource,
        fence: &impl ToFence,
        pass: Pass,
    ) -> Result<FileAdmission, FenceError> {
        let fence = self.report.told(None, fence.to_fence())?;
        self.report.told(Some(fence.lock()), self.let_in(resource, &fence, pass).await)
    }

    /// Lets the fence in if it passes, and replaces one file as a whole. Then it is on the disk.
    ///
    /// # Errors
    /// Those of [`admit`](Self::admit) and of [`FileAdmission::write`]. With [`ErrorKind::InvalidName`] nothing was raised.
    ///
    /// Cancel safety: a write that was begun is carried to its end behind.
    pub async fn write(
        &self,
        resource: &Resource,
        fence: &impl ToFence,
        pass: Pass,
        file: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<(), FenceError> {
        let bytes = bytes.into();
        // First, so that a mistake in the name doesn't use a token up.
        self.report.told(None, checked(file))?;
        let admission = self.admit(resource, fence, pass).await?;
        // Its errors are placed already, and it refuses nothing.
        Ok(admission.write(file, bytes).await?)
    }

    async fn let_in(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<FileAdmission, FenceError> {
        let place = self.enter().await?;
        let (asked, resource) = (fence.clone(), resource.clone());
        let judged = place.work(move |directory| {
            let highest = directory.highest(&resource)?;
            Ok(match admit(highest.as_ref(), &resource, &asked, pass) {
                Ok(true) => directory.raise(&resource, &asked).map(|()| Ok(()))?,
                Ok(false) => directory.settle(&resource).map(|()| Ok(()))?,
                Err(refusal) => Err(refusal),
            })
        });
        judged.await??;
        Ok(FileAdmission::new(place, fence.clone()))
    }

    /// Waits for the place inside.
    async fn enter(&self) -> Result<Arc<Place>, StoreError> {
        let too_long = |_| {
            let what = "somebody else has been writing the directory for too long; try again";
            StoreError::refused(ErrorKind::Contention, what)
        };
        tokio::time::timeout(self.patience, self.queue()).await.map_err(too_long)?
    }

    async fn queue(&self) -> Result<Arc<Place>, StoreError> {
        let turn = Arc::clone(&self.line).lock_owned().await;
        loop {
            // These don't wait for anybody, and hardly for the disk.
            let file = self.directory.lock_file()?;
            match file.try_lock() {
                // One that was deleted after it was opened here keeps nobody out: who comes now opens another one. (Against
                // its deletion while somebody is inside this is no help; see the type.)
                Ok(()) if self.directory.is_lock_file(&file) => {
                    return Ok(Place::new(Arc::clone(&self.directory), file, turn));
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => tokio::time::sleep(ASK_EVERY).await,
                Err(TryLockError::Error(error)) => return Err(before(Path::new("the lock file"), error)),
            }
        }
    }
}

#[async_trait]
impl FenceRegister for FileFences {
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        self.admit(resource, fence, pass).await.map(drop)
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        // It is replaced as a whole, so a look needs no lock.
        let (directory, resource) = (Arc::clone(&self.directory), resource.clone());
        self.report.told(None, on_a_thread(move || directory.highest(&resource)).await)
    }

    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        let place = self.report.told(None, self.enter().await)?;
        let resource = resource.clone();
        self.report.told(None, place.work(move |directory| directory.forget(&resource)).await)
    }
}
