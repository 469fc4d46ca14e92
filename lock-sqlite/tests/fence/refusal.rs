//! Transactions whose check failed, and whose user doesn't heed it.

use std::{path::Path, sync::Arc, time::Duration};

use lock_core::{
    Fence, FenceError, FenceRegister, InvalidFence, LockProvider, Pass, RefusalReason, TestObserver, ToFence,
    Transactions,
};
use lock_sqlite::{
    SqliteFences, SqliteTransactions,
    sqlx::{
        self, Connection, SqliteConnection, SqlitePool,
        sqlite::{SqliteConnectOptions, SqlitePoolOptions},
    },
};

use crate::{
    app::{append, entries, fence, immediate, pool, resource, single},
    common::{Home, TTL, ask, name, take},
};

/// A lock that was taken over, a list that has seen a later token and one that has another lock's.
struct Refusing {
    guard: SqliteTransactions,
    fences: SqliteFences,
    stale: Fence,
}

const CHECKS: [&str; 4] = ["not held", "stale", "another lock's", "used up"];

impl Refusing {
    async fn new(home: &Home, pool: &SqlitePool) -> Self {
        let locks = home.locks().await;
        let old = take(&locks, &ask("x", TTL)).await;
        locks.force_release(&name("x")).await.unwrap();
        let new = take(&locks, &ask("x", TTL)).await;
        let fences = SqliteFences::new(pool.clone()).await.unwrap();
        fences.raise(&resource("list"), &fence("x", new.token.get()), Pass::Again).await.unwrap();
        fences.raise(&resource("other"), &fence("y", 1), Pass::Again).await.unwrap();
        fences.raise(&resource("once"), &fence("x", old.token.get()), Pass::Once).await.unwrap();
        Self { guard: SqliteTransactions::new(pool.clone()), fences, stale: fence("x", old.token.get()) }
    }

    async fn check(&self, transaction: &mut sqlx::Transaction<'_, sqlx::Sqlite>, check: &str) {
        let stale = &self.stale;
        let refused = match check {
            "not held" => self.guard.hold(transaction, stale).await,
            "stale" => self.fences.admit(transaction, &resource("list"), stale, Pass::Again).await,
            "another lock's" => self.fences.admit(transaction, &resource("other"), stale, Pass::Again).await,
            _ => self.fences.admit(transaction, &resource("once"), stale, Pass::Once).await,
        };
        match (check, refused) {
            ("not held", Err(FenceError::NotHeld(_))) | ("another lock's", Err(FenceError::OtherLock(_))) => {}
            ("stale" | "used up", Err(FenceError::Stale(_))) => {}
            (_, other) => panic!("{check}: {other:?}"),
        }
    }
}

/// A temporary table made in a transaction would be the only trace that a connection could keep.
async fn traces(connection: &mut SqliteConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM sqlite_temp_schema").fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn a_commit_after_an_unheeded_refusal_keeps_nothing() {
    let home = Home::new();
    let pool = single(&home.path()).await;
    let refusing = Refusing::new(&home, &pool).await;
    for check in CHECKS {
        let mut transaction = immediate(&pool).await;
        append(&mut transaction, "before").await.unwrap();
        refusing.check(&mut transaction, check).await;
        append(&mut transaction, "after").await.unwrap();
        refusing.check(&mut transaction, check).await;
        // Nor does a check that passes make it good.
        let fine = resource("fine");
        refusing.fences.admit(&mut transaction, &fine, &refusing.stale, Pass::Again).await.unwrap();
        let error = transaction.commit().await.unwrap_err();
        println!("{check}: {error}");
        assert_eq!(entries(&pool).await, [""; 0], "{check}");
        assert_eq!(refusing.fences.highest(&fine).await.unwrap(), None, "{check}");
        assert_eq!(traces(&mut pool.acquire().await.unwrap()).await, 0, "{check}");
    }
    // The connection can be used on.
    let mut kept = immediate(&pool).await;
    append(&mut kept, "kept").await.unwrap();
    kept.commit().await.unwrap();
    assert_eq!(entries(&pool).await, ["kept"]);
}

/// As a shared lease is.
struct NoFence;

impl ToFence for NoFence {
    fn to_fence(&self) -> Result<Fence, InvalidFence> {
        "0@x".parse()
    }
}

#[tokio::test]
async fn what_is_no_fence_is_a_refusal_as_well() {
    let home = Home::new();
    let pool = single(&home.path()).await;
    let Refusing { guard, fences, .. } = Refusing::new(&home, &pool).await;
    for check in ["guard", "register"] {
        let mut transaction = immediate(&pool).await;
        append(&mut transaction, "before").await.unwrap();
        let refused = match check {
            "guard" => guard.hold(&mut transaction, &NoFence).await,
            _ => fences.admit(&mut transaction, &resource("list"), &NoFence, Pass::Again).await,
        };
        assert!(matches!(refused, Err(FenceError::Invalid(_))), "{refused:?}");
        transaction.commit().await.unwrap_err();
        assert_eq!(entries(&pool).await, [""; 0], "{check}");
    }
}

/// But what [`Transactions`] refuses, which their caller counts.
#[tokio::test]
async fn a_refusal_is_told_once_with_its_reason() {
    let home = Home::new();
    let pool = single(&home.path()).await;
    let told = Arc::new(TestObserver::default());
    let Refusing { guard, fences, stale } = Refusing::new(&home, &pool).await;
    let (guard, fences) = (guard.observer(told.clone()), fences.observer(told.clone()));
    let mut transaction = immediate(&pool).await;
    guard.hold(&mut transaction, &NoFence).await.unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::Invalid]);
    fences.admit(&mut transaction, &resource("list"), &NoFence, Pass::Again).await.unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::Invalid]);
    transaction.rollback().await.unwrap();
    let refusing = Refusing { guard, fences, stale };
    let reasons = [RefusalReason::NotHeld, RefusalReason::Stale, RefusalReason::OtherLock, RefusalReason::Used];
    for (check, reason) in CHECKS.into_iter().zip(reasons) {
        let mut transaction = immediate(&pool).await;
        refusing.check(&mut transaction, check).await;
        assert_eq!(told.refusals(), [reason], "{check}");
        transaction.rollback().await.unwrap();
    }
    refusing.guard.begin(&refusing.stale).await.map(drop).unwrap_err();
    assert_eq!(told.refusals(), []);
}

/// As everywhere, who undoes the savepoint undoes what went wrong in it; who keeps it, keeps nothing.
#[tokio::test]
async fn a_refusal_in_a_savepoint_fails_the_transaction_unless_that_is_undone() {
    let home = Home::new();
    let pool = single(&home.path()).await;
    let refusing = Refusing::new(&home, &pool).await;
    for (check, undone) in CHECKS.into_iter().flat_map(|check| [(check, true), (check, false)]) {
        let mut outer = immediate(&pool).await;
        append(&mut outer, "outer").await.unwrap();
        let mut inner = outer.begin().await.unwrap();
        append(&mut inner, "inner").await.unwrap();
        refusing.check(&mut inner, check).await;
        if undone {
            inner.rollback().await.unwrap();
            outer.commit().await.unwrap();
            assert_eq!(entries(&pool).await, ["outer"], "{check}");
            sqlx::query("DELETE FROM entries").execute(&pool).await.unwrap();
        } else {
            inner.commit().await.unwrap();
            outer.commit().await.unwrap_err();
            assert_eq!(entries(&pool).await, [""; 0], "{check}");
        }
    }
}

/// Then SQLite doesn't look for what would fail the commit.
#[tokio::test]
async fn without_foreign_keys_what_was_written_before_is_undone() {
    let home = Home::new();
    drop(pool(&home.path()).await);
    let pool = without_foreign_keys(&home.path()).await;
    let refusing = Refusing::new(&home, &pool).await;
    for (n, check) in CHECKS.into_iter().enumerate() {
        let mut outer = immediate(&pool).await;
        append(&mut outer, "before").await.unwrap();
        let mut inner = outer.begin().await.unwrap();
        append(&mut inner, "before").await.unwrap();
        refusing.check(&mut inner, check).await;
        append(&mut inner, "after").await.unwrap();
        inner.commit().await.unwrap();
        outer.commit().await.unwrap();
        assert_eq!(entries(&pool).await, vec!["after"; n + 1], "{check}");
    }
}

/// To whoever began it, it is the same transaction still.
#[tokio::test]
async fn without_foreign_keys_a_guarded_transaction_is_undone_and_stays_guarded() {
    let home = Home::new();
    drop(pool(&home.path()).await);
    let pool = without_foreign_keys(&home.path()).await;
    let refusing = Refusing::new(&home, &pool).await;
    let held = fence("y", take(&home.locks().await, &ask("y", TTL)).await.token.get());
    for commits in [true, false] {
        let mut outer = refusing.guard.begin(&held).await.unwrap();
        append(&mut outer, "before").await.unwrap();
        for kept in [true, false] {
            let mut inner = outer.begin().await.unwrap();
            refusing.check(&mut inner, "stale").await;
            if kept { inner.commit().await.unwrap() } else { inner.rollback().await.unwrap() }
        }
        append(&mut outer, "after").await.unwrap();
        if commits {
            refusing.guard.commit(outer, &held).await.unwrap();
        } else {
            refusing.guard.roll_back(outer).await.unwrap();
        }
        assert_eq!(entries(&pool).await, ["after"]);
    }
}

/// It has written nothing and can't, as long as it isn't begun anew.
#[tokio::test]
async fn a_transaction_that_can_not_have_the_write_lock_is_not_begun_anew() {
    let home = Home::new();
    let others = pool(&home.path()).await;
    let pool = without_foreign_keys(&home.path()).await;
    let refusing = Refusing::new(&home, &pool).await;
    let mut reading = pool.begin().await.unwrap();
    sqlx::query("SELECT * FROM entries").fetch_all(&mut *reading).await.unwrap();
    append(&mut others.acquire().await.unwrap(), "other's").await.unwrap();
    refusing.guard.hold(&mut reading, &refusing.stale).await.unwrap_err();
    append(&mut reading, "mine").await.unwrap_err();
    reading.commit().await.unwrap();
    assert_eq!(entries(&pool).await, ["other's"]);
}

async fn without_foreign_keys(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).foreign_keys(false).busy_timeout(Duration::from_secs(5));
    SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap()
}
