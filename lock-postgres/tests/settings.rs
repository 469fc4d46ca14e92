//! Whatever the role's or the database's settings are, grants are read committed and durable.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{Place, again, give_back, seconds, take};
use lock_core::{Durability, LockProvider, Released, Tick};
use lock_postgres::PostgresLocks;

/// Notes the setting that is in force when a transaction commits: a deferred trigger runs just before.
const NOTE_COMMITS: &str = "
    CREATE TABLE {s}.seen (at serial, operation text, level text, isolation text);
    CREATE FUNCTION {s}.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $f$
    BEGIN
        INSERT INTO {s}.seen (operation, level, isolation) VALUES (
            CASE WHEN TG_OP = 'INSERT' THEN 'grant' WHEN NEW.owner IS NULL THEN 'release'
                 WHEN NEW.token = OLD.token THEN 'renew' ELSE 'grant' END,
            current_setting('synchronous_commit'), current_setting('transaction_isolation'));
        RETURN NULL;
    END $f$;
    CREATE CONSTRAINT TRIGGER note AFTER INSERT OR UPDATE ON {s}.locks
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {s}.note();";

async fn grants_commit_synchronously_whatever_the_role_is_set_to() {
    for (setting, for_grants) in [
        ("off", "on"),
        ("local", "on"),
        ("on", "on"),
        ("remote_write", "remote_write"),
        ("remote_apply", "remote_apply"),
    ] {
        let mut place = Place::new().await;
        let (role, url) = place.role().await;
        place
            .sql(&format!(
                "CREATE SCHEMA {{s}} AUTHORIZATION {role}; ALTER ROLE {role} SET synchronous_commit = {setting}"
            ))
            .await;
        let locks = PostgresLocks::builder(url.as_str()).schema(&place.schema).build().await.unwrap();
        place.sql(NOTE_COMMITS).await;

        let (request, grant) = take(&locks, "x").await;
        locks.renew(&again(&request, grant)).await.unwrap();
        locks.release(&give_back(&request, grant)).await.unwrap();
        let (request, grant) = take(&locks, "x").await;
        let mut kept = give_back(&request, grant);
        kept.keep_for = seconds(60);
        assert_eq!(locks.release(&kept).await.unwrap(), Released::Released);
        let (request, grant) = take(&locks, "y").await;
        let done = lock_core::ReleaseRequest { done: Some(Tick(5)), ..give_back(&request, grant) };
        assert_eq!(locks.release(&done).await.unwrap(), Released::Released);

        let seen: Vec<(String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT operation, level FROM \"{}\".seen ORDER BY at",
            place.schema
        )))
        .fetch_all(&place.admin)
        .await
        .unwrap();
        let seen: Vec<_> = seen.iter().map(|(operation, level)| (operation.as_str(), level.as_str())).collect();
        let expected = [
            ("grant", for_grants),
            ("renew", for_grants),
            ("release", "off"),
            ("grant", for_grants),
            // It must not be undone by a crash: nothing else keeps the lock taken.
            ("release", for_grants),
            ("grant", for_grants),
            // Nor must the end of work that is to be done once.
            ("release", for_grants),
        ];
        assert_eq!(seen, expected, "{setting}");
        drop(locks);
        place.clear().await;
    }
}

async fn a_default_of_repeatable_read_or_serializable_hurts_nobody() {
    for isolation in ["repeatable read", "serializable"] {
        let mut place = Place::new().await;
        let (role, url) = place.role().await;
        place
            .sql(&format!("CREATE SCHEMA {{s}} AUTHORIZATION {role}; ALTER ROLE {role} SET default_transaction_isolation = '{isolation}'"))
            .await;
        let locks = PostgresLocks::builder(url.as_str()).schema(&place.schema).build().await.unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let locks = locks.clone();
                tokio::spawn(async move {
                    for _ in 0..25 {
                        let request = common::ask("contended", seconds(30));
                        if let lock_core::Acquired::Granted(grant) = locks.acquire(&request).await.unwrap() {
                            locks.release(&give_back(&request, grant)).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        place.sql(NOTE_COMMITS).await;
        take(&locks, "x").await;
        assert_eq!(place.number("SELECT count(*) FROM {s}.seen WHERE isolation = 'read committed'").await, 1);
        drop(locks);
        place.clear().await;
    }
}

async fn the_capability_follows_fsync() {
    let place = Place::new().await;
    let fsync: bool =
        sqlx::query_scalar("SELECT current_setting('fsync') = 'on'").fetch_one(&place.admin).await.unwrap();
    let expected = if fsync { Durability::Durable } else { Durability::Volatile };
    assert_eq!(place.locks().await.capabilities().durability, expected);
    place.clear().await;
}

async fn idle_records_are_swept_and_others_stay() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (_, held) = take(&locks, "held").await;
    let (request, grant) = take(&locks, "idle").await;
    locks.release(&give_back(&request, grant)).await.unwrap();
    let (request, grant) = take(&locks, "fresh").await;
    locks.release(&give_back(&request, grant)).await.unwrap();
    place.sql("UPDATE {s}.locks SET free_at = free_at - interval '7 days 1 minute' WHERE name = 'idle'").await;
    // Renewed for longer than the retention.
    place.sql("UPDATE {s}.locks SET granted_at = granted_at - interval '8 days' WHERE name = 'held'").await;

    // One first grant in 64 sweeps, and the owner decides which.
    let locks = place.locks().await;
    let mut request = common::ask("another", seconds(30));
    request.owner = lock_core::OwnerId::from_u128(64);
    locks.acquire(&request).await.unwrap();
    let left = "SELECT count(*) FROM {s}.locks";
    for _ in 0..1000 {
        if place.number(left).await == 3 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(place.number(left).await, 3);
    assert_eq!(place.number("SELECT count(*) FROM {s}.locks WHERE name = 'idle'").await, 0);
    assert_eq!(
        place.number("SELECT token FROM {s}.locks WHERE name = 'held'").await,
        i64::try_from(held.token.get()).unwrap()
    );
    place.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    grants_commit_synchronously_whatever_the_role_is_set_to,
    a_default_of_repeatable_read_or_serializable_hurts_nobody,
    the_capability_follows_fsync,
    idle_records_are_swept_and_others_stay,
);
