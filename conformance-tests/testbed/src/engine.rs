//! The Docker engine: is it there, does it answer, and if not, can we start it.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::docker;
use crate::{Error, Missing, lock};

const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
const STARTS_WITHIN: Duration = Duration::from_secs(40);

/// Makes sure that the engine answers; starts it where we may.
pub(crate) fn ready() -> Result<(), Missing> {
    match ask() {
        Ok(()) => Ok(()),
        Err(error) => match diagnose(&error) {
            Trouble::NotInstalled => Err(Missing::new(
                "Docker is missing",
                "install it (Debian, Ubuntu: apt-get install docker.io), or point \
                 LEASEHOLD_TEST_<SERVER> at a server that runs",
            )),
            Trouble::Forbidden => Err(Missing::new(
                "this user may not speak to the Docker engine",
                "run as root, or log in again after usermod -aG docker \"$USER\"",
            )),
            Trouble::Silent if start() => Ok(()),
            Trouble::Silent => Err(Missing::new(
                format!("the Docker engine doesn't answer ({})", error.last_line()),
                "start it as root with systemctl start docker, or dockerd &; if DOCKER_HOST is set, check it",
            )),
        },
    }
}

enum Trouble {
    NotInstalled,
    Forbidden,
    Silent,
}

fn diagnose(error: &Error) -> Trouble {
    match error {
        Error::NotRun { source, .. } if source.kind() == io::ErrorKind::NotFound => Trouble::NotInstalled,
        Error::Failed { stderr, .. } if stderr.contains("permission denied") => Trouble::Forbidden,
        _ => Trouble::Silent,
    }
}

/// Asks for the *server's* version: the command alone answers without an engine.
fn ask() -> Result<(), Error> {
    docker(&["version", "--format", "{{.Server.Version}}"], ANSWERS_WITHIN).map(drop)
}

/// Tries to start the engine of this machine; whether it answers then.
fn start() -> bool {
    // Who waited for another's attempt has its answer.
    let _lock = lock::machine("engine");
    if ask().is_ok() {
        return true;
    }
    // An engine somewhere else isn't ours to start.
    if std::env::var_os("DOCKER_HOST").is_some() || !is_root() {
        return false;
    }
    let begun = if Path::new("/run/systemd/system").exists() {
        Command::new("systemctl")
            .args(["start", "docker"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    } else {
        dockerd().is_some_and(|path| spawn_daemon(&path).is_ok())
    };
    begun && await_answer()
}

fn spawn_daemon(path: &Path) -> io::Result<()> {
    let log = std::env::temp_dir().join("leasehold-testbed-dockerd.log");
    eprintln!("testbed: starting the Docker engine, which logs to {}", log.display());
    let log = File::create(log)?;
    // A process group of its own: Ctrl-C in the tests must not end the engine.
    let mut child =
        Command::new(path).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).spawn()?;
    // Somebody has to collect it should it end; it normally outlives us.
    thread::spawn(move || child.wait());
    Ok(())
}

fn await_answer() -> bool {
    let deadline = Instant::now() + STARTS_WITHIN;
    while Instant::now() < deadline {
        if ask().is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(250));
    }
    false
}

fn dockerd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/bin".into()])
        .map(|folder| folder.join("dockerd"))
        .find(|file| file.is_file())
}

fn is_root() -> bool {
    crate::command::run("id", &["-u"], Duration::from_secs(5)).is_ok_and(|uid| uid.trim() == "0")
}
