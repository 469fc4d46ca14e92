//! Behind PgBouncer an operation is a transaction: what is told of one that broke off, before its commit and at it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{
    ask, give_back, granted, name,
    pooler::{Pooler, in_time},
    seconds, take,
};
use lock_core::{Applied, LockProvider, Operation, Released};
use sqlx::AssertSqlSafe;

async fn what_was_not_committed_is_told_as_not_applied() {
    let pooler = Pooler::new().await;
    let locks = pooler.builder().operation_timeout(seconds(2)).build().await.unwrap();
    // A free lock whose row somebody keeps: an acquire waits there, before its commit.
    let (request, grant) = take(&locks, "x").await;
    locks.release(&give_back(&request, grant)).await.unwrap();
    let keep = format!("SELECT FROM \"{}\".locks WHERE name = 'x' FOR UPDATE", pooler.place.schema);

    for cut in [true, false] {
        let mut keeper = pooler.place.admin.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(keep.clone())).execute(&mut *keeper).await.unwrap();
        let wish = ask("x", seconds(30));
        let asked = locks.acquire(&wish);
        let cuts = async {
            if cut {
                // The first on the connection at hand, the second on a fresh one: then it is told.
                pooler.terminate_one("-- Hands out locks").await;
                pooler.terminate_one("-- Hands out locks").await;
            }
        };
        let (answer, ()) = tokio::join!(in_time(asked), cuts);
        let error = answer.unwrap_err();
        println!("{error}");
        assert_eq!(error.applied(), Applied::No, "{error}");
        assert!(error.is_transient(), "{error}");
        keeper.rollback().await.unwrap();
        // It told the truth: nobody has the lock, now or once what was under way has come to its end.
        let next = granted(locks.acquire(&request).await.unwrap());
        locks.release(&give_back(&request, next)).await.unwrap();
    }
    pooler.clear().await;
}

async fn whatever_goes_wrong_at_the_commit_is_told_as_unknown() {
    let pooler = Pooler::new().await;
    let locks = pooler.builder().operation_timeout(seconds(2)).build().await.unwrap();
    // What a commit waits for, and then fails by.
    pooler
        .place
        .sql(
            "CREATE FUNCTION {s}.late() RETURNS trigger LANGUAGE plpgsql AS $f$
             BEGIN
                 IF NEW.name = 'waits' THEN PERFORM pg_advisory_xact_lock(4711); END IF;
                 IF NEW.name = 'fails' THEN RAISE EXCEPTION 'too late'; END IF;
                 RETURN NULL;
             END $f$;
             CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON {s}.locks
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {s}.late();",
        )
        .await;
    let error = locks.acquire(&ask("fails", seconds(30))).await.unwrap_err();
    assert_eq!((error.applied(), error.operation()), (Applied::Maybe, Some(Operation::Acquire)), "{error}");
    println!("{error}");
    for cut in [true, false] {
        // A connection that was used before, which one attempt may find dead.
        locks.inspect(&name("warm")).await.unwrap();
        let mut keeper = pooler.place.admin.begin().await.unwrap();
        sqlx::raw_sql("SELECT pg_advisory_xact_lock(4711)").execute(&mut *keeper).await.unwrap();
        let wish = ask("waits", seconds(30));
        let cuts = async {
            if cut {
                pooler.terminate_one("COMMIT").await;
                // Where there is time for a second attempt.
                pooler.terminate_one("COMMIT").await;
            }
            std::future::pending::<()>().await;
        };
        let error = tokio::select! {
            answer = in_time(locks.acquire(&wish)) => answer.unwrap_err(),
            () = cuts => unreachable!("it goes on until there is an answer"),
        };
        println!("{error}");
        assert_eq!(error.applied(), Applied::Maybe, "{error}");
        keeper.rollback().await.unwrap();
        // Its owner asks again and has it, or gives it back: both are answered.
        let grant = granted(in_time(locks.acquire(&wish)).await.unwrap());
        assert_eq!(locks.release(&give_back(&wish, grant)).await.unwrap(), Released::Released);
    }
    pooler.clear().await;
}

testbed::server_tests!(testbed::tests::private_pgbouncer_can_be_had =>
    what_was_not_committed_is_told_as_not_applied,
    whatever_goes_wrong_at_the_commit_is_told_as_unknown,
);
