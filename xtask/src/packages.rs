//! Debian packages that a fresh machine lacks.

use std::path::Path;
use std::process::{Command, Stdio};

/// A program that the tests need, and the package that has it.
struct Need {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const NEEDS: &[Need] = &[
    Need { program: "cc", package: "build-essential", why: "SQLite is compiled from its C source" },
    Need { program: "pip3", package: "python3-pip", why: "MongoDB's server comes from the Python package index" },
];

/// Installs what is missing.
///
/// What the testbed needs to make a base image it installs itself, for it knows whether it
/// has to make one.
pub(crate) fn install_missing() -> Result<(), String> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !is_there(need.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let reasons: Vec<String> =
        missing.iter().map(|need| format!("{} is missing ({})", need.program, need.why)).collect();
    let reasons = reasons.join(", ");
    if !is_there("apt-get") {
        return Err(format!("{reasons}: install it with this system's package manager"));
    }
    eprintln!("xtask: {reasons}; installing {}", packages.join(" "));
    let installed = as_root(&["apt-get", "update"])
        && as_root(&[&["apt-get", "install", "-y", "--no-install-recommends"], &packages[..]].concat());
    if installed { Ok(()) } else { Err(format!("{reasons}: run apt-get install {} as root", packages.join(" "))) }
}

fn as_root(command: &[&str]) -> bool {
    // sudo -n: rather fail with a sentence than wait for a password nobody types.
    let words: Vec<&str> = if is_root() { command.to_vec() } else { [&["sudo", "-n"], command].concat() };
    Command::new(words[0])
        .args(&words[1..])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}
