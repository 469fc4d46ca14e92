//! Data in an SQLite file, fenced by locks that are kept anywhere.

use std::time::Duration;

use lock_core::{Applied, ErrorKind, FenceError, FenceRegister, Pass};
use lock_sqlite::{
    SqliteFences,
    sqlx::{self, AssertSqlSafe, sqlite::SqliteJournalMode},
};

use crate::{
    app::{append, entries, fence, immediate, pool, pool_in, resource, store_error},
    common::Home,
};

fn is_stale(outcome: &Result<(), FenceError>) -> bool {
    matches!(outcome, Err(FenceError::Stale(_)))
}

#[tokio::test]
async fn tokens_never_fall_and_the_fence_is_raised_with_the_write() {
    let home = Home::new();
    let pool = pool(&home.path()).await;
    let fences = SqliteFences::new(pool.clone()).await.unwrap();
    let list = resource("list");
    let write = async |token: u64, pass| {
        let mut transaction = immediate(&pool).await;
        fences.admit(&mut transaction, &list, &fence("x", token), pass).await?;
        append(&mut transaction, &token.to_string()).await.unwrap();
        transaction.commit().await.unwrap();
        Ok(())
    };
    let highest = async || fences.highest(&list).await.unwrap().map(|fence| fence.token().get());
    assert_eq!(highest().await, None);
    for token in [5, 5, 7] {
        write(token, Pass::Again).await.unwrap();
    }
    for (token, pass) in [(6, Pass::Again), (5, Pass::Again), (7, Pass::Once)] {
        let refused = write(token, pass).await;
        assert!(is_stale(&refused), "{token}: {refused:?}");
    }
    write(8, Pass::Once).await.unwrap();
    let max = i64::MAX as u64;
    write(max, Pass::Again).await.unwrap();
    assert!(is_stale(&write(max - 1, Pass::Again).await));
    assert_eq!(highest().await, Some(max));
    assert_eq!(entries(&pool).await, ["5", "5", "7", "8", &max.to_string()]);

    // Undone with the write, it was not seen.
    let other = resource("other");
    let mut transaction = immediate(&pool).await;
    fences.admit(&mut transaction, &other, &fence("y", 9), Pass::Again).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(fences.highest(&other).await.unwrap(), None);
    fences.raise(&other, &fence("y", 3), Pass::Again).await.unwrap();
}

#[tokio::test]
async fn tokens_of_another_lock_are_refused_until_the_fence_is_forgotten() {
    let home = Home::new();
    let pool = pool(&home.path()).await;
    let fences = SqliteFences::new(pool.clone()).await.unwrap();
    let list = resource("list");
    fences.raise(&list, &fence("x", 5), Pass::Again).await.unwrap();
    // Names differ in their case, and by what looks like nothing.
    for lock in ["y", "X", "x ", "é"] {
        let mut transaction = immediate(&pool).await;
        let refused = fences.admit(&mut transaction, &list, &fence(lock, 6), Pass::Again).await;
        assert!(
            matches!(&refused, Err(FenceError::OtherLock(other)) if other.fenced_by.as_str() == "x"),
            "{refused:?}"
        );
        transaction.commit().await.unwrap_err();
        assert_eq!(fences.highest(&list).await.unwrap(), Some(fence("x", 5)));
        // Resources are told apart as well.
        fences.raise(&resource(lock), &fence(lock, 6), Pass::Again).await.unwrap();
    }
    assert!(fences.forget(&list).await.unwrap());
    assert!(!fences.forget(&list).await.unwrap());
    fences.raise(&list, &fence("y", 1), Pass::Once).await.unwrap();
    assert_eq!(fences.highest(&list).await.unwrap(), Some(fence("y", 1)));
    assert_eq!(fences.highest(&resource("X")).await.unwrap(), Some(fence("X", 6)));
}

/// The new holder raises before it reads; from then on the old one's writes are refused, whenever they were begun.
#[tokio::test]
async fn a_transaction_that_read_before_a_raise_writes_nothing() {
    let home = Home::new();
    let pool = pool(&home.path()).await;
    let fences = SqliteFences::new(pool.clone()).await.unwrap();
    let list = resource("list");
    fences.raise(&list, &fence("x", 5), Pass::Again).await.unwrap();
    let mut read_before = pool.begin().await.unwrap();
    let read = "SELECT token FROM leasehold_fences";
    sqlx::query(read).fetch_all(&mut *read_before).await.unwrap();
    let mut begun_before = pool.begin().await.unwrap();
    fences.raise(&list, &fence("x", 6), Pass::Again).await.unwrap();

    let error = store_error(fences.admit(&mut read_before, &list, &fence("x", 5), Pass::Again).await);
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    append(&mut read_before, "stale").await.unwrap_err();
    read_before.commit().await.unwrap_err();
    assert!(is_stale(&fences.admit(&mut begun_before, &list, &fence("x", 5), Pass::Again).await));
    drop(begun_before);
    assert_eq!(entries(&pool).await, [""; 0]);
}

/// Also where nothing is raised: otherwise a new holder could raise and read between the old one's check and its commit.
#[tokio::test]
async fn an_admitted_transaction_keeps_others_from_raising_until_it_ends() {
    for mode in [SqliteJournalMode::Wal, SqliteJournalMode::Delete] {
        let home = Home::new();
        let pool = pool_in(&home.path(), mode).await;
        let fences = SqliteFences::new(pool.clone()).await.unwrap();
        let list = resource("list");
        fences.raise(&list, &fence("x", 5), Pass::Again).await.unwrap();
        let mut transaction = pool.begin().await.unwrap();
        fences.admit(&mut transaction, &list, &fence("x", 5), Pass::Again).await.unwrap();
        let raise = tokio::spawn({
            let (fences, pool) = (fences.clone(), pool.clone());
            async move {
                fences.raise(&resource("list"), &fence("x", 6), Pass::Again).await.unwrap();
                entries(&pool).await
            }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!raise.is_finished(), "raised in the middle of an admitted transaction");
        append(&mut transaction, "5").await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(raise.await.unwrap(), ["5"], "the new holder reads all that the old one was let to write");
        let now: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&pool).await.unwrap();
        assert_eq!(now, if mode == SqliteJournalMode::Wal { "wal" } else { "delete" }, "it stays as it was");
    }
}

#[tokio::test]
async fn a_register_that_holds_nonsense_is_corrupt_and_nothing_is_written() {
    let home = Home::new();
    let pool = pool(&home.path()).await;
    let fences = SqliteFences::new(pool.clone()).await.unwrap();
    let list = resource("list");
    let long = format!("lock = '{}'", "x".repeat(513));
    for nonsense in ["token = -1", "token = 0", "lock = ''", &long] {
        fences.raise(&list, &fence("x", 5), Pass::Again).await.unwrap();
        let spoil = format!("PRAGMA ignore_check_constraints = ON; UPDATE leasehold_fences SET {nonsense}");
        sqlx::raw_sql(AssertSqlSafe(spoil)).execute(&mut home.sql().await).await.unwrap();
        let mut transaction = immediate(&pool).await;
        let error = store_error(fences.admit(&mut transaction, &list, &fence("x", 6), Pass::Again).await);
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{nonsense}: {error}");
        transaction.commit().await.unwrap_err();
        let unchanged = format!("SELECT count(*) FROM leasehold_fences WHERE {nonsense}");
        let unchanged: i64 = sqlx::query_scalar(AssertSqlSafe(unchanged)).fetch_one(&pool).await.unwrap();
        assert_eq!(unchanged, 1, "{nonsense}");
        let error = store_error(fences.highest(&list).await.map(|_| ()));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{nonsense}: {error}");
        assert!(fences.forget(&list).await.unwrap());
    }
}

#[tokio::test]
async fn a_table_of_other_types_is_corrupt_and_one_of_other_columns_is_not_ours() {
    let home = Home::new();
    let pool = pool(&home.path()).await;
    let list = resource("list");
    let make = "CREATE TABLE leasehold_fences (resource PRIMARY KEY, lock, token)";
    sqlx::query(make).execute(&pool).await.unwrap();
    let fences = SqliteFences::new(pool.clone()).await.unwrap();
    for row in
        ["('list', 'x', 'five')", "('list', 'x', 5.5)", "('list', 'x', NULL)", "('list', NULL, 5)", "('list', 5, 5)"]
    {
        let insert = format!("INSERT OR REPLACE INTO leasehold_fences VALUES {row}");
        sqlx::raw_sql(AssertSqlSafe(insert)).execute(&pool).await.unwrap();
        let mut transaction = immediate(&pool).await;
        let error = store_error(fences.admit(&mut transaction, &list, &fence("x", 6), Pass::Again).await);
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{row}: {error}");
    }
    // What can't be read doesn't hide that the transaction isn't one any more.
    for _ in 0..20 {
        let mut transaction = immediate(&pool).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut *transaction).await.unwrap();
        let error = store_error(fences.admit(&mut transaction, &list, &fence("x", 6), Pass::Again).await);
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Other, Applied::Maybe), "{error}");
    }
    sqlx::raw_sql("DROP TABLE leasehold_fences; CREATE TABLE leasehold_fences (mine)").execute(&pool).await.unwrap();
    let error = SqliteFences::new(pool.clone()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotReady && error.to_string().contains("not of this program"), "{error}");
    sqlx::raw_sql("DROP TABLE leasehold_fences").execute(&pool).await.unwrap();
    let mut transaction = immediate(&pool).await;
    let error = store_error(fences.admit(&mut transaction, &list, &fence("x", 6), Pass::Again).await);
    assert!(error.kind() == ErrorKind::NotReady && error.to_string().contains("no table"), "{error}");
}

#[tokio::test]
async fn a_register_opened_by_its_path_is_the_same_one() {
    let home = Home::new();
    let url = format!("sqlite:{}", home.path().display());
    let fences = SqliteFences::connect(&url).await.unwrap();
    fences.raise(&resource("list"), &fence("x", 5), Pass::Again).await.unwrap();
    let pool = pool(&home.path()).await;
    let same = SqliteFences::new(pool.clone()).await.unwrap();
    let mut transaction = immediate(&pool).await;
    assert!(is_stale(&same.admit(&mut transaction, &resource("list"), &fence("x", 4), Pass::Again).await));
    drop(transaction);
    let error = SqliteFences::connect("sqlite:/no/such/directory/app.db").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
    // Many may make it at once.
    let fresh = Home::new();
    let path = fresh.path().to_str().unwrap().to_owned();
    let open = |_| {
        let path = path.clone();
        tokio::spawn(async move { SqliteFences::connect(&path).await })
    };
    for opened in (0..8).map(open).collect::<Vec<_>>() {
        opened.await.unwrap().unwrap();
    }
}
