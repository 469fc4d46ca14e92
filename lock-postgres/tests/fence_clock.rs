//! A guard beside a grant that is being committed, where the server's clock has stepped back: tokens decide, and not the clock.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{
    fence_of,
    guarded::{LEVELS, Single, Stage, not_held},
    pooler::in_time,
    seconds, take,
};
use lock_core::{Acquired, Fence, FenceError, LockProvider, StoreError};
use tokio::task::JoinHandle;

/// What keeps grants from being committed, though they are made.
const GATE: &str = "
    CREATE TABLE {s}.gate (way text);
    CREATE FUNCTION {s}.at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE found text;
    BEGIN
        LOOP
            SELECT way INTO found FROM {s}.gate;
            EXIT WHEN found <> 'closed';
            PERFORM pg_sleep(0.005);
        END LOOP;
        IF found = 'undo' THEN RAISE EXCEPTION 'on purpose'; END IF;
        RETURN NULL;
    END$$;
    CREATE CONSTRAINT TRIGGER at_gate AFTER UPDATE ON {s}.locks DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.token <> OLD.token) EXECUTE FUNCTION {s}.at_gate();
    INSERT INTO {s}.gate VALUES ('open')";

/// The next grant of a lock whose holder's lease is over and yet goes on, as after a step back of the server's clock.
struct Takeover {
    old: Fence,
    granting: JoinHandle<Result<Acquired, StoreError>>,
}

impl Takeover {
    /// It is made, and waits at the gate.
    async fn begun(stage: &Stage, lock: &str) -> Self {
        stage.place.sql("UPDATE {s}.gate SET way = 'closed'").await;
        let (request, grant) = take(&stage.locks, lock).await;
        // Free when the next one is granted it, and a moment later the lease has half a minute to go.
        let free = format!("UPDATE {{s}}.locks SET free_at = clock_timestamp() WHERE token = {}", grant.token);
        stage.place.sql(&free).await;
        let (locks, next) = (stage.locks.clone(), common::ask(lock, seconds(30)));
        let granting = tokio::spawn(async move { locks.acquire(&next).await });
        let waits = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE relation = '{s}.gate'::regclass AND wait_event = 'PgSleep'";
        in_time(async { while stage.place.number(waits).await == 0 {} }).await;
        Self { old: fence_of(&request, grant), granting }
    }
}

type Guarding = JoinHandle<Result<(), FenceError>>;

/// Begun under the old grant and held under it, at each level.
fn guards(singles: &[Single], old: &Fence) -> Vec<Guarding> {
    let mut guards = Vec::new();
    for single in singles {
        for begins in [true, false] {
            let (transactions, pool, old) = (single.transactions.clone(), single.pool.clone(), old.clone());
            guards.push(tokio::spawn(async move {
                if begins {
                    return transactions.begin(&old).await.map(drop);
                }
                let mut tx = pool.begin().await.unwrap();
                transactions.hold(&mut tx, &old).await
            }));
        }
    }
    guards
}

/// All of them wait for somebody; none has an answer yet.
async fn all_wait(stage: &Stage, singles: &[Single], guards: &[Guarding]) {
    let programs: Vec<_> = singles.iter().map(|single| format!("'{}'", single.program)).collect();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND application_name IN ({})",
        programs.join(", ")
    );
    let all = i64::try_from(guards.len()).unwrap();
    in_time(async {
        while stage.place.number(&waiting).await < all {
            assert!(!guards.iter().any(JoinHandle::is_finished), "a guard that passes beside the next grant");
        }
    })
    .await;
    assert!(!guards.iter().any(JoinHandle::is_finished));
}

async fn singles(stage: &Stage) -> Vec<Single> {
    let mut singles = Vec::new();
    for isolation in LEVELS {
        singles.push(Single::of(stage, isolation, 2).await);
    }
    singles
}

async fn a_guard_waits_for_a_grant_that_is_being_committed_and_is_refused() {
    let stage = Stage::new().await;
    stage.place.sql(GATE).await;
    let singles = singles(&stage).await;
    let longest = "é".repeat(256);
    for lock in ["x", "invoice-42", "'; --", "🔒\n\u{1}", longest.as_str()] {
        let takeover = Takeover::begun(&stage, lock).await;
        let guards = guards(&singles, &takeover.old);
        all_wait(&stage, &singles, &guards).await;
        stage.place.sql("UPDATE {s}.gate SET way = 'open'").await;
        assert!(matches!(takeover.granting.await.unwrap(), Ok(Acquired::Granted(_))));
        for guard in guards {
            not_held(guard.await.unwrap());
        }
        // Here the clock alone would let it pass.
        stage.place.sql("UPDATE {s}.locks SET expires_at = 'infinity', free_at = 'infinity'").await;
        not_held(singles[0].transactions.begin(&takeover.old).await.map(drop));
        stage.place.sql("TRUNCATE {s}.locks").await;
    }
    for single in singles {
        single.pool.close().await;
    }
    stage.clear().await;
}

async fn a_grant_that_is_undone_leaves_the_lock_to_its_holder() {
    let stage = Stage::new().await;
    stage.place.sql(GATE).await;
    let singles = singles(&stage).await;
    let takeover = Takeover::begun(&stage, "x").await;
    let guards = guards(&singles, &takeover.old);
    all_wait(&stage, &singles, &guards).await;
    stage.place.sql("UPDATE {s}.gate SET way = 'undo'").await;
    assert!(takeover.granting.await.unwrap().is_err());
    for guard in guards {
        guard.await.unwrap().unwrap();
    }
    for single in singles {
        single.pool.close().await;
    }
    stage.clear().await;
}

/// A bad moment for a guard is none for the locks beside it.
async fn a_grant_that_is_being_committed_holds_up_no_other_lock() {
    let stage = Stage::new().await;
    stage.place.sql(GATE).await;
    let single = Single::of(&stage, LEVELS[0], 2).await;
    let mut others = Vec::new();
    for other in ["y", "z", "invoice-42"] {
        let (request, grant) = take(&stage.locks, other).await;
        others.push(fence_of(&request, grant));
    }
    let takeover = Takeover::begun(&stage, "x").await;
    for other in &others {
        in_time(single.transactions.begin(other)).await.unwrap().rollback().await.unwrap();
    }
    stage.place.sql("UPDATE {s}.gate SET way = 'open'").await;
    takeover.granting.await.unwrap().unwrap();
    single.pool.close().await;
    stage.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    a_guard_waits_for_a_grant_that_is_being_committed_and_is_refused,
    a_grant_that_is_undone_leaves_the_lock_to_its_holder,
    a_grant_that_is_being_committed_holds_up_no_other_lock,
);
