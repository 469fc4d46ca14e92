//! Transactions that are guarded by the lock of the same database: nobody is granted it before they end, and who comes late
//! is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, again, ask, fence_of, give_back, granted, ledger::Ledger, name, pass, seconds, take};
use lock_core::{
    AcquireRequest, Acquired, Applied, Clock, ErrorKind, Fence, FenceError, Lease, LockProvider, Locks, Operation,
    Released, Renewed, SystemClock, ToFence, TransactionError, Transactions, Waiting,
};
use lock_postgres::{PostgresLocks, PostgresTransactions, sqlx};

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// The locks, the application's table, and transactions under the ones on the other.
struct Stage {
    place: Place,
    locks: PostgresLocks,
    ledger: Ledger,
    transactions: PostgresTransactions,
}

impl Stage {
    async fn new() -> Self {
        let place = Place::new().await;
        // No rest after an expiry: what keeps others out then is the guard alone.
        let locks = place.builder().grace(Duration::ZERO).build().await.unwrap();
        let ledger = Ledger::new(&place).await;
        let transactions = locks.transactions(ledger.pool.clone());
        Self { place, locks, ledger, transactions }
    }

    /// A transaction of the application's, which this grant guards. Done again as its error says, where a waiter has marked
    /// the row since the snapshot.
    async fn held(&self, isolation: &str, fence: &Fence) -> sqlx::Transaction<'static, sqlx::Postgres> {
        for _ in 0..20 {
            let mut tx = self.ledger.begin(isolation).await;
            match self.transactions.hold(&mut tx, fence).await {
                Err(FenceError::Store(error)) if isolation != LEVELS[0] => {
                    assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
                }
                outcome => {
                    outcome.unwrap();
                    return tx;
                }
            }
        }
        panic!("twenty times in vain");
    }

    /// What who asks for it now is told.
    async fn asked(&self, lock: &str, waiting: Waiting) -> Acquired {
        let request = AcquireRequest { waiting, ..ask(lock, seconds(30)) };
        self.locks.acquire(&request).await.unwrap()
    }

    async fn refused(&self, lock: &str) {
        for waiting in [Waiting::No, Waiting::Wake(seconds(30)), Waiting::Wake(seconds(30))] {
            match self.asked(lock, waiting).await {
                Acquired::Held(held) => {
                    let soon = Duration::from_millis(50)..=Duration::from_millis(100);
                    assert!(held.remaining.is_some_and(|span| soon.contains(&span)), "{waiting:?} {held:?}");
                }
                other => panic!("{waiting:?} {other:?}"),
            }
        }
    }

    async fn clear(self) {
        self.ledger.pool.close().await;
        drop(self.locks);
        self.place.clear().await;
    }
}

fn not_held(outcome: Result<(), FenceError>) {
    assert!(matches!(&outcome, Err(FenceError::NotHeld(_))), "{outcome:?}");
}

async fn a_take_over_waits_for_the_end_of_a_guarded_transaction() {
    let stage = Stage::new().await;
    let other = Locks::new(stage.place.builder().grace(Duration::ZERO).build().await.unwrap());
    // The first without a guard, to see that there is something to be delayed.
    for guarded in [None, Some(LEVELS[0]), Some(LEVELS[1]), Some(LEVELS[2])] {
        let lock = format!("taken over {guarded:?}");
        let request = ask(&lock, seconds(1));
        let asked = SystemClock.now();
        let grant = granted(stage.locks.acquire(&request).await.unwrap());
        let waiting = tokio::spawn({
            let waiting = other.lock(lock.as_str()).wait_at_most(seconds(20)).acquire();
            async move { (waiting.await.unwrap(), SystemClock.now()) }
        });
        let mut ended = asked;
        if let Some(isolation) = guarded {
            let fence = fence_of(&request, grant);
            let mut tx = stage.held(isolation, &fence).await;
            stage.ledger.write(&mut tx, &lock).await;
            SystemClock.sleep_until(asked + seconds(3)).await;
            assert_eq!(stage.locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Lost, "it ended at +1 s");
            ended = SystemClock.now();
            tx.commit().await.unwrap();
        }
        let (lease, at) = waiting.await.unwrap();
        let after = at.since(asked);
        println!("lease over at +1 s, guarded to +3 s: {guarded:?}; the next was granted at +{after:.2?}");
        match guarded {
            None => assert!(after >= seconds(1) && after < seconds(3), "{after:?}"),
            Some(_) => assert!(at >= ended && after >= seconds(3) && after < seconds(6), "{after:?}"),
        }
        assert!(lease.token() > grant.token);
        lease.release().await.unwrap();
    }
    assert_eq!(stage.ledger.entries().await.len(), 3);
    other.settled().await;
    stage.clear().await;
}

async fn a_transaction_that_comes_after_the_take_over_is_refused_and_keeps_nothing() {
    let stage = Stage::new().await;
    let request = ask("x", Duration::from_millis(100));
    let old = fence_of(&request, granted(stage.locks.acquire(&request).await.unwrap()));
    let mut outlived = stage.ledger.begin("READ COMMITTED").await;
    stage.ledger.write(&mut outlived, "before").await;
    pass(Duration::from_millis(110)).await;
    // Over, though nobody took it yet.
    not_held(stage.transactions.hold(&mut outlived, &old).await);
    let (request, grant) = take(&stage.locks, "x").await;
    let new = fence_of(&request, grant);
    for isolation in LEVELS {
        let mut tx = stage.ledger.begin(isolation).await;
        not_held(stage.transactions.hold(&mut tx, &old).await);
        // Who doesn't listen is stopped by the server.
        assert!(sqlx::query("SELECT 1").execute(&mut *tx).await.is_err());
        let _ = tx.commit().await;
        stage.held(isolation, &new).await.rollback().await.unwrap();
    }
    let _ = outlived.commit().await;
    not_held(stage.transactions.begin(&old).await.map(drop));
    let tx = stage.transactions.begin(&new).await.unwrap();
    not_held(stage.transactions.commit(tx, &old).await);
    assert!(stage.ledger.entries().await.is_empty());
    stage.clear().await;
}

async fn what_is_no_grant_of_this_lock_is_refused() {
    let stage = Stage::new().await;
    let (x, grant) = take(&stage.locks, "x").await;
    take(&stage.locks, "y").await;
    let token = grant.token.get();
    for fence in [format!("{token}@y"), format!("{token}@unknown"), "1@x".to_owned(), format!("{}@x", token + 1)] {
        let mut tx = stage.ledger.begin("READ COMMITTED").await;
        stage.ledger.write(&mut tx, &fence).await;
        not_held(stage.transactions.hold(&mut tx, &fence.parse::<Fence>().unwrap()).await);
        let _ = tx.commit().await;
    }
    stage.held("READ COMMITTED", &fence_of(&x, grant)).await.rollback().await.unwrap();
    let longest = "é".repeat(256);
    for hostile in ["'; DROP TABLE entries; --", "{{locks}}", "\\", "🔒\n\u{1}", longest.as_str()] {
        let (request, grant) = take(&stage.locks, hostile).await;
        stage.held("READ COMMITTED", &fence_of(&request, grant)).await.rollback().await.unwrap();
    }
    assert!(stage.ledger.entries().await.is_empty());
    stage.clear().await;
}

async fn a_lock_that_is_released_or_forced_is_granted_after_the_transaction() {
    let stage = Stage::new().await;
    for (lock, forced) in [("released", false), ("forced", true)] {
        let (request, grant) = take(&stage.locks, lock).await;
        let fence = fence_of(&request, grant);
        let one = stage.held("READ COMMITTED", &fence).await;
        let mut two = stage.held("READ COMMITTED", &fence).await;
        if forced {
            assert!(stage.locks.force_release(&name(lock)).await.unwrap());
        } else {
            assert_eq!(stage.locks.release(&give_back(&request, grant)).await.unwrap(), Released::Released);
        }
        stage.refused(lock).await;
        // They come back ten times a second: who has said that he waits writes nothing any more, nor who doesn't wait.
        let version = "SELECT ('x' || md5(string_agg(ctid::text || xmin::text, '' ORDER BY name)))::bit(60)::bigint FROM {s}.locks";
        let before = stage.place.number(version).await;
        stage.asked(lock, Waiting::No).await;
        stage.asked(lock, Waiting::Wake(seconds(20))).await;
        assert_eq!(stage.place.number(version).await, before);
        one.commit().await.unwrap();
        stage.refused(lock).await;
        // Looked at again, the grant is over; and the lock is the transaction's still.
        not_held(stage.transactions.hold(&mut two, &fence).await);
        two.rollback().await.unwrap();
        assert!(granted(stage.asked(lock, Waiting::No).await).token > grant.token);
    }
    stage.clear().await;
}

async fn renewals_and_other_locks_are_not_held_up() {
    let stage = Stage::new().await;
    let request = ask("short", Duration::from_millis(100));
    let short = granted(stage.locks.acquire(&request).await.unwrap());
    let over = stage.held("READ COMMITTED", &fence_of(&request, short)).await;
    let (kept, grant) = take(&stage.locks, "kept").await;
    let mut open = Vec::new();
    for isolation in LEVELS {
        open.push(stage.held(isolation, &fence_of(&kept, grant)).await);
    }
    pass(Duration::from_millis(110)).await;
    let mut took = Vec::new();
    for round in 0..20 {
        let mut asked: Vec<_> = (0..50).map(|n| ask(&format!("{round}/{n}"), seconds(30))).collect();
        asked.push(AcquireRequest { waiting: Waiting::Wake(seconds(30)), ..ask("short", seconds(30)) });
        let start = SystemClock.now();
        let mut answers = stage.locks.acquire_many(&asked).await;
        assert_eq!(stage.locks.renew(&again(&kept, grant)).await.unwrap(), Renewed::Held(seconds(30)));
        took.push(SystemClock.now().since(start));
        let guarded = answers.pop().unwrap().unwrap();
        assert!(matches!(guarded, Acquired::Held(_)), "{guarded:?}");
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Acquired::Granted(_)))), "{answers:?}");
    }
    took.sort();
    println!("groups of 51 and a renewal, beside open guarded transactions: median {:?}, max {:?}", took[10], took[19]);
    // A row that was waited for would have cost 250 ms each time.
    assert!(took[10] < Duration::from_millis(150), "{took:?}");
    assert_eq!(stage.locks.release(&give_back(&kept, grant)).await.unwrap(), Released::Released);
    drop((over, open));
    stage.clear().await;
}

async fn a_row_is_not_deleted_while_it_is_guarded() {
    let stage = Stage::new().await;
    let (request, grant) = take(&stage.locks, "x").await;
    let tx = stage.held("READ COMMITTED", &fence_of(&request, grant)).await;
    let delete = format!("SET lock_timeout = 100; DELETE FROM \"{}\".locks", stage.place.schema);
    let error = sqlx::raw_sql(sqlx::AssertSqlSafe(delete)).execute(&stage.place.admin).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("55P03"), "{error}");
    tx.commit().await.unwrap();
    stage.place.sql("DELETE FROM {s}.locks").await;
    let (_, next) = take(&stage.locks, "x").await;
    assert!(next.token > grant.token);
    stage.clear().await;
}

/// The key of the guard that this transaction holds.
async fn guard_key(tx: &mut sqlx::Transaction<'_, sqlx::Postgres>) -> i64 {
    let key = "SELECT classid::bigint << 32 | objid::bigint FROM pg_locks
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    sqlx::query_scalar(key).fetch_one(&mut **tx).await.unwrap()
}

async fn the_look_comes_after_the_wait_for_the_guard() {
    let stage = Stage::new().await;
    let (request, grant) = take(&stage.locks, "x").await;
    let fence = fence_of(&request, grant);
    let mut tx = stage.held("READ COMMITTED", &fence).await;
    let key = guard_key(&mut tx).await;
    tx.rollback().await.unwrap();
    for isolation in LEVELS {
        let (request, grant) =
            if isolation == LEVELS[0] { (request.clone(), grant) } else { take(&stage.locks, "x").await };
        let fence = fence_of(&request, grant);
        // Somebody has the guard alone, as one who is about to grant the lock does for a moment.
        let mut alone = stage.place.admin.begin().await.unwrap();
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key).execute(&mut *alone).await.unwrap();
        let mut tx = stage.ledger.begin(isolation).await;
        let transactions = stage.transactions.clone();
        let holding = tokio::spawn(async move {
            let outcome = transactions.hold(&mut tx, &fence).await;
            // Not only dropped: that is done when the connection is used again.
            tx.rollback().await.unwrap();
            outcome
        });
        let waits = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
             AND classid = ({key}::bigint >> 32 & 4294967295) AND objid = ({key}::bigint & 4294967295)"
        );
        while stage.place.number(&waits).await == 0 {
            tokio::task::yield_now().await;
        }
        assert!(stage.locks.force_release(&name("x")).await.unwrap());
        alone.rollback().await.unwrap();
        match holding.await.unwrap() {
            Err(FenceError::NotHeld(_)) => {}
            Err(FenceError::Store(error)) if isolation != LEVELS[0] => {
                assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
            }
            other => panic!("{isolation}: it was over before the look: {other:?}"),
        }
    }
    stage.clear().await;
}

async fn a_snapshot_does_not_hide_that_the_grant_is_over() {
    let stage = Stage::new().await;
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut early = stage.ledger.begin(isolation).await;
        sqlx::query("SELECT 1 FROM pg_class").execute(&mut *early).await.unwrap();
        let (request, grant) = take(&stage.locks, isolation).await;
        let fence = fence_of(&request, grant);
        not_held(stage.transactions.hold(&mut early, &fence).await);

        let mut tx = stage.held(isolation, &fence).await;
        stage.ledger.write(&mut tx, isolation).await;
        let (mut later, other) = (stage.ledger.begin(isolation).await, stage.held(isolation, &fence).await);
        sqlx::query("SELECT 1 FROM pg_class").execute(&mut *later).await.unwrap();
        assert!(stage.locks.force_release(&name(isolation)).await.unwrap());
        for mut tx in [tx, later] {
            let outcome = stage.transactions.hold(&mut tx, &fence).await;
            let Err(FenceError::Store(error)) = outcome else { panic!("{isolation}: {outcome:?}") };
            assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
            assert_eq!((error.store(), error.operation()), (Some("postgres"), Some(Operation::Fence)));
            let _ = tx.commit().await;
        }
        stage.refused(isolation).await;
        other.commit().await.unwrap();
        granted(stage.asked(isolation, Waiting::No).await);
    }
    assert!(stage.ledger.entries().await.is_empty());
    stage.clear().await;
}

async fn a_savepoint_that_is_rolled_back_takes_its_guard_along() {
    use sqlx::Acquire as _;
    let stage = Stage::new().await;
    let (request, grant) = take(&stage.locks, "x").await;
    let mut tx = stage.ledger.begin("READ COMMITTED").await;
    let mut inner = tx.begin().await.unwrap();
    stage.transactions.hold(&mut inner, &fence_of(&request, grant)).await.unwrap();
    stage.locks.release(&give_back(&request, grant)).await.unwrap();
    stage.refused("x").await;
    inner.rollback().await.unwrap();
    granted(stage.asked("x", Waiting::No).await);
    tx.commit().await.unwrap();
    stage.clear().await;
}

async fn work_in_a_transaction_is_kept_under_its_lease_alone() {
    let stage = Stage::new().await;
    let locks = Locks::new(stage.locks.clone());
    let write = async |tx: &mut sqlx::Transaction<'static, sqlx::Postgres>, lease: &Lease| {
        stage.ledger.write(tx, lease.token().to_string().as_str()).await;
        Ok::<_, sqlx::Error>(lease.token().to_string())
    };
    let token = locks.lock("x").run_in_transaction(&stage.transactions, write).await.unwrap();
    assert_eq!(stage.ledger.entries().await, std::slice::from_ref(&token));

    let forced = locks.lock("x").run_in_transaction(&stage.transactions, async |tx, lease: &Lease| {
        write(tx, lease).await?;
        assert!(stage.locks.force_release(lease.name()).await.unwrap());
        Ok::<_, sqlx::Error>(())
    });
    let error = forced.await.unwrap_err();
    assert!(matches!(error, TransactionError::Fence(FenceError::NotHeld(_))), "{error:?}");
    assert_eq!(error.applied(), Applied::No);

    let failed = locks.lock("x").run_in_transaction(&stage.transactions, async |tx, lease: &Lease| {
        write(tx, lease).await?;
        sqlx::query("SELECT 1 / 0").execute(&mut **tx).await
    });
    assert!(matches!(failed.await.unwrap_err(), TransactionError::Work(_)));
    // The work hides that a statement failed: what it wrote before that is lost, and it is told.
    let hidden = locks.lock("x").run_in_transaction(&stage.transactions, async |tx, lease: &Lease| {
        write(tx, lease).await?;
        let _ = sqlx::query("SELECT 1 / 0").execute(&mut **tx).await;
        Ok::<_, sqlx::Error>(())
    });
    let error = hidden.await.unwrap_err();
    assert!(matches!(error, TransactionError::Fence(FenceError::Store(_))), "{error:?}");
    assert_eq!(stage.ledger.entries().await, [token]);
    locks.settled().await;
    stage.clear().await;
}

async fn a_missing_right_and_a_missing_table_are_told() {
    let mut place = Place::new().await;
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let fence = fence_of(&request, grant);
    let (role, url) = place.role().await;
    place.sql(&format!("GRANT USAGE ON SCHEMA {{s}} TO {role}; GRANT SELECT ON {{s}}.locks TO {role}")).await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let transactions = locks.transactions(pool.clone());
    let told = |outcome: Result<_, FenceError>| match outcome {
        Err(FenceError::Store(error)) => error,
        Err(other) => panic!("{other:?}"),
        Ok(()) => panic!("held"),
    };
    let error = told(transactions.begin(&fence).await.map(drop));
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Denied, Applied::No), "{error}");
    place.sql(&format!("GRANT UPDATE ON {{s}}.locks TO {role}")).await;
    transactions.begin(&fence).await.unwrap().rollback().await.unwrap();

    let elsewhere = PostgresTransactions::new(pool.clone()).schema("no such schema").unwrap();
    let error = told(elsewhere.begin(&fence).await.map(drop));
    assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
    assert!(PostgresTransactions::new(pool.clone()).schema("").is_err());
    assert!(!format!("{elsewhere:?}{error:?}").contains(common::PASSWORD));

    pool.close().await;
    let error = told(transactions.begin(&fence).await.map(drop));
    assert_eq!(error.applied(), Applied::No, "{error}");
    drop(locks);
    place.clear().await;
}

async fn a_lease_or_a_guard_is_a_fence() {
    let stage = Stage::new().await;
    let locks = Locks::new(stage.locks.clone());
    let guard = locks.lock("x").acquire().await.unwrap();
    assert_eq!(guard.to_fence().unwrap().token(), guard.token());
    let mut tx = stage.ledger.begin("READ COMMITTED").await;
    stage.transactions.hold(&mut tx, &guard).await.unwrap();
    stage.transactions.hold(&mut tx, guard.lease()).await.unwrap();
    tx.commit().await.unwrap();
    guard.release().await.unwrap();
    stage.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    a_take_over_waits_for_the_end_of_a_guarded_transaction,
    a_transaction_that_comes_after_the_take_over_is_refused_and_keeps_nothing,
    what_is_no_grant_of_this_lock_is_refused,
    a_lock_that_is_released_or_forced_is_granted_after_the_transaction,
    renewals_and_other_locks_are_not_held_up,
    a_row_is_not_deleted_while_it_is_guarded,
    the_look_comes_after_the_wait_for_the_guard,
    a_snapshot_does_not_hide_that_the_grant_is_over,
    a_savepoint_that_is_rolled_back_takes_its_guard_along,
    work_in_a_transaction_is_kept_under_its_lease_alone,
    a_missing_right_and_a_missing_table_are_told,
    a_lease_or_a_guard_is_a_fence,
);
