//! `cargo xtask test`: set up, run everything, print the table.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::{packages, programs, results::Results, table};

/// Tells the conformance suite where to write its result files.
const RESULTS_VARIABLE: &str = "LEASEHOLD_CONFORMANCE_RESULTS";

pub(crate) fn run(filters: &[String]) -> Result<ExitCode, String> {
    packages::install_missing()?;
    let servers_missing = start_servers()?;

    let directory = results_directory();
    clear(&directory)?;
    let tests = run_all(&directory, filters)?;

    let results = Results::read(&directory)?;
    println!("\n{}", table::report(&results));
    // Again, because what was printed before the tests has scrolled away.
    if let Some(line) = servers_missing {
        println!("{line}");
    } else {
        println!("the servers keep running: cargo xtask testbed down removes them");
    }
    Ok(verdict(tests, &results))
}

/// Starts the servers; where some can't be had, the answer is a line that says so.
fn start_servers() -> Result<Option<String>, String> {
    eprintln!("xtask: starting the servers; where an image is missing, that takes minutes once");
    let began = Instant::now();
    let mut missing: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, server) in testbed::up() {
        match server {
            Ok(server) => {
                eprintln!("xtask: {name} is ready at {} after {:.1?}", server.host_port(), began.elapsed())
            }
            Err(reason) => missing.entry(reason.to_string()).or_default().push(name),
        }
    }
    let Some(line) = missing_line(&missing) else {
        return Ok(None);
    };
    if in_ci() {
        return Err(format!("{line} (a failure, because CI is set)"));
    }
    eprintln!("xtask: {line}");
    Ok(Some(line))
}

/// One line, whatever is missing: each reason, and the stores whose properties it costs.
fn missing_line(missing: &BTreeMap<String, Vec<&str>>) -> Option<String> {
    let parts: Vec<String> = missing
        .iter()
        .map(|(reason, stores)| {
            format!("{reason}; therefore not run: every property that needs a server of {}", stores.join(", "))
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(" | "))
}

/// All programs, then the examples of the documentation; one failure must not leave the rest of the table empty.
fn run_all(directory: &Path, filters: &[String]) -> Result<u8, String> {
    let programs = programs::build()?;
    let failed = programs::run(programs, filters, &[(RESULTS_VARIABLE, directory)])?;
    eprintln!("xtask: cargo test --doc --workspace --all-features");
    let status = crate::cargo()
        .args(["test", "--doc", "--workspace", "--all-features", "--no-fail-fast", "--"])
        .args(filters)
        .current_dir(root())
        .status()
        .map_err(|error| format!("can't run cargo test: {error}"))?;
    for name in &failed {
        eprintln!("xtask: failed: {name}");
    }
    let documentation = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    // As cargo test has it.
    Ok(if failed.is_empty() { documentation } else { 101 })
}

/// The tests' exit code, and a failure where the results know of one that it hides.
fn verdict(tests: u8, results: &Results) -> ExitCode {
    let hidden = results.any_failed() || !results.unreadable.is_empty();
    if tests == 0 && hidden {
        return ExitCode::FAILURE;
    }
    ExitCode::from(tests)
}

fn clear(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(directory),
    }
    .map_err(|error| format!("can't clear {}: {error}", directory.display()))
}

fn results_directory() -> PathBuf {
    target().join("conformance")
}

/// Absolute, since test programs run in the directories of their crates.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |target| root().join(target))
}

pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Whether this is a CI run, by the variable that CI systems set.
fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_for_two_stores_is_said_once() {
        let missing = BTreeMap::from([("Docker is missing: install it".to_owned(), vec!["postgres", "redis"])]);
        assert_eq!(
            missing_line(&missing).as_deref(),
            Some(
                "Docker is missing: install it; therefore not run: every property that needs a server of \
                 postgres, redis"
            )
        );
    }

    #[test]
    fn nothing_missing_needs_no_line() {
        assert_eq!(missing_line(&BTreeMap::new()), None);
    }
}
