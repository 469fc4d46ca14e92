//! `cargo xtask seeded-bugs`: real mistakes, put back in one at a time, and who catches them.

mod tree;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::{Table, presets};

use tree::{Apply, apply, copy_sources};
use trial::{Tried, try_out};

/// What `--help` tells beyond the options.
pub(crate) const AFTER_HELP: &str = "\
Each command is shown to be green without a mistake first. Then each mistake is put in, what it changed is built, and its
command is run, for five minutes at most. A mistake counts as caught only if a test or a law says that it was broken: not if
the run ends otherwise, hangs, or doesn't build.

Those in seeded-bugs/stores need the servers of the testbed, which they start where they aren't running.

Examples:
  cargo xtask seeded-bugs                   all of them
  cargo xtask seeded-bugs core/             those in seeded-bugs/core
  cargo xtask seeded-bugs redlock mongo     those whose name contains one of these";

/// A patch file: lines that say what it is, then a diff.
struct Bug {
    name: String,
    patch: PathBuf,
    /// The command that is to go red.
    caught_by: Vec<String>,
}

const CAUGHT_BY: &str = "Caught by: ";

pub(crate) fn run(only: &[String]) -> Result<ExitCode, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut bugs = bugs(&root.join("seeded-bugs"))?;
    bugs.retain(|bug| only.is_empty() || only.iter().any(|name| bug.name.contains(name)));
    if bugs.is_empty() {
        return Err("no seeded bug has such a name".to_owned());
    }
    // Copied, so that the tree that somebody works in stays as it is. The target folder is kept: each patch changes a file
    // or two.
    let tree = root.join("target/seeded-bugs/tree");
    copy_sources(root, &tree)?;
    for bug in &bugs {
        apply(&tree, &bug.patch, Apply::Check)?;
    }
    let red = red_anyway(&tree, &bugs)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["BUG", "CAUGHT", "IN", "BY"]);
    let mut missed = 0;
    for bug in &bugs {
        if let Some(why) = red.get(&*bug.caught_by) {
            missed += 1;
            table.add_row([bug.name.clone(), "NO".to_owned(), String::new(), format!("red without any bug: {why}")]);
            continue;
        }
        apply(&tree, &bug.patch, Apply::In)?;
        let tried = try_out(&tree, &bug.caught_by);
        apply(&tree, &bug.patch, Apply::Out)?;
        let (said, otherwise, seconds) = match tried? {
            Tried::NotBuilt(errors) => {
                eprintln!("{errors}");
                (None, "it doesn't build".to_owned(), 0.0)
            }
            Tried::Ran(run) => (run.red(), format!("{}: {}", run.ended(), bug.caught_by.join(" ")), run.seconds),
        };
        let caught = if said.is_some() { "yes" } else { "NO" };
        missed += usize::from(said.is_none());
        let by = said.unwrap_or(otherwise);
        eprintln!("xtask: {}: caught: {caught}, in {seconds:.1} s: {by}", bug.name);
        table.add_row([bug.name.clone(), caught.to_owned(), format!("{seconds:.1} s"), by]);
    }
    println!("{}", table.trim_fmt());
    println!("{} of {} caught", bugs.len() - missed, bugs.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each command once, without a bug: what is red anyway, and why, catches nothing.
fn red_anyway<'a>(tree: &Path, bugs: &'a [Bug]) -> Result<BTreeMap<&'a [String], String>, String> {
    let commands: BTreeSet<&[String]> = bugs.iter().map(|bug| &*bug.caught_by).collect();
    let mut red = BTreeMap::new();
    for command in commands {
        eprintln!("xtask: without a bug: {}", command.join(" "));
        let run = match try_out(tree, command)? {
            Tried::NotBuilt(errors) => return Err(format!("it doesn't build:\n{errors}")),
            Tried::Ran(run) => run,
        };
        if run.is_green() {
            eprintln!("xtask: green in {:.1} s", run.seconds);
        } else {
            let why = run.red().unwrap_or_else(|| run.ended());
            eprintln!("xtask: red without any bug: {why}\n{}", run.last_lines());
            red.insert(command, why);
        }
    }
    Ok(red)
}

fn bugs(folder: &Path) -> Result<Vec<Bug>, String> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| format!("{}: {error}", path.display())
    };
    let mut bugs = Vec::new();
    for group in fs::read_dir(folder).map_err(failed(folder))? {
        let group = group.map_err(failed(folder))?.path();
        if !group.is_dir() {
            continue;
        }
        for patch in fs::read_dir(&group).map_err(failed(&group))? {
            let patch = patch.map_err(failed(&group))?.path();
            if patch.extension().is_none_or(|extension| extension != "patch") {
                continue;
            }
            let text = fs::read_to_string(&patch).map_err(failed(&patch))?;
            let command = text.lines().find_map(|line| line.strip_prefix(CAUGHT_BY));
            let command = command.ok_or_else(|| format!("{} has no line \"{CAUGHT_BY}\"", patch.display()))?;
            let name = patch.strip_prefix(folder).unwrap_or(&patch).with_extension("").display().to_string();
            bugs.push(Bug { name, patch, caught_by: command.split_whitespace().map(str::to_owned).collect() });
        }
    }
    bugs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(bugs)
}
