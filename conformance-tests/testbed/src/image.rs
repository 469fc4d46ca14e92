//! Images: the one that was asked for, or our own, made when it is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::{docker, run};
use crate::kind::{environment, variable};
use crate::{Error, Missing, lock};

const DEBIAN: &str = "debian:bookworm-slim";
const OWN_BASE: &str = "leasehold-testbed/base:bookworm";

const LOOKUP: Duration = Duration::from_secs(20);
/// How long a registry may take to say that it has the image.
const REGISTRY_ANSWERS: Duration = Duration::from_secs(15);
const DOWNLOAD: Duration = Duration::from_secs(600);
const BUILD: Duration = Duration::from_secs(1200);

/// Puts into the folder of a build what the project doesn't keep.
pub(crate) type Fetch = fn(&Path) -> Result<(), Missing>;

/// What containers are made from.
#[derive(Debug)]
pub(crate) struct ImageKind {
    /// Names the folder below `docker/`, the image, and the variable with another one.
    pub(crate) name: &'static str,
    /// Arguments of the build.
    pub(crate) arguments: &'static [(&'static str, &'static str)],
    /// What becomes of an image that is given.
    pub(crate) given: Given,
    /// Called before a build, unless an image is given to build on.
    pub(crate) fetch: Option<Fetch>,
}

/// What an image that is given in the environment serves for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// It runs as it is.
    Runs,
    /// Our own is built on it, for it lacks what starts several servers; the server's program is the given one's.
    IsBase,
}

impl ImageKind {
    /// The image that containers are to run. It need not exist yet.
    ///
    /// Our own carry a fingerprint of their files, so that a changed Dockerfile is a new image.
    pub(crate) fn name(&self) -> Result<String, Missing> {
        let given = self.given_image();
        if let (Some(image), Given::Runs) = (&given, self.given) {
            return Ok(image.clone());
        }
        let folder = self.folder();
        let files = fingerprint_of_files(&folder).map_err(|error| {
            Missing::new(
                format!("can't read {} ({error})", folder.display()),
                "rebuild the tests where the project's files now are",
            )
        })?;
        let on = given.map(|base| format!("-on-{:016x}", fingerprint(base.as_bytes()))).unwrap_or_default();
        Ok(format!("leasehold-testbed/{}:{files:016x}{on}", self.name))
    }

    /// Makes sure that this image, which [`ImageKind::name`] named, is there.
    pub(crate) fn provide(&self, image: &str) -> Result<(), Missing> {
        // Most calls find it; they needn't wait for who makes another.
        if exists(image) {
            return Ok(());
        }
        let _lock = lock::machine(&format!("image-{}", self.name));
        if exists(image) {
            return Ok(());
        }
        match (self.given_image(), self.given) {
            (Some(_), Given::Runs) => self.download_given(image),
            (Some(base), Given::IsBase) => {
                if !exists(&base) {
                    self.download_given(&base)?;
                }
                self.build(image, &base, None)
            }
            (None, _) => self.build(image, base()?, self.fetch),
        }
    }

    /// The image that is given in the environment, if one is.
    fn given_image(&self) -> Option<String> {
        environment(&self.variable())
    }

    /// Whether an image is given that runs as it is.
    pub(crate) fn is_given_to_run(&self) -> bool {
        self.given == Given::Runs && self.given_image().is_some()
    }

    fn variable(&self) -> String {
        format!("{}_IMAGE", variable(self.name))
    }

    fn download_given(&self, image: &str) -> Result<(), Missing> {
        download(image).map_err(|error| {
            Missing::new(
                format!("can't get the image {image} ({})", error.last_line()),
                format!("docker pull it, or unset {}", self.variable()),
            )
        })
    }

    fn build(&self, image: &str, base: &str, fetch: Option<Fetch>) -> Result<(), Missing> {
        let began = Instant::now();
        eprintln!("testbed: building the image {image}; about a minute, once");
        let folder = self.folder();
        let built = match fetch {
            None => self.build_in(&folder, image, base),
            Some(fetch) => {
                let copy = Copy::of(&folder, self.name)?;
                fetch(&copy.0)?;
                self.build_in(&copy.0, image, base)
            }
        };
        built.map_err(|error| {
            Missing::new(
                format!("can't build the image of {} ({})", self.name, error.last_line()),
                format!("see docker build --build-arg BASE={base} {}", folder.display()),
            )
        })?;
        eprintln!("testbed: built {image} in {:.0?}", began.elapsed());
        Ok(())
    }

    fn build_in(&self, folder: &Path, image: &str, base: &str) -> Result<(), Error> {
        let base = format!("BASE={base}");
        let folder = folder.display().to_string();
        let settings: Vec<String> = self.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut args = vec!["build", "--force-rm", "--tag", image, "--label", "leasehold.testbed=image"];
        args.extend(["--build-arg", &base]);
        for setting in &settings {
            args.extend(["--build-arg", setting]);
        }
        args.push(&folder);
        docker(&args, BUILD).map(drop)
    }

    fn folder(&self) -> PathBuf {
        docker_folder().join(self.name)
    }
}

/// A copy of a folder's files to build in, gone when dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(folder: &Path, name: &str) -> Result<Self, Missing> {
        let copy = Self(std::env::temp_dir().join(format!("leasehold-testbed-build-{name}-{}", std::process::id())));
        copy.fill(folder).map_err(|error| {
            Missing::new(format!("can't write {} ({error})", copy.0.display()), "make room there, or set TMPDIR")
        })?;
        Ok(copy)
    }

    fn fill(&self, folder: &Path) -> std::io::Result<()> {
        // What a process of the same number left there, or somebody put there, doesn't get into the image.
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&self.0)?,
        }
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            fs::copy(entry.path(), self.0.join(entry.file_name()))?;
        }
        Ok(())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // It is in the directory for temporary files: what stays is cleared there.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A Debian to build on: one that is there, else from the registry, else made here.
fn base() -> Result<&'static str, Missing> {
    // One at a time: images that are made at once share it.
    let _lock = lock::machine("base");
    if let Some(there) = [DEBIAN, OWN_BASE].into_iter().find(|image| exists(image)) {
        return Ok(there);
    }
    if download(DEBIAN).is_ok() {
        return Ok(DEBIAN);
    }
    let began = Instant::now();
    eprintln!("testbed: no image registry in reach; making {OWN_BASE} by debootstrap, about a minute, once");
    let script = docker_folder().join("base.sh");
    run("sh", &[&script.display().to_string(), OWN_BASE], BUILD)
        .map_err(|error| Missing::new(format!("no base image, and {DEBIAN} can't be pulled"), error.last_line()))?;
    eprintln!("testbed: made {OWN_BASE} in {:.0?}", began.elapsed());
    Ok(OWN_BASE)
}

/// Pulls an image. Gives up after a few seconds when no registry answers, and has patience
/// once one does.
fn download(image: &str) -> Result<(), Error> {
    match docker(&["pull", image], REGISTRY_ANSWERS) {
        // What was loaded until now is kept by the engine.
        Err(Error::Hung { stdout, .. }) if stdout.contains("Pulling from") => {
            docker(&["pull", image], DOWNLOAD).map(drop)
        }
        other => other.map(drop),
    }
}

fn exists(image: &str) -> bool {
    docker(&["image", "inspect", "--format", "{{.Id}}", image], LOOKUP).is_ok()
}

pub(crate) fn docker_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn fingerprint_of_files(folder: &Path) -> std::io::Result<u64> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut text = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        text.extend(file.file_name().unwrap_or_default().as_encoded_bytes());
        text.push(0);
        text.extend(fs::read(file)?);
        text.push(0);
    }
    Ok(fingerprint(&text))
}

/// FNV-1a: the same on each machine and for each compiler, which std's hasher doesn't promise.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::KINDS;

    #[test]
    fn fingerprint_is_fnv_1a() {
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn every_kind_has_a_dockerfile() {
        for kind in KINDS {
            assert!(kind.image.folder().join("Dockerfile").is_file(), "{}", kind.name);
        }
    }
}
