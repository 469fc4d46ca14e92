//! Where a file of locks can't be: one clear line each, and nothing half-made.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use common::{Home, TTL, ask, take};
use lock_core::{ErrorKind, Operation, StoreError};
use lock_sqlite::{SqliteLocks, sqlx};

async fn refusal(path: &Path) -> StoreError {
    let error = SqliteLocks::connect(path.to_str().unwrap()).await.unwrap_err();
    assert_eq!((error.store(), error.operation()), (Some("sqlite"), Some(Operation::Connect)));
    error
}

async fn assert_refused(path: &Path, named: &Path, advice: &str) {
    let error = refusal(path).await;
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
    let line = error.to_string();
    assert!(line.starts_with(&format!("sqlite: {} ", named.display())), "{line}");
    assert!(line.contains(advice) && !line.contains('\n'), "{line}");
}

#[tokio::test]
async fn a_missing_directory_is_named_and_not_made() {
    let home = Home::new();
    let missing = home.directory.path().join("missing");
    assert_refused(&missing.join("locks.db"), &missing, "create the directory").await;
    assert!(home.files().is_empty());
    SqliteLocks::builder(missing.join("deeper/locks.db")).create_directory(true).build().await.unwrap();
    let mode = std::fs::metadata(missing.join("deeper")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_directory_is_not_a_file() {
    let home = Home::new();
    assert_refused(home.directory.path(), home.directory.path(), "name a file in it").await;
    assert_refused(Path::new("/dev/null"), Path::new("/dev/null"), "not a regular file").await;
    std::fs::write(home.path(), "").unwrap();
    assert_refused(&home.path().join("locks.db"), &home.path(), "is not a directory").await;
    assert_eq!(refusal(Path::new("/")).await.kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn a_read_only_file_is_told_even_to_root() {
    let home = Home::new();
    drop(home.locks().await);
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o444)).unwrap();
    assert_refused(&home.path(), &home.path(), "make it writable").await;
}

#[tokio::test]
async fn a_read_only_directory_is_told_even_to_root() {
    let home = Home::new();
    let directory = home.directory.path();
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o555)).unwrap();
    assert_refused(&home.path(), directory, "make it writable").await;
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
    assert!(home.files().is_empty());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let home = Home::new();
    let text = "not a database, and long enough to be looked at as one. ".repeat(20);
    std::fs::write(home.path(), &text).unwrap();
    assert_refused(&home.path(), &home.path(), "is not an SQLite database").await;
    assert_eq!(std::fs::read_to_string(home.path()).unwrap(), text);
    assert_eq!(home.files(), ["locks.db"]);
}

#[tokio::test]
async fn what_names_no_file_is_refused() {
    for bad in ["", "sqlite:", "sqlite::memory:", ":memory:", "file:x.db", "postgres://app@db/x"] {
        let error = SqliteLocks::connect(bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bad}: {error}");
    }
    assert!(SqliteLocks::connect("sqlite::memory:").await.unwrap_err().to_string().contains("the store memory:"));
    let short = SqliteLocks::builder("x.db").retention(Duration::from_secs(3600)).build().await.unwrap_err();
    assert_eq!(short.kind(), ErrorKind::InvalidConfig);
    let never = SqliteLocks::builder("x.db").busy_timeout(Duration::ZERO).build().await.unwrap_err();
    assert_eq!(never.kind(), ErrorKind::InvalidConfig);
    assert!(!PathBuf::from("x.db").exists());
}

#[tokio::test]
async fn urls_and_odd_file_names_lead_to_the_file_they_name() {
    let home = Home::new();
    let directory = home.directory.path().display();
    SqliteLocks::connect(&format!("sqlite:{directory}/a.db")).await.unwrap();
    SqliteLocks::connect(&format!("sqlite://{directory}/b%20%3Fmode=memory.db")).await.unwrap();
    SqliteLocks::connect(&format!("{directory}/c%20#?.db")).await.unwrap();
    let files: Vec<_> = home.files().into_iter().filter(|file| file.ends_with(".db")).collect();
    assert_eq!(files, ["a.db", "b ?mode=memory.db", "c%20#?.db"]);
}

#[tokio::test]
async fn an_applications_database_keeps_its_tables_and_versions() {
    let home = Home::new();
    let mut theirs = home.sql().await;
    let setup = "CREATE TABLE accounts (id); PRAGMA user_version = 7; PRAGMA application_id = 99;";
    sqlx::raw_sql(setup).execute(&mut theirs).await.unwrap();
    let locks = home.locks().await;
    take(&locks, &ask("x", TTL)).await;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut theirs).await.unwrap();
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut theirs).await.unwrap();
    assert_eq!((version, tables), (7, ["accounts", "leasehold_locks", "leasehold_schema"].map(String::from).to_vec()));
}

async fn journal_mode(home: &Home) -> String {
    sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut home.sql().await).await.unwrap()
}

#[tokio::test]
async fn a_newer_schema_and_strange_tables_are_refused() {
    let home = Home::new();
    drop(home.locks().await);
    sqlx::query("UPDATE leasehold_schema SET version = 2").execute(&mut home.sql().await).await.unwrap();
    assert_refused(&home.path(), &home.path(), "upgrade this program").await;

    let home = Home::new();
    sqlx::query("CREATE TABLE leasehold_locks (mine)").execute(&mut home.sql().await).await.unwrap();
    assert_refused(&home.path(), &home.path(), "not of this program").await;
    assert_eq!(journal_mode(&home).await, "delete", "a file that is refused is not changed");

    let home = Home::new();
    let utf16 = "PRAGMA encoding = 'UTF-16'; CREATE TABLE accounts (id);";
    sqlx::raw_sql(utf16).execute(&mut home.sql().await).await.unwrap();
    assert_refused(&home.path(), &home.path(), "in UTF-16").await;
    assert_eq!(journal_mode(&home).await, "delete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_open_a_new_file_at_once() {
    let home = Home::new();
    let path = home.path();
    let open = |at: usize| {
        let path = path.clone();
        tokio::spawn(async move {
            let locks = SqliteLocks::builder(path).build().await.unwrap();
            take(&locks, &ask(&at.to_string(), TTL)).await
        })
    };
    for opened in (0..12).map(open).collect::<Vec<_>>() {
        opened.await.unwrap();
    }
}
