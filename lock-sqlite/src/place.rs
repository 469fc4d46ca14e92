//! Where the file lies, and whether locks can be kept there.
//!
//! Nothing here opens the file: closing any handle of it would drop the POSIX locks that SQLite holds in this process
//! (<https://www.sqlite.org/howtocorrupt.html>, section 2.2).

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use lock_core::{ErrorKind, StoreError};
use rustix::fs::Access;

/// Which file a path leads to: another one after the file was deleted and made anew.
pub(crate) type Identity = (u64, u64);

/// The file's identity, or `None` if there is none.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Checks that a file of locks can be kept at an absolute path, before anything is made there.
///
/// # Errors
/// One line that names the path and what to do.
pub(crate) fn check(path: &Path, create_directory: bool) -> Result<(), StoreError> {
    let Some(directory) = path.parent().filter(|_| path.file_name().is_some()) else {
        return refuse(ErrorKind::InvalidConfig, path, "is not the name of a file; name a file");
    };
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => {
            return refuse(ErrorKind::NotReady, directory, "is not a directory; name a file in a directory");
        }
        Ok(_) => {}
        Err(why) if why.kind() == io::ErrorKind::NotFound && create_directory => make(directory)?,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return refuse(
                ErrorKind::NotReady,
                directory,
                "does not exist; create the directory, or name another file",
            );
        }
        Err(why) => return Err(unusable(directory, &why)),
    }
    check_file_system(directory)?;
    check_shared(path)?;
    let exists = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return refuse(ErrorKind::NotReady, path, "is a directory; name a file in it"),
        Ok(found) if !found.is_file() => {
            let what = "is not a regular file; name one, or a file that doesn't exist yet";
            return refuse(ErrorKind::NotReady, path, what);
        }
        Ok(_) => true,
        Err(why) if why.kind() == io::ErrorKind::NotFound => false,
        Err(why) => return Err(unusable(path, &why)),
    };
    // WAL keeps two more files beside the database, so the directory must take new ones.
    check_writable(directory, Access::WRITE_OK | Access::EXEC_OK, "a directory")?;
    if exists { check_writable(path, Access::WRITE_OK | Access::READ_OK, "a file") } else { Ok(()) }
}

/// Refuses a file that lies on a network file system; a link may lead there. One that isn't there passes.
pub(crate) fn check_shared(path: &Path) -> Result<(), StoreError> {
    fs::canonicalize(path).ok().as_deref().and_then(Path::parent).map_or(Ok(()), check_file_system)
}

/// Makes the directory, for its owner alone.
fn make(directory: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|why| unusable(directory, &why))
}

/// Also root, whom the kernel would let through, is told that a file is meant to be read only.
fn check_writable(path: &Path, access: Access, what: &str) -> Result<(), StoreError> {
    let mode = fs::metadata(path).map_err(|why| unusable(path, &why))?.permissions().mode();
    let complaint = || format!("can't be written: make it writable for this user, or name {what} that is");
    if mode & 0o222 == 0 {
        return refuse(ErrorKind::NotReady, path, &format!("is read-only and {}", complaint()));
    }
    // By effective ids, as the kernel will judge the opening.
    rustix::fs::accessat(rustix::fs::CWD, path, access, rustix::fs::AtFlags::EACCESS).or_else(|why| match why {
        rustix::io::Errno::ROFS => {
            refuse(ErrorKind::NotReady, path, &format!("lies on a read-only file system and {}", complaint()))
        }
        _ => refuse(ErrorKind::NotReady, path, &complaint()),
    })
}

/// File systems shared by several hosts, by their magic numbers (statfs(2), linux/magic.h): their file locks and shared
/// memory can't be relied on, and another host's leases would count on another clock.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SHARED: [(u32, &str); 13] = [
    (0x0000_6969, "NFS"),
    (0x0000_517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0000_564C, "NCP"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0102_1997, "9P"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x4750_4653, "GPFS"),
];

#[cfg(any(target_os = "linux", target_os = "android"))]
fn check_file_system(directory: &Path) -> Result<(), StoreError> {
    let found = rustix::fs::statfs(directory).map_err(|why| unusable(directory, &why.into()))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the magic numbers have 32 bits")]
    match shared_file_system(found.f_type as u32) {
        Some(kind) => refuse(
            ErrorKind::NotReady,
            directory,
            &format!(
                "lies on a network file system ({kind}), where SQLite's locks can't be relied on; name a file on a \
                 local disk, or use a store with a server"
            ),
        ),
        None => Ok(()),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn shared_file_system(magic: u32) -> Option<&'static str> {
    SHARED.iter().find(|(known, _)| *known == magic).map(|(_, kind)| *kind)
}

/// Other systems don't tell in a way that is known here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn check_file_system(_: &Path) -> Result<(), StoreError> {
    Ok(())
}

fn refuse(kind: ErrorKind, path: &Path, what: &str) -> Result<(), StoreError> {
    Err(StoreError::refused(kind, format!("{} {what}", quoted(path))))
}

fn unusable(path: &Path, why: &io::Error) -> StoreError {
    let kind = if why.kind() == io::ErrorKind::PermissionDenied { ErrorKind::Denied } else { ErrorKind::NotReady };
    StoreError::refused(kind, format!("{} can't be used: {why}; name another file, or mend this one", quoted(path)))
}

/// For one line of a message, whatever the path holds.
pub(crate) fn quoted(path: &Path) -> String {
    path.display().to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The path that stays right when the process changes its directory; never one that SQLite takes for a URI.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|why| unusable(path, &why))
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        assert_eq!(shared_file_system(0x6969), Some("NFS"));
        assert_eq!(shared_file_system(0xEF53), None, "ext4");
        // The kernel hands it out as a sign-extended number on some systems.
        assert_eq!(shared_file_system(0xFFFF_FFFF_FE53_4D42_u64 as u32), Some("SMB2"));
    }
}
