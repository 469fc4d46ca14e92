//! Wall clocks of servers that tests set.
//!
//! Such a server runs under Debian's `libfaketime`, which adds to each wall time that the server reads what a file says, and
//! reads the file anew each time: so a clock is set at once, also that of a server that is frozen or down. Monotonic clocks
//! stay true, as they do where an administrator or NTP sets a clock.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// Where the folder is in the container.
const INSIDE: &str = "/run/testbed-clocks";

/// What images have it under, on any architecture.
pub(crate) const LIBRARY: &str = "/usr/local/lib/testbed/faketime.so";

/// A folder with a file for each member of a server, which says how far ahead of the machine's that one's wall clock is.
///
/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct Clocks {
    folder: PathBuf,
    members: usize,
}

impl Clocks {
    /// Those of a container of this name, all right.
    pub(crate) fn create(container: &str, members: u16) -> Result<Self, Error> {
        let clocks = Self { folder: folder_of(container), members: members.into() };
        let create = || {
            fs::create_dir_all(&clocks.folder)?;
            // Servers have users of their own, and this process may keep its files to itself.
            fs::set_permissions(&clocks.folder, Permissions::from_mode(0o755))
        };
        create().map_err(|error| clocks.not_set(error))?;
        (0..clocks.members).try_for_each(|member| clocks.set(member, 0))?;
        Ok(clocks)
    }

    pub(crate) fn members(&self) -> usize {
        self.members
    }

    /// From now on this member's wall clock is so many microseconds ahead; behind, if negative.
    pub(crate) fn set(&self, member: usize, ahead: i64) -> Result<(), Error> {
        let set = || {
            let sign = if ahead < 0 { '-' } else { '+' };
            let (seconds, micros) = (ahead.unsigned_abs() / 1_000_000, ahead.unsigned_abs() % 1_000_000);
            let next = self.folder.join(format!("{member}.next"));
            fs::write(&next, format!("{sign}{seconds}.{micros:06}\n"))?;
            fs::set_permissions(&next, Permissions::from_mode(0o644))?;
            // Nobody reads half of it.
            fs::rename(&next, self.folder.join(member.to_string()))
        };
        set().map_err(|error| self.not_set(error))
    }

    /// Options of `docker run` with which servers can read it, once [`LIBRARY`] is preloaded; of several members each names
    /// its own file.
    pub(crate) fn options(&self) -> Vec<String> {
        vec![
            format!("--volume={}:{INSIDE}:ro", self.folder.display()),
            format!("--env=FAKETIME_TIMESTAMP_FILE={INSIDE}/0"),
            "--env=FAKETIME_NO_CACHE=1".to_owned(),
            "--env=FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            // What it would mend in glibc isn't broken there: with it timed waits end at once, and a mongod never rests.
            "--env=FAKETIME_FORCE_MONOTONIC_FIX=0".to_owned(),
            // It is for programs that share a clock, and needs a user for all of them.
            "--env=FAKETIME_DISABLE_SHM=1".to_owned(),
        ]
    }

    fn not_set(&self, source: io::Error) -> Error {
        Error::NotRun { command: format!("set a clock in {}", self.folder.display()), source }
    }
}

impl Drop for Clocks {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Removes what a process that is gone left of a container's clocks.
pub(crate) fn remove_of(container: &str) {
    remove(&folder_of(container));
}

fn remove(folder: &Path) {
    // It is in the directory for temporary files: what stays is cleared there.
    let _ = fs::remove_dir_all(folder);
}

fn folder_of(container: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{container}-clocks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_told_in_seconds_with_a_sign() -> Result<(), Box<dyn std::error::Error>> {
        let clocks = Clocks::create(&format!("leasehold-testbed-told-{}", std::process::id()), 2)?;
        let told = |member: &str| fs::read_to_string(clocks.folder.join(member));
        assert_eq!(told("1")?, "+0.000000\n");
        for (ahead, expected) in [(475_000, "+0.475000\n"), (-3_600_000_001, "-3600.000001\n"), (-1, "-0.000001\n")] {
            clocks.set(1, ahead)?;
            assert_eq!(told("1")?, expected);
        }
        assert_eq!(told("0")?, "+0.000000\n", "each member has its own");
        Ok(())
    }
}
