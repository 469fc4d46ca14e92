//! `cargo xtask bench`: how quick each store is here.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use serde::Deserialize;

/// What the example prints.
#[derive(Debug, Deserialize)]
struct Measured {
    pair_p50_ms: f64,
    pair_p90_ms: f64,
    pairs_per_second_of_64_tasks: f64,
    hand_off_p50_ms: f64,
    hand_off_p90_ms: f64,
}

pub(crate) fn run(only: &[String]) -> Result<ExitCode, String> {
    crate::packages::install_missing()?;
    let file = std::env::temp_dir().join(format!("leasehold-bench-{}.db", std::process::id()));
    let mut urls = BTreeMap::from([
        ("memory".to_owned(), "memory:".to_owned()),
        ("sqlite".to_owned(), format!("sqlite:{}", file.display())),
    ]);
    let wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    for (name, server) in testbed::up_with_locks(wanted) {
        let server = server.map_err(|missing| missing.to_string())?;
        urls.insert(name.to_owned(), server.url().to_owned());
    }
    urls.retain(|name, _| wanted(name));
    let measured: Result<Vec<_>, String> = urls.iter().map(|(name, url)| Ok((name, measure(name, url)?))).collect();
    for end in ["", "-wal", "-shm"] {
        // What isn't there needs no removal.
        let _ = std::fs::remove_file(format!("{}{end}", file.display()));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["STORE", "PAIR p50", "p90", "PAIRS/s, 64 TASKS", "HAND-OFF p50", "p90"]);
    for (name, seen) in measured? {
        table.add_row([
            name.clone(),
            format!("{:.2} ms", seen.pair_p50_ms),
            format!("{:.2} ms", seen.pair_p90_ms),
            format!("{:.0}", seen.pairs_per_second_of_64_tasks),
            format!("{:.2} ms", seen.hand_off_p50_ms),
            format!("{:.2} ms", seen.hand_off_p90_ms),
        ]);
    }
    println!("{}", table.trim_fmt());
    println!("a pair: acquire and release of a free lock; a hand-off: from a release to the grant to another client");
    Ok(ExitCode::SUCCESS)
}

fn measure(name: &str, url: &str) -> Result<Measured, String> {
    eprintln!("xtask: measuring {name}");
    let output = crate::cargo()
        .args(["run", "--quiet", "--release", "-p", "leasehold", "--features", "full", "--example", "measure"])
        .env("LEASEHOLD_STORE", url)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")))
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("can't run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("measuring {name} failed"));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("measuring {name} gave no figures: {error}"))
}
