//! `cargo xtask features`: a feature of the facade brings its own store, and no other store's driver.

use std::collections::BTreeSet;

/// The features that bring something, each with the crates that only it may bring.
const FEATURES: &[(&str, &[&str])] = &[
    ("sqlite", &["lock-sqlite", "sqlx-sqlite", "libsqlite3-sys"]),
    ("postgres", &["lock-postgres", "sqlx-postgres"]),
    ("redis", &["lock-redis", "redis"]),
    ("mongo", &["lock-mongo", "mongodb", "bson"]),
    ("etcd", &["lock-etcd", "etcd-client", "tonic", "prost", "prost-build"]),
    ("zookeeper", &["lock-zookeeper", "zookeeper-client"]),
    ("macros", &["lock-macros"]),
    ("metrics", &["metrics"]),
    ("object-store", &["object_store"]),
    // What these bring besides lock-fence, a store's driver may bring as well.
    ("files", &[]),
    ("tower", &[]),
    ("axum", &[]),
];

/// Each of these brings lock-fence, and nothing else does.
const CHECKS: &[&str] = &["files", "tower", "axum", "object-store"];

/// What the facade brings by itself.
const DEFAULT: &[&str] = &["sqlite", "macros"];

pub(crate) fn check() -> Result<(), String> {
    let all: Vec<&str> = FEATURES.iter().map(|(feature, _)| *feature).collect();
    look("none", &["--no-default-features"], &[])?;
    look("default", &[], DEFAULT)?;
    for feature in &all {
        look(feature, &["--no-default-features", "--features", feature], &[feature])?;
    }
    look("full", &["--no-default-features", "--features", "full"], &all)
}

/// Looks at the tree of one choice: all crates of what was chosen are in it, and none of what wasn't.
fn look(choice: &str, arguments: &[&str], chosen: &[&str]) -> Result<(), String> {
    let tree = crate::cargo()
        .args(["tree", "--package", "leasehold", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .output()
        .map_err(|error| format!("can't run cargo tree: {error}"))?;
    if !tree.status.success() {
        return Err(format!("cargo tree: {}", String::from_utf8_lossy(&tree.stderr)));
    }
    let text = String::from_utf8_lossy(&tree.stdout);
    let crates: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    for (feature, brings) in FEATURES {
        for each in *brings {
            match (chosen.contains(feature), crates.contains(each)) {
                (true, false) => return Err(format!("{choice}: {each} is missing, which {feature} brings")),
                (false, true) => return Err(format!("{choice}: {each} is there, which only {feature} may bring")),
                _ => {}
            }
        }
    }
    if chosen.iter().any(|feature| CHECKS.contains(feature)) != crates.contains("lock-fence") {
        return Err(format!("{choice}: lock-fence is missing, or there without a feature that needs it"));
    }
    println!("{choice}: {} crates, nothing of what wasn't chosen", crates.len());
    Ok(())
}
