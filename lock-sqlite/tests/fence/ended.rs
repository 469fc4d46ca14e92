//! Transactions that SQLite ended by itself, as it may when a statement fails: they are told as such, and their connection
//! can be used on.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use lock_core::{Applied, ErrorKind, FenceRegister, Lease, Locks, Pass, Transactions};
use lock_sqlite::sqlx::{self, AssertSqlSafe, Connection, Sqlite, SqliteConnection, Transaction};
use tokio::sync::Notify;

use crate::{
    app::{append, entries, fence, immediate, resource, store_error},
    common::TTL,
    guarded::{Guarded, end, is_usable},
};

/// The guard went with it: that isn't told as a commit, nor as a guard, nor as a roll-back of all.
#[tokio::test]
async fn a_transaction_that_sqlite_ended_is_told_as_such() {
    let Guarded { pool, transactions, fences, fence, .. } = &Guarded::new().await;
    for check in 0..4 {
        let mut transaction = transactions.begin(fence).await.unwrap();
        append(&mut transaction, "gone").await.unwrap();
        end(&mut transaction).await;
        let error = store_error(match check {
            0 => transactions.commit(transaction, fence).await,
            1 => transactions.hold(&mut { transaction }, fence).await,
            2 => transactions.roll_back(transaction).await.map_err(Into::into),
            _ => fences.admit(&mut { transaction }, &resource("list"), fence, Pass::Again).await,
        });
        assert!(error.applied() == Applied::Maybe && error.to_string().contains("rolled it back"), "{error}");
        assert_eq!(entries(pool).await, vec!["kept"; check]);
        is_usable(pool).await;
    }
}

/// Statements after that were committed one by one; the roll-back says so.
#[tokio::test]
async fn a_roll_back_that_comes_too_late_says_that_something_may_have_been_kept() {
    let Guarded { pool, transactions, fence, .. } = &Guarded::new().await;
    let mut transaction = transactions.begin(fence).await.unwrap();
    end(&mut transaction).await;
    append(&mut transaction, "on its own").await.unwrap();
    let error = transactions.roll_back(transaction).await.unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe, "{error}");
    assert_eq!(entries(pool).await, ["on its own"]);
    // And one that was in time doesn't.
    let mut transaction = transactions.begin(fence).await.unwrap();
    append(&mut transaction, "gone").await.unwrap();
    transactions.roll_back(transaction).await.unwrap();
    assert_eq!(entries(pool).await, ["on its own"]);
    is_usable(pool).await;
}

/// How work that SQLite has undone comes to its own end.
#[derive(Clone, Copy, Debug)]
enum Left {
    Failed,
    Panicked,
    BrokenOff,
}

/// The driver rolls back what is left behind, and SQLite has nothing to roll back then.
#[tokio::test]
async fn work_that_is_left_after_sqlite_ended_its_transaction_leaves_its_connection_usable() {
    let Guarded { locks, pool, transactions, .. } = &Guarded::new().await;
    let locks = Locks::new(locks.clone());
    for (depth, left) in
        (0..3).flat_map(|depth| [Left::Failed, Left::Panicked, Left::BrokenOff].map(|left| (depth, left)))
    {
        let has_ended = Notify::new();
        let work = async |transaction: &mut Transaction<'static, Sqlite>, _: &Lease| {
            within(transaction, depth).await;
            has_ended.notify_one();
            match left {
                Left::Failed => Err::<(), _>("on purpose"),
                Left::Panicked => panic!("on purpose"),
                Left::BrokenOff => std::future::pending().await,
            }
        };
        let run = locks.lock("y").ttl(TTL).run_in_transaction(transactions, work);
        let outcome = tokio::select! {
            outcome = AssertUnwindSafe(run).catch_unwind() => Some(outcome),
            () = has_ended.notified(), if matches!(left, Left::BrokenOff) => None,
        };
        let as_meant = match (left, &outcome) {
            (Left::Failed, Some(Ok(Err(error)))) => error.applied() == Applied::Maybe,
            (Left::Panicked, Some(Err(_))) | (Left::BrokenOff, None) => true,
            _ => false,
        };
        assert!(as_meant, "{left:?} within {depth}: {outcome:?}");
        println!("{left:?} within {depth}");
        is_usable(pool).await;
    }
}

/// SQLite ends all of them at once, so many as stand in this one, and they are dropped.
async fn within(transaction: &mut SqliteConnection, depth: u32) {
    if depth == 0 {
        end(transaction).await;
    } else {
        Box::pin(within(&mut transaction.begin().await.unwrap(), depth - 1)).await;
    }
}

#[tokio::test]
async fn a_transaction_in_a_transaction_that_sqlite_ended_leaves_its_connection_usable() {
    let Guarded { pool, transactions, fence, .. } = &Guarded::new().await;
    let mut outer = transactions.begin(fence).await.unwrap();
    let mut middle = outer.begin().await.unwrap();
    let mut inner = middle.begin().await.unwrap();
    append(&mut inner, "gone").await.unwrap();
    end(&mut inner).await;
    let error = store_error(transactions.hold(&mut inner, fence).await);
    assert_eq!(error.applied(), Applied::Maybe, "{error}");
    inner.rollback().await.unwrap();
    middle.rollback().await.unwrap();
    outer.rollback().await.unwrap();
    is_usable(pool).await;
}

#[tokio::test]
async fn a_register_goes_on_after_sqlite_ended_a_step_of_it() {
    let Guarded { pool, fences, .. } = &Guarded::new().await;
    let list = resource("list");
    for (token, event) in (1..).zip(["INSERT", "UPDATE", "DELETE"]) {
        let make = format!(
            "CREATE TRIGGER ends_it BEFORE {event} ON leasehold_fences BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
        );
        sqlx::raw_sql(AssertSqlSafe(make)).execute(pool).await.unwrap();
        if event == "DELETE" {
            store_error(fences.forget(&list).await.map(|_| ()));
        } else {
            store_error(fences.raise(&list, &fence("x", token), Pass::Again).await);
            let mut transaction = immediate(pool).await;
            store_error(fences.admit(&mut transaction, &list, &fence("x", token), Pass::Again).await);
            // Whatever its user makes of it.
            if token == 1 {
                transaction.rollback().await.unwrap();
            } else {
                append(&mut transaction, "unfenced").await.unwrap();
                transaction.commit().await.unwrap_err();
                assert!(!entries(pool).await.contains(&"unfenced".to_owned()));
            }
        }
        is_usable(pool).await;
        sqlx::raw_sql("DROP TRIGGER ends_it").execute(pool).await.unwrap();
        fences.raise(&list, &fence("x", token), Pass::Again).await.unwrap();
    }
    assert!(fences.forget(&list).await.unwrap());
}

#[tokio::test]
async fn a_register_goes_on_when_the_disk_has_room_again() {
    let Guarded { pool, fences, .. } = &Guarded::new().await;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(pool).await.unwrap();
    let most = async |pages: i64| {
        let set = format!("PRAGMA max_page_count = {pages}");
        sqlx::raw_sql(AssertSqlSafe(set)).execute(pool).await.unwrap();
    };
    most(pages).await;
    let some = |n: u32| resource(&format!("{n}-{}", "x".repeat(400)));
    let mut raised = 0;
    let error = loop {
        match fences.raise(&some(raised), &fence("x", 5), Pass::Again).await {
            Ok(()) => raised += 1,
            full => break store_error(full),
        }
    };
    assert!(error.kind() == ErrorKind::NotReady && error.applied() == Applied::No, "{error}");
    assert!(error.to_string().contains("full"), "{error}");
    store_error(fences.raise(&some(raised), &fence("x", 5), Pass::Again).await);
    most(1_000_000).await;
    fences.raise(&some(raised), &fence("x", 5), Pass::Again).await.unwrap();
    is_usable(pool).await;
}

/// SQLite looks for what isn't there when it is to commit, and keeps the transaction open.
#[tokio::test]
async fn a_commit_that_breaks_a_foreign_key_has_kept_nothing() {
    let Guarded { pool, transactions, fence, .. } = &Guarded::new().await;
    let make = "CREATE TABLE notes (of INTEGER REFERENCES entries (position) DEFERRABLE INITIALLY DEFERRED)";
    sqlx::query(make).execute(pool).await.unwrap();
    let mut transaction = transactions.begin(fence).await.unwrap();
    append(&mut transaction, "gone").await.unwrap();
    sqlx::query("INSERT INTO notes VALUES (-1)").execute(&mut *transaction).await.unwrap();
    let error = store_error(transactions.commit(transaction, fence).await);
    assert_eq!(error.applied(), Applied::No, "{error}");
    assert!(error.to_string().contains("FOREIGN KEY"), "{error}");
    assert_eq!(entries(pool).await, [""; 0]);
    is_usable(pool).await;
}

/// A hook stands in for a disk that fails right then.
#[tokio::test]
async fn a_commit_that_fails_leaves_its_connection_usable() {
    let Guarded { pool, transactions, fences, fence, .. } = &Guarded::new().await;
    let fail = async |fails: bool| {
        let mut connection = pool.acquire().await.unwrap();
        let mut handle = connection.lock_handle().await.unwrap();
        if fails { handle.set_commit_hook(|| false) } else { handle.remove_commit_hook() }
    };
    for step in 0..3 {
        fences.raise(&resource("list"), fence, Pass::Again).await.unwrap();
        fail(true).await;
        store_error(match step {
            0 => {
                let mut transaction = transactions.begin(fence).await.unwrap();
                append(&mut transaction, "gone").await.unwrap();
                transactions.commit(transaction, fence).await
            }
            1 => fences.raise(&resource("other"), fence, Pass::Again).await,
            _ => fences.forget(&resource("list")).await.map(|_| ()),
        });
        fail(false).await;
        assert_eq!(entries(pool).await, vec!["kept"; step]);
        is_usable(pool).await;
    }
    assert_eq!(fences.highest(&resource("other")).await.unwrap(), None);
    assert_eq!(fences.highest(&resource("list")).await.unwrap(), Some(fence.clone()));
}
