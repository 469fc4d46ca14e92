//! How a run of the suite shows what it could not show. This program starts itself to be such a run.

use std::{
    path::Path,
    process::{Command, ExitCode, Output},
    sync::Arc,
};

use async_trait::async_trait;
use conformance_tests::{Failure, Harness, MemoryHarness, Missing, PROPERTIES, run};
use libtest_mimic::{Arguments, Failed, Trial};
use lock_core::LockProvider;

/// Says as which run this program was started.
const RUN: &str = "LEASEHOLD_RUNS_TEST";

/// A store that isn't there.
struct Nowhere;

#[async_trait]
impl Harness for Nowhere {
    async fn open() -> Result<Self, Missing> {
        Err(Missing("no server anywhere: start one".to_owned()))
    }

    fn store(&self) -> &'static str {
        "nowhere"
    }

    async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Err(Failure::new("there is none"))
    }
}

fn main() -> ExitCode {
    match std::env::var(RUN).as_deref() {
        Ok("nowhere") => return run::<Nowhere>(),
        Ok("memory") => return run::<MemoryHarness>(),
        _ => {}
    }
    let trials = vec![
        Trial::test("a_missing_store_is_ignored_with_its_reason", missing_is_ignored),
        Trial::test("a_missing_store_fails_the_run_under_ci", missing_fails_under_ci),
        Trial::test("what_is_not_available_is_ignored_with_its_reason", lacking_is_ignored),
        Trial::test("a_list_tells_what_will_be_ignored", a_list_tells),
        Trial::test("results_are_kept_line_by_line", results_are_kept),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn start(run: &str, ci: &str, results: &Path, arguments: &[&str]) -> Result<(Output, String), Failed> {
    let output = Command::new(std::env::current_exe()?)
        .env(RUN, run)
        .env("CI", ci)
        .env("LEASEHOLD_CONFORMANCE_RESULTS", results)
        .args(arguments)
        .output()?;
    let shown = String::from_utf8(output.stdout.clone())? + &String::from_utf8(output.stderr.clone())?;
    Ok((output, shown))
}

fn check(holds: bool, shown: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("it printed:\n{shown}").into()) }
}

fn missing_is_ignored() -> Result<(), Failed> {
    let (output, shown) = start("nowhere", "", Path::new(""), &[])?;
    let ignored = format!("0 passed; 0 failed; {} ignored", PROPERTIES.len());
    check(output.status.success() && shown.contains(&ignored) && shown.contains("no server anywhere"), &shown)
}

fn missing_fails_under_ci() -> Result<(), Failed> {
    let (output, shown) = start("nowhere", "true", Path::new(""), &[])?;
    check(!output.status.success() && shown.contains("no server anywhere: start one"), &shown)
}

fn lacking_is_ignored() -> Result<(), Failed> {
    let (output, shown) = start("memory", "true", Path::new(""), &["tokens_rise_over_a_restart"])?;
    let line = "fence::tokens_rise_over_a_restart ... ignored (memory: no server to restart)";
    check(output.status.success() && shown.contains(line) && shown.contains("0 passed; 0 failed; 1 ignored"), &shown)
}

/// nextest asks so, before it runs each test in a process of its own.
fn a_list_tells() -> Result<(), Failed> {
    let (_, all) = start("memory", "", Path::new(""), &["--list", "--format", "terse"])?;
    check(all.lines().count() == PROPERTIES.len(), &all)?;
    let (_, ignored) = start("memory", "", Path::new(""), &["--list", "--format", "terse", "--ignored"])?;
    let told = |name| ignored.lines().any(|line| line == format!("{name}: test"));
    check(told("fence::tokens_rise_over_a_restart") && !told("grants::a_free_lock_is_granted"), &ignored)
}

fn results_are_kept() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    // Not there yet.
    let results = folder.path().join("of/this/run");
    for property in ["grants::a_free_lock_is_granted", "fence::tokens_rise_over_a_restart"] {
        start("memory", "", &results, &["--exact", property])?;
    }
    let kept = std::fs::read_to_string(results.join("memory.jsonl"))?;
    let lines: Vec<serde_json::Value> = kept.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let [passed, ignored] = &*lines else { return check(false, &kept) };
    let as_said = passed["property"] == "grants::a_free_lock_is_granted"
        && passed["store"] == "memory"
        && passed["outcome"] == "passed"
        && passed.get("reason").is_none()
        && passed["seconds"].is_f64()
        && ignored["outcome"] == "ignored"
        && ignored["reason"] == "memory: no server to restart";
    check(as_said, &kept)
}
