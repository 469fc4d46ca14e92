//! What is done on the disk. All of it blocks.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use lock_core::{ErrorKind, Fence, Resource, StoreError};

use super::{
    failure::{before, in_doubt, quoted},
    name::{REGISTER, checked, of_resource},
};

/// More than the longest fence as text.
const LONGEST: u64 = 4096;

/// A directory whose files are fenced.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    register: PathBuf,
}

impl Directory {
    /// Finds it, and makes the register in it if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |error| before(path, error);
        // What it is called now stays right when the process changes its directory.
        let found = fs::canonicalize(path).map_err(failed)?;
        if !fs::metadata(&found).map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        let register = found.join(REGISTER);
        match fs::create_dir(&register) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(before(&register, error)),
            // Also where it was there: whoever made it may not have come this far.
            _ => sync(&found).map_err(failed)?,
        }
        let directory = Self { path: found, register };
        directory.lock_file()?;
        Ok(directory)
    }

    fn lock_path(&self) -> PathBuf {
        self.register.join("lock")
    }

    /// The file whose lock lets one process in. Each opening is a party of its own, within a process as well.
    pub(crate) fn lock_file(&self) -> Result<File, StoreError> {
        let path = self.lock_path();
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        opened.map_err(|error| before(&path, error))
    }

    /// Whether this is still the file that others lock: somebody may have deleted it.
    pub(crate) fn is_lock_file(&self, file: &File) -> bool {
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let there = fs::metadata(self.lock_path()).map(identity).ok();
        there.is_some() && there == file.metadata().map(identity).ok()
    }

    /// The highest fence that a resource has seen.
    pub(crate) fn highest(&self, resource: &Resource) -> Result<Option<Fence>, StoreError> {
        let path = self.register.join(of_resource(resource));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(before(&path, error)),
        };
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text).map_err(|error| before(&path, error))?;
        // What doesn't end as it was written was cut off, even if it reads like a fence.
        let text = String::from_utf8(text).ok();
        let fence = text.as_deref().and_then(|text| text.strip_suffix('\n')).and_then(|text| text.parse().ok());
        fence.map(Some).ok_or_else(|| {
            let what = format!(
                "{} holds no fence that any version of this program wrote; forget the fence of \"{resource}\" once no \
                 holder of its lock is at work",
                quoted(&path)
            );
            StoreError::refused(ErrorKind::Corrupt, what)
        })
    }

    /// Raises what a resource has seen; it is on the disk then. Only with the lock.
    pub(crate) fn raise(&self, resource: &Resource, fence: &Fence) -> Result<(), StoreError> {
        let path = self.register.join(of_resource(resource));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| before(parent, error))?;
        }
        self.replace(&path, format!("{fence}\n").as_bytes())?;
        self.settle(resource)
    }

    /// Sees to it that what the register has of a resource is on the disk: whoever raised it may have been killed before.
    /// For a name of usual length that is one directory.
    pub(crate) fn settle(&self, resource: &Resource) -> Result<(), StoreError> {
        let path = self.register.join(of_resource(resource));
        let mut within = path.ancestors().skip(1).take_while(|above| above.starts_with(&self.register));
        within.try_for_each(|above| sync(above).map_err(|error| in_doubt(above, error)))
    }

    /// Whether there was something to forget. Only with the lock.
    pub(crate) fn forget(&self, resource: &Resource) -> Result<bool, StoreError> {
        let path = self.register.join(of_resource(resource));
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(before(&path, error)),
        }
        self.settle(resource).map(|()| true)
    }

    /// A file of the data; `None` if there is none.
    pub(crate) fn read(&self, file: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path.join(checked(file)?);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(before(&path, error)),
        }
    }

    /// Replaces a file of the data, or makes it; it is on the disk then. Only with the lock.
    pub(crate) fn write(&self, file: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.replace(&self.path.join(checked(file)?), bytes)?;
        sync(&self.path).map_err(|error| in_doubt(&self.path, error))
    }

    /// Whoever opens the file, also after a crash, sees the old one or the new one. Which of them, is settled when its
    /// directory is flushed.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        // There is one at a time, since there is one who has the lock. One that a crash left behind is made anew, and not
        // written into: it may be named twice.
        let next = self.register.join("next");
        let written = || -> io::Result<()> {
            match fs::remove_file(&next) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = File::create_new(&next)?;
            // Before the content, which may not be for everybody; and without the rights of whoever runs it.
            if let Ok(found) = fs::metadata(path) {
                file.set_permissions(Permissions::from_mode(found.permissions().mode() & 0o777))?;
            }
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&next, path)
        };
        written().map_err(|error| before(path, error))
    }
}

/// What a directory lists, flushed to the disk.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
