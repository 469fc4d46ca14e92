//! The copy of the sources that the mistakes are put into.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies what git knows of, or would: files that didn't change keep their times, and needn't be built again.
pub(super) fn copy_sources(root: &Path, tree: &Path) -> Result<(), String> {
    let listed = git(root, &["ls-files", "--cached", "--others", "--exclude-standard", "-z"])?;
    let listed: BTreeSet<PathBuf> =
        String::from_utf8_lossy(&listed).split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    for path in &listed {
        let (from, to) = (root.join(path), tree.join(path));
        // Deleted, and not committed yet.
        let Ok(content) = fs::read(&from) else { continue };
        if !fs::read(&to).is_ok_and(|before| before == content) {
            let folder = to.parent().unwrap_or(tree);
            fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
            fs::write(&to, content).map_err(|error| failed(&to, error))?;
        }
        // Builds run scripts of ours, and a script must be one that can be run.
        let permissions = fs::metadata(&from).map_err(|error| failed(&from, error))?.permissions();
        fs::set_permissions(&to, permissions).map_err(|error| failed(&to, error))?;
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

/// How a patch is brought to a tree.
#[derive(Clone, Copy)]
pub(super) enum Apply {
    /// Only looks whether it could be.
    Check,
    In,
    Out,
}

pub(super) fn apply(tree: &Path, patch: &Path, how: Apply) -> Result<(), String> {
    let patch = patch.display().to_string();
    let arguments = match how {
        Apply::Check => vec!["apply", "--check", &patch],
        Apply::In => vec!["apply", &patch],
        Apply::Out => vec!["apply", "--reverse", &patch],
    };
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
