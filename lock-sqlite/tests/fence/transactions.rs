//! Work in a transaction under a lock: all of it or nothing.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use lock_core::{
    Applied, Clock, FenceError, Lease, LockError, LockProvider, Locks, SystemClock, TestClock, TransactionError,
    Transactions,
};
use lock_sqlite::{
    SqliteLocks, SqliteTransactions,
    sqlx::{self, Sqlite, Transaction},
};

use crate::{
    app::{append, entries, fence, pool},
    common::{Home, TTL, ask, is_held, take},
};

type Tx = Transaction<'static, Sqlite>;

#[tokio::test]
async fn work_is_kept_as_a_whole_or_not_at_all() {
    let home = Home::new();
    let locks = Locks::new(home.locks().await);
    let pool = pool(&home.path()).await;
    let transactions = SqliteTransactions::new(pool.clone());
    let lock = || locks.lock("x").ttl(TTL);
    let token = lock().run_in_transaction(&transactions, async |tx: &mut Tx, lease: &Lease| {
        append(tx, "a").await?;
        append(tx, "b").await?;
        Ok::<_, sqlx::Error>(lease.token())
    });
    let token = token.await.unwrap();
    let failed = lock().run_in_transaction(&transactions, async |tx: &mut Tx, lease: &Lease| {
        assert!(lease.token() > token);
        append(tx, "c").await?;
        sqlx::query("INSERT INTO entries (entry) VALUES (NULL)").execute(&mut **tx).await.map(|_| ())
    });
    let error = failed.await.unwrap_err();
    assert!(matches!(error, TransactionError::Work(sqlx::Error::Database(_))), "{error}");
    assert_eq!(error.applied(), Applied::No);
    assert_eq!(entries(&pool).await, ["a", "b"]);
    assert!(!is_held(&home.locks().await, "x").await);
}

/// The transaction keeps the lease's own renewals out, so work that takes longer than the ttl is broken off and undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_outlasts_its_lease_is_undone_before_anybody_else_is_granted() {
    let home = Home::new();
    let locks = Locks::new(home.locks().await);
    let pool = pool(&home.path()).await;
    let transactions = SqliteTransactions::new(pool.clone());
    let (begun_at, ttl) = (SystemClock.now(), Duration::from_secs(1));
    let outcome = locks.lock("x").ttl(ttl).run_in_transaction(&transactions, async |tx: &mut Tx, _: &Lease| {
        append(tx, "a").await?;
        tokio::time::sleep(Duration::from_secs(30)).await;
        Ok::<_, sqlx::Error>(())
    });
    let error = outcome.await.unwrap_err();
    assert!(matches!(error, TransactionError::Lock(LockError::Lost(_))), "{error}");
    println!("work of 30 s under a ttl of 1 s: undone at +{} ms", SystemClock.now().since(begun_at).as_millis());
    let wait = Duration::from_secs(30);
    let _next = locks.lock("x").ttl(TTL).wait_at_most(wait).acquire().await.unwrap();
    assert_eq!(entries(&pool).await, [""; 0]);
}

/// Its clock decides, also at the commit.
#[tokio::test]
async fn a_lease_that_ends_before_the_commit_undoes_it() {
    let home = Home::new();
    let clock = Arc::new(TestClock::new());
    let locks = SqliteLocks::builder(home.path()).clock(clock.clone()).build().await.unwrap();
    let pool = pool(&home.path()).await;
    let transactions = SqliteTransactions::new(pool.clone()).clock(clock.clone());
    for in_time in [true, false] {
        let grant = take(&locks, &ask("x", TTL)).await;
        let fence = fence("x", grant.token.get());
        let mut transaction = transactions.begin(&fence).await.unwrap();
        append(&mut transaction, if in_time { "in time" } else { "late" }).await.unwrap();
        clock.suspend(if in_time { TTL - Duration::from_secs(10) } else { TTL });
        let committed = transactions.commit(transaction, &fence).await;
        if in_time {
            committed.unwrap();
            clock.suspend(TTL);
        } else {
            assert!(matches!(committed, Err(FenceError::NotHeld(_))), "{committed:?}");
        }
        // Whichever way it ended, the file is free again, and the grant is none any more.
        let refused = transactions.begin(&fence).await;
        assert!(matches!(refused, Err(FenceError::NotHeld(_))), "{refused:?}");
    }
    assert_eq!(entries(&pool).await, ["in time"]);
}

#[tokio::test]
async fn what_is_rolled_back_or_dropped_is_gone_at_once() {
    let home = Home::new();
    let locks = home.locks().await;
    let pool = pool(&home.path()).await;
    let transactions = SqliteTransactions::new(pool.clone());
    let fence = fence("x", take(&locks, &ask("x", TTL)).await.token.get());
    let mut rolled_back = transactions.begin(&fence).await.unwrap();
    append(&mut rolled_back, "a").await.unwrap();
    transactions.roll_back(rolled_back).await.unwrap();
    let mut dropped = transactions.begin(&fence).await.unwrap();
    append(&mut dropped, "b").await.unwrap();
    drop(dropped);
    transactions.commit(transactions.begin(&fence).await.unwrap(), &fence).await.unwrap();
    assert_eq!(entries(&pool).await, [""; 0]);
}

const CHILD: &str = "LEASEHOLD_FENCE_CHILD";

/// Not a test: what the child of the next one does, until it is killed.
#[tokio::test]
async fn child_in_mid_transaction() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let locks = Locks::new(SqliteLocks::builder(&path).build().await.unwrap());
    let pool = pool(path.as_ref()).await;
    let work = async |tx: &mut Tx, _: &Lease| {
        append(tx, "half").await?;
        println!("\nwritten");
        std::future::pending::<Result<(), sqlx::Error>>().await
    };
    let lock = locks.lock("x").ttl(TTL);
    lock.run_in_transaction(&SqliteTransactions::new(pool), work).await.unwrap();
}

#[tokio::test]
async fn a_process_killed_in_mid_transaction_leaves_nothing() {
    let home = Home::new();
    let locks = home.locks().await;
    let pool = pool(&home.path()).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "transactions::child_in_mid_transaction", "--nocapture"])
        .env(CHILD, home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "written"), "the child ended early");
    let killed = child.kill();
    child.wait().unwrap();
    killed.unwrap();
    assert_eq!(entries(&pool).await, [""; 0]);
    // The write lock died with it; the lease lives on to its end.
    assert!(is_held(&locks, "x").await);
    assert!(matches!(locks.force_release(&crate::common::name("x")).await, Ok(true)));
    let grant = take(&locks, &ask("x", TTL)).await;
    let fence = fence("x", grant.token.get());
    let transactions = SqliteTransactions::new(pool.clone());
    let mut transaction = transactions.begin(&fence).await.unwrap();
    append(&mut transaction, "whole").await.unwrap();
    transactions.commit(transaction, &fence).await.unwrap();
    assert_eq!(entries(&pool).await, ["whole"]);
}
