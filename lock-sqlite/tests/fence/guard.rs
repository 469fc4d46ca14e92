//! Lock and data in one file: a transaction is kept only if its grant holds the lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lock_core::{
    Acquired, Applied, Clock, ErrorKind, FenceError, LockProvider, Locks, ReleaseRequest, SystemClock, TestClock,
};
use lock_sqlite::{SqliteLocks, SqliteTransactions, sqlx};

use crate::{
    app::{append, entries, fence, immediate, pool, store_error},
    common::{Home, TTL, ask, give_back, name, take},
};

fn is_not_held(outcome: &Result<(), FenceError>) -> bool {
    matches!(outcome, Err(FenceError::NotHeld(_)))
}

/// Law 4 at its sharpest: the lease ends, its holder even learns of it, another waits, and still nobody is granted the lock
/// before the transaction ends. Renewals can't be made meanwhile, since the transaction is the file's one writer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_transaction_holds_up_the_take_over_until_it_ends() {
    let home = Home::new();
    let ttl = Duration::from_secs(1);
    let locks = Locks::new(home.locks().await);
    let pool = pool(&home.path()).await;
    let guard = SqliteTransactions::new(pool.clone());
    let lease = locks.lock("x").ttl(ttl).acquire().await.unwrap();

    let mut transaction = pool.begin().await.unwrap();
    guard.hold(&mut transaction, &lease).await.unwrap();
    let held_at = SystemClock.now();
    let ending = Arc::new(AtomicBool::new(false));
    let other = tokio::spawn({
        let (locks, pool, ending) = (Locks::new(home.locks().await), pool.clone(), Arc::clone(&ending));
        async move {
            let wait = Duration::from_secs(30);
            let next = locks.lock("x").ttl(TTL).wait_at_most(wait).acquire().await.unwrap();
            let granted_at = SystemClock.now();
            assert!(ending.load(Ordering::SeqCst), "granted in the middle of the guarded transaction");
            (next.token(), granted_at, entries(&pool).await, next)
        }
    });
    lease.lost().await;
    let lost_at = SystemClock.now();
    assert!(lease.deadline().since(held_at) < ttl, "no renewal came through");
    tokio::time::sleep(Duration::from_secs(3).saturating_sub(lost_at.since(held_at))).await;
    append(&mut transaction, "old holder's").await.unwrap();
    let ended_at = SystemClock.now();
    ending.store(true, Ordering::SeqCst);
    transaction.commit().await.unwrap();

    let (token, granted_at, seen, next) = other.await.unwrap();
    assert!(token > lease.token());
    assert_eq!(seen, ["old holder's"], "the next holder sees all that was written under the one before");
    println!(
        "a lease of 1 s, lost to its holder at +{} ms; its transaction ended at +{} ms; the other was granted at +{} ms",
        lost_at.since(held_at).as_millis(),
        ended_at.since(held_at).as_millis(),
        granted_at.since(held_at).as_millis(),
    );

    // One that begins now is refused.
    let mut late = immediate(&pool).await;
    let refused = guard.hold(&mut late, &lease).await;
    assert!(is_not_held(&refused), "{refused:?}");
    late.rollback().await.unwrap();
    let mut mine = immediate(&pool).await;
    guard.hold(&mut mine, &next).await.unwrap();
    append(&mut mine, "new holder's").await.unwrap();
    mine.commit().await.unwrap();
    assert_eq!(entries(&pool).await, ["old holder's", "new holder's"]);
}

/// The old holder's view of the file is of before the take-over: it sees itself as the holder, and must not write by that.
#[tokio::test]
async fn a_transaction_that_read_before_a_take_over_writes_nothing() {
    let home = Home::new();
    let locks = home.locks().await;
    let pool = pool(&home.path()).await;
    let guard = SqliteTransactions::new(pool.clone());
    let (old, new) = (ask("x", TTL), ask("x", TTL));
    let grant = take(&locks, &old).await;
    let stale = fence("x", grant.token.get());

    let mut read_before = pool.begin().await.unwrap();
    let owner = "SELECT owner FROM leasehold_locks WHERE name = 'x'";
    let before: String = sqlx::query_scalar(owner).fetch_one(&mut *read_before).await.unwrap();
    let mut begun_before = pool.begin().await.unwrap();
    assert!(locks.force_release(&name("x")).await.unwrap());
    take(&locks, &new).await;
    let still: String = sqlx::query_scalar(owner).fetch_one(&mut *read_before).await.unwrap();
    assert_eq!(still, before, "its view is the old one");

    let error = store_error(guard.hold(&mut read_before, &stale).await);
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    assert!(error.to_string().contains("begin anew"), "{error}");
    // Nor does SQLite let it write without being asked for the guard.
    append(&mut read_before, "stale").await.unwrap_err();
    read_before.commit().await.unwrap_err();
    // Who had read nothing sees the truth.
    assert!(is_not_held(&guard.hold(&mut begun_before, &stale).await));
    begun_before.rollback().await.unwrap();
    assert_eq!(entries(&pool).await, [""; 0]);
}

/// A transaction that read first and is up to date becomes the writer; then nobody else can be.
#[tokio::test]
async fn a_deferred_transaction_becomes_the_writer_by_the_check() {
    let home = Home::new();
    let locks = SqliteLocks::builder(home.path()).busy_timeout(Duration::from_millis(50)).build().await.unwrap();
    let pool = pool(&home.path()).await;
    let guard = SqliteTransactions::new(pool.clone());
    let request = ask("x", TTL);
    let grant = take(&locks, &request).await;
    for reads_first in [true, false] {
        let mut transaction = pool.begin().await.unwrap();
        if reads_first {
            sqlx::query("SELECT * FROM entries").fetch_all(&mut *transaction).await.unwrap();
        }
        guard.hold(&mut transaction, &fence("x", grant.token.get())).await.unwrap();
        let error = locks.force_release(&name("x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Contention, "{error}");
        assert_eq!(locks.release(&give_back(&request, grant)).await.unwrap_err().kind(), ErrorKind::Contention);
        // The check may be repeated, and once more at the end.
        guard.hold(&mut transaction, &fence("x", grant.token.get())).await.unwrap();
        transaction.commit().await.unwrap();
    }
    // With another writer at work it doesn't come to a deadlock.
    let writing = immediate(&pool).await;
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("SELECT * FROM entries").fetch_all(&mut *reader).await.unwrap();
    let error = store_error(guard.hold(&mut reader, &fence("x", grant.token.get())).await);
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    drop(writing);
}

#[tokio::test]
async fn only_the_grant_that_holds_the_lock_now_passes() {
    let home = Home::new();
    let clock = Arc::new(TestClock::new());
    let locks = SqliteLocks::builder(home.path()).clock(clock.clone()).build().await.unwrap();
    let pool = pool(&home.path()).await;
    let guard = SqliteTransactions::new(pool.clone()).clock(clock.clone());
    let holds = async |lock: &str, token: u64| {
        let mut transaction = immediate(&pool).await;
        let outcome = guard.hold(&mut transaction, &fence(lock, token)).await;
        assert!(outcome.is_ok() || is_not_held(&outcome), "{outcome:?}");
        outcome.is_ok()
    };
    let (x, y) = (ask("x", TTL), ask("y", TTL));
    let (of_x, of_y) = (take(&locks, &x).await.token.get(), take(&locks, &y).await.token.get());
    assert!(holds("x", of_x).await && holds("y", of_y).await);
    for (lock, token) in [("x", of_y), ("y", of_x), ("x", of_x + 1), ("x", of_x - 1), ("z", of_x), ("x ", of_x)] {
        assert!(!holds(lock, token).await, "{token}@{lock}");
    }
    // Over, though nobody took it.
    clock.suspend(TTL - Duration::from_secs(10));
    assert!(holds("x", of_x).await);
    clock.suspend(Duration::from_secs(10));
    assert!(!holds("x", of_x).await);
    // Given back, though it stays taken for a while.
    let again = ask("x", TTL);
    let grant = take(&locks, &again).await;
    let keep = ReleaseRequest { keep_for: TTL, ..give_back(&again, grant) };
    assert!(holds("x", grant.token.get()).await);
    locks.release(&keep).await.unwrap();
    assert!(matches!(locks.acquire(&ask("x", TTL)).await.unwrap(), Acquired::Held(_)));
    assert!(!holds("x", grant.token.get()).await);
    // Another boot of the host.
    let request = ask("boot", TTL);
    let grant = take(&locks, &request).await;
    assert!(holds("boot", grant.token.get()).await);
    let reboot = "UPDATE leasehold_locks SET boot_id = '11111111-2222-3333-4444-555555555555'";
    sqlx::query(reboot).execute(&pool).await.unwrap();
    assert!(!holds("boot", grant.token.get()).await);
}

#[tokio::test]
async fn a_file_without_locks_is_told_as_such() {
    let (home, elsewhere) = (Home::new(), Home::new());
    let grant = take(&home.locks().await, &ask("x", TTL)).await;
    let (here, there) = (pool(&home.path()).await, pool(&elsewhere.path()).await);
    let guard = SqliteTransactions::new(here.clone());
    let mut transaction = immediate(&there).await;
    let error = store_error(guard.hold(&mut transaction, &fence("x", grant.token.get())).await);
    assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
    let path = elsewhere.path().display().to_string();
    assert!(error.to_string().contains("no table leasehold_locks") && error.to_string().contains(&path), "{error}");
    transaction.rollback().await.unwrap();
    // Nor is a temporary or attached table of that name taken for it.
    let copy = "CREATE TEMP TABLE leasehold_locks AS SELECT * FROM here.leasehold_locks";
    let mut connection = there.acquire().await.unwrap();
    let attach = sqlx::query("ATTACH ?1 AS here").bind(home.path().to_str().unwrap().to_owned());
    attach.execute(&mut *connection).await.unwrap();
    sqlx::query(copy).execute(&mut *connection).await.unwrap();
    let mut transaction = sqlx::Connection::begin(&mut *connection).await.unwrap();
    let error = store_error(guard.hold(&mut transaction, &fence("x", grant.token.get())).await);
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
}

#[tokio::test]
async fn a_record_that_nobody_understands_holds_nothing() {
    let home = Home::new();
    let locks = home.locks().await;
    let pool = pool(&home.path()).await;
    let guard = SqliteTransactions::new(pool.clone());
    let grant = take(&locks, &ask("x", TTL)).await;
    let spoil = "PRAGMA ignore_check_constraints = ON; UPDATE leasehold_locks SET owner = 'nobody'";
    sqlx::raw_sql(spoil).execute(&mut home.sql().await).await.unwrap();
    let mut transaction = immediate(&pool).await;
    let error = store_error(guard.hold(&mut transaction, &fence("x", grant.token.get())).await);
    assert_eq!((error.kind(), error.lock()), (ErrorKind::Corrupt, Some(&name("x"))), "{error}");
}
