//! Images: the one that was asked for, or our own, made when it is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::{docker, run};
use crate::kind::ServerKind;
use crate::{Error, Missing};

const DEBIAN: &str = "debian:bookworm-slim";
const OWN_BASE: &str = "leasehold-testbed/base:bookworm";

const LOOKUP: Duration = Duration::from_secs(20);
/// How long a registry may take to say that it has the image.
const REGISTRY_ANSWERS: Duration = Duration::from_secs(15);
const DOWNLOAD: Duration = Duration::from_secs(600);
const BUILD: Duration = Duration::from_secs(1200);

/// The image that containers of this kind are to run. It need not exist yet.
///
/// Our own carry a fingerprint of their files, so that a changed Dockerfile is a new image.
pub(crate) fn name(kind: &ServerKind) -> Result<String, Missing> {
    if let Some(image) = kind.given_image() {
        return Ok(image);
    }
    let folder = folder(kind);
    let fingerprint = fingerprint_of_files(&folder).map_err(|error| {
        Missing::new(
            format!("can't read {} ({error})", folder.display()),
            "rebuild the tests where the project's files now are",
        )
    })?;
    Ok(format!("leasehold-testbed/{}:{fingerprint:016x}", kind.name))
}

/// Makes sure that this image is there.
pub(crate) fn provide(kind: &ServerKind, image: &str) -> Result<(), Missing> {
    if exists(image) {
        return Ok(());
    }
    if kind.given_image().is_some() {
        return download(image).map_err(|error| {
            Missing::new(
                format!("can't get the image {image} ({})", error.last_line()),
                format!("docker pull it, or unset {}_IMAGE", kind.url_variable()),
            )
        });
    }
    let base = base()?;
    let began = Instant::now();
    eprintln!("testbed: building the image {image}; about a minute, once");
    build(kind, image, base).map_err(|error| {
        Missing::new(
            format!("can't build the image of {} ({})", kind.name, error.last_line()),
            format!("see docker build --build-arg BASE={base} {}", folder(kind).display()),
        )
    })?;
    eprintln!("testbed: built {image} in {:.0?}", began.elapsed());
    Ok(())
}

fn build(kind: &ServerKind, image: &str, base: &str) -> Result<(), Error> {
    let base = format!("BASE={base}");
    let folder = folder(kind).display().to_string();
    let settings: Vec<String> = kind.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut args = vec!["build", "--tag", image, "--label", "leasehold.testbed=image"];
    args.extend(["--build-arg", &base]);
    for setting in &settings {
        args.extend(["--build-arg", setting]);
    }
    args.push(&folder);
    docker(&args, BUILD).map(drop)
}

/// A Debian to build on: one that is there, else from the registry, else made here.
fn base() -> Result<&'static str, Missing> {
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

fn folder(kind: &ServerKind) -> PathBuf {
    docker_folder().join(kind.name)
}

fn docker_folder() -> PathBuf {
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
            assert!(folder(kind).join("Dockerfile").is_file(), "{}", kind.name);
        }
    }
}
