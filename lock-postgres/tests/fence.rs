//! Transactions that are guarded by the lock of the same database: nobody is granted it before they end, and who comes late
//! is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{
    again, ask, fence_of, give_back, granted,
    guarded::{LEVELS, Stage, guard_key, not_held},
    name, pass, seconds, take, unique,
};
use lock_core::{
    AcquireRequest, Acquired, Clock, Fence, LockProvider, Locks, Released, Renewed, SystemClock, Transactions, Waiting,
};
use lock_postgres::sqlx;

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
    let error = stage.transactions.commit(tx, &old).await.unwrap_err();
    assert!(error.to_string().contains("had ended before"), "under another grant: {error}");
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

/// Who waits for a lock whose lease is over and whose transaction is open comes back ten times a second.
async fn who_comes_back_says_seldom_that_he_waits_and_is_always_announced_to() {
    let stage = Stage::new().await;
    let (request, grant) = take(&stage.locks, "x").await;
    let tx = stage.held(LEVELS[0], &fence_of(&request, grant)).await;
    assert!(stage.locks.force_release(&name("x")).await.unwrap());
    stage.place.sql("CREATE TABLE {s}.written (at timestamptz DEFAULT clock_timestamp())").await;
    let counter = "
        CREATE FUNCTION {s}.count() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO {s}.written DEFAULT VALUES; RETURN NULL; END$$;
        CREATE TRIGGER count AFTER INSERT OR UPDATE ON {s}.locks FOR EACH ROW EXECUTE FUNCTION {s}.count()";
    stage.place.sql(counter).await;
    let (span, start) = (Duration::from_millis(500), SystemClock.now());
    let mut asked: i64 = 0;
    while SystemClock.now().since(start) < 4 * span {
        let left = "SELECT floor(extract(epoch FROM wanted_until - clock_timestamp()) * 1000)::bigint FROM {s}.locks";
        let before = SystemClock.now();
        assert!(matches!(stage.asked("x", Waiting::Wake(span)).await, Acquired::Held(_)));
        let left = stage.place.number(left).await;
        // A release within the span, from when it was asked for, is announced.
        let passed = i64::try_from(SystemClock.now().since(before).as_millis()).unwrap();
        assert!(left + passed + 1 >= 500, "{left} ms are left after {passed} ms");
        asked += 1;
        pass(Duration::from_millis(20)).await;
    }
    let written = stage.place.number("SELECT count(*) FROM {s}.written").await;
    println!("asked {asked} times within four spans; written {written} times");
    assert!(asked > 12, "too slow to tell");
    assert!(written <= 5, "written {written} times, asked {asked} times");
    tx.rollback().await.unwrap();
    granted(stage.asked("x", Waiting::Wake(span)).await);
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
    let delete = format!("SET LOCAL lock_timeout = 100; DELETE FROM \"{}\".locks", stage.place.schema);
    let mut admin = stage.place.admin.begin().await.unwrap();
    let error = sqlx::raw_sql(sqlx::AssertSqlSafe(delete)).execute(&mut *admin).await.unwrap_err();
    admin.rollback().await.unwrap();
    assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("55P03"), "{error}");
    tx.commit().await.unwrap();
    stage.place.sql("DELETE FROM {s}.locks").await;
    let (_, next) = take(&stage.locks, "x").await;
    assert!(next.token > grant.token);
    stage.clear().await;
}

/// As after a schema that was moved away, and is made anew.
async fn a_lock_without_a_row_is_guarded_all_the_same() {
    let stage = Stage::new().await;
    let (request, grant) = take(&stage.locks, "x").await;
    let tx = stage.held("READ COMMITTED", &fence_of(&request, grant)).await;
    let moved = format!("\"moved {}\"", unique());
    stage.place.sql(&format!("ALTER SCHEMA {{s}} RENAME TO {moved}")).await;
    stage.refused("x").await;
    tx.commit().await.unwrap();
    assert!(granted(stage.asked("x", Waiting::Wake(seconds(30))).await).token > grant.token);
    stage.place.sql(&format!("DROP SCHEMA {moved} CASCADE")).await;
    stage.clear().await;
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
        stage.waited_for(key).await;
        assert!(stage.locks.force_release(&name("x")).await.unwrap());
        alone.rollback().await.unwrap();
        not_held(holding.await.unwrap());
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
            not_held(stage.transactions.hold(&mut tx, &fence).await);
            let _ = tx.commit().await;
        }
        stage.refused(isolation).await;
        other.commit().await.unwrap();
        granted(stage.asked(isolation, Waiting::No).await);
    }
    assert!(stage.ledger.entries().await.is_empty());
    stage.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    a_take_over_waits_for_the_end_of_a_guarded_transaction,
    a_transaction_that_comes_after_the_take_over_is_refused_and_keeps_nothing,
    what_is_no_grant_of_this_lock_is_refused,
    a_lock_that_is_released_or_forced_is_granted_after_the_transaction,
    who_comes_back_says_seldom_that_he_waits_and_is_always_announced_to,
    renewals_and_other_locks_are_not_held_up,
    a_row_is_not_deleted_while_it_is_guarded,
    a_lock_without_a_row_is_guarded_all_the_same,
    the_look_comes_after_the_wait_for_the_guard,
    a_snapshot_does_not_hide_that_the_grant_is_over,
);
