//! `cargo xtask seeded-bugs`: real mistakes, put back in one at a time, and who catches them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::Instant;

use comfy_table::{Table, presets};

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
    let commands: BTreeSet<&[String]> = bugs.iter().map(|bug| &*bug.caught_by).collect();
    for command in commands {
        eprintln!("xtask: without a bug: {}", command.join(" "));
        let (sound, seconds) = try_out(&tree, command)?;
        if !sound.status.success() {
            return Err(format!(
                "red without any bug: {}\n{}",
                command.join(" "),
                evidence(&sound).unwrap_or_default()
            ));
        }
        eprintln!("xtask: green in {seconds:.1} s");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["BUG", "CAUGHT", "IN", "BY"]);
    let mut missed = 0;
    for bug in &bugs {
        apply(&tree, &bug.patch, false)?;
        let tried = try_out(&tree, &bug.caught_by);
        apply(&tree, &bug.patch, true)?;
        let (output, seconds) = tried?;
        // By a check that says so: one that was killed, or only failed, shows nothing.
        let said = evidence(&output).filter(|_| output.status.code().is_some_and(|code| code != 0));
        let caught = said.is_some();
        missed += usize::from(!caught);
        let by = said.unwrap_or_else(|| format!("{} by {}", output.status, bug.caught_by.join(" ")));
        let caught = if caught { "yes" } else { "NO" };
        eprintln!("xtask: {}: caught: {caught}, in {seconds:.1} s: {by}", bug.name);
        table.add_row([bug.name.clone(), caught.to_owned(), format!("{seconds:.1} s"), by]);
    }
    println!("{}", table.trim_fmt());
    println!("{} of {} caught", bugs.len() - missed, bugs.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

/// Copies what git knows of, or would: files that didn't change keep their times, and needn't be built again.
fn copy_sources(root: &Path, tree: &Path) -> Result<(), String> {
    let listed = git(root, &["ls-files", "--cached", "--others", "--exclude-standard", "-z"])?;
    let listed: BTreeSet<PathBuf> =
        String::from_utf8_lossy(&listed).split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    for path in &listed {
        let (from, to) = (root.join(path), tree.join(path));
        // Deleted, and not committed yet.
        let Ok(content) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|before| before == content) {
            continue;
        }
        let folder = to.parent().unwrap_or(tree);
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        fs::write(&to, content).map_err(|error| failed(&to, error))?;
    }
    // A repository of its own: what git applies there must not look for the one around it.
    if !tree.join(".git").exists() {
        git(tree, &["init", "--quiet"])?;
    }
    remove_others(tree, tree, &listed).map_err(|error| failed(tree, error))
}

/// Removes what is no source any more.
fn remove_others(tree: &Path, folder: &Path, listed: &BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(tree).unwrap_or(&path);
        if name == Path::new(".git") {
            continue;
        }
        if path.is_dir() {
            remove_others(tree, &path, listed)?;
        } else if !listed.contains(name) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn apply(tree: &Path, patch: &Path, back: bool) -> Result<(), String> {
    let patch = patch.display().to_string();
    let arguments = if back { vec!["apply", "--reverse", &patch] } else { vec!["apply", &patch] };
    git(tree, &arguments).map(drop)
}

fn git(folder: &Path, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new("git").args(arguments).current_dir(folder).output();
    let output = output.map_err(|error| format!("can't run git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)));
    }
    Ok(output.stdout)
}

/// Builds what the command needs, which must succeed, and then runs it; how long the run took.
fn try_out(tree: &Path, command: &[String]) -> Result<(Output, f64), String> {
    let [program, task, rest @ ..] = command else {
        return Err("a command is `cargo run …` or `cargo test …`".to_owned());
    };
    let to_build: Vec<&str> = match (program.as_str(), task.as_str()) {
        ("cargo", "run") => vec!["build"],
        ("cargo", "test") => vec!["test", "--no-run"],
        _ => return Err(format!("a command is `cargo run …` or `cargo test …`, not `{}`", command.join(" "))),
    };
    let what = rest.iter().take_while(|argument| *argument != "--");
    let built = cargo(tree).args(to_build).arg("--quiet").args(what).output();
    let built = built.map_err(|error| format!("can't run cargo: {error}"))?;
    if !built.status.success() {
        return Err(format!("it does not build:\n{}", String::from_utf8_lossy(&built.stderr)));
    }
    let begun = Instant::now();
    let output = cargo(tree).arg(task).arg("--quiet").args(rest).output();
    let output = output.map_err(|error| format!("can't run cargo: {error}"))?;
    Ok((output, begun.elapsed().as_secs_f64()))
}

fn cargo(tree: &Path) -> Command {
    let mut cargo = crate::cargo();
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", tree.with_file_name("build"));
    cargo
}

/// The line that says which law or test it was.
fn evidence(output: &Output) -> Option<String> {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let telling = |line: &&str| line.contains(" breaks ") || line.ends_with("FAILED") || line.contains("panicked at");
    out.lines().chain(error.lines()).find(telling).map(str::to_owned)
}
