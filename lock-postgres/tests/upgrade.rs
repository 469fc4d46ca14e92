//! A table that an earlier version made gets what it lacks, and keeps what is in it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{Place, again, ask, give_back, granted, name, seconds, take};
use lock_core::{
    AcquireRequest, Acquired, Applied, ErrorKind, LockProvider, LockState, ReleaseRequest, Released, Renewed, Tick,
};
use lock_postgres::PostgresLocks;

/// How many columns for ticks there are.
const COLUMNS: &str = "SELECT count(*) FROM information_schema.columns
    WHERE table_schema = trim('\"' FROM '{s}') AND table_name = 'locks' AND column_name = 'last_tick'";

fn at_once(lock: &str, tick: u64) -> AcquireRequest {
    AcquireRequest { tick: Some(Tick(tick)), ..ask(lock, seconds(30)) }
}

/// The table as an earlier version made it, with a lock that is held; its holder's request.
async fn earlier_table(place: &Place) -> AcquireRequest {
    place.sql(include_str!("sql/before_ticks.sql")).await;
    let held = ask("held", seconds(30));
    let insert = format!(
        "INSERT INTO {{s}}.locks (name, owner, token, granted_at, expires_at, free_at, holder)
         SELECT 'held', '{}', 77, at, at + interval '30 s', at + interval '31 s', '{{}}'
         FROM clock_timestamp() AS at",
        held.owner
    );
    place.sql(&insert).await;
    held
}

async fn an_earlier_table_gets_ticks_and_keeps_its_leases() {
    let place = Place::new().await;
    let held = earlier_table(&place).await;
    // Many start at once.
    let tasks: Vec<_> = (0..12).map(|_| tokio::spawn(place.builder().build())).collect();
    let mut ran = 0;
    for task in tasks {
        let answer = task.await.unwrap().unwrap().acquire(&at_once("one", 5)).await.unwrap();
        ran += u32::from(matches!(answer, Acquired::Granted(_)));
    }
    assert_eq!((ran, place.number(COLUMNS).await), (1, 1));

    let locks = place.locks().await;
    let status = locks.inspect(&name("held")).await.unwrap().unwrap();
    let LockState::Held(holding) = status.state else { panic!("{status:?}") };
    assert_eq!((holding.owner, holding.token.get()), (held.owner, 77));
    assert!(matches!(locks.acquire(&at_once("held", 5)).await.unwrap(), Acquired::Held(_)));
    let grant = granted(locks.acquire(&held).await.unwrap());
    assert_eq!(locks.renew(&again(&held, grant)).await.unwrap(), Renewed::Held(seconds(30)));
    let release = ReleaseRequest { done: Some(Tick(5)), ..give_back(&held, grant) };
    assert_eq!(locks.release(&release).await.unwrap(), Released::Released);
    assert!(matches!(locks.acquire(&at_once("held", 5)).await.unwrap(), Acquired::Finished(Tick(5))));
    assert!(granted(locks.acquire(&at_once("held", 6)).await.unwrap()).token > grant.token);
    place.clear().await;
}

async fn the_administrators_statements_upgrade_too_and_a_role_without_the_right_says_so() {
    let mut place = Place::new().await;
    let held = earlier_table(&place).await;
    let (role, url) = place.role().await;
    let grants =
        format!("GRANT USAGE ON SCHEMA {{s}} TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON {{s}}.locks TO {role}");
    place.sql(&grants).await;
    let plain = || PostgresLocks::builder(url.as_str()).schema(&place.schema);
    for builder in [plain(), plain().create_schema(false)] {
        let error = builder.build().await.unwrap_err();
        assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
        let line = error.to_string();
        assert!(line.contains("last_tick") && line.contains("leasehold schema postgres"), "{line}");
    }
    assert_eq!(place.number(COLUMNS).await, 0);

    for _ in 0..2 {
        place.sql(&PostgresLocks::ddl(&place.schema).unwrap()).await;
    }
    for builder in [plain(), plain().create_schema(false)] {
        let locks = builder.build().await.unwrap();
        let grant = granted(locks.acquire(&held).await.unwrap());
        assert_eq!(grant.token.get(), 77);
        granted(locks.acquire(&at_once(&common::unique(), 5)).await.unwrap());
    }
    place.clear().await;
}

async fn who_owns_the_table_alone_upgrades_it() {
    let mut place = Place::new().await;
    earlier_table(&place).await;
    let (role, url) = place.role().await;
    place.sql(&format!("GRANT USAGE ON SCHEMA {{s}} TO {role}; ALTER TABLE {{s}}.locks OWNER TO {role}")).await;
    let locks = PostgresLocks::builder(url.as_str()).schema(&place.schema).build().await.unwrap();
    granted(locks.acquire(&at_once("x", 5)).await.unwrap());
    drop(locks);
    place.clear().await;
}

/// As when a client of an earlier version, which still runs, made it again after it was dropped.
async fn a_client_that_meets_an_earlier_table_upgrades_it() {
    let place = Place::new().await;
    let (locks, may_not) = (
        place.locks().await,
        place.builder().create_schema(false).operation_timeout(seconds(10)).build().await.unwrap(),
    );
    place.sql("DROP SCHEMA {s} CASCADE").await;
    let held = earlier_table(&place).await;
    let error = may_not.acquire(&at_once("x", 5)).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
    assert!(error.to_string().contains("leasehold schema postgres"), "{error}");
    granted(locks.acquire(&at_once("x", 5)).await.unwrap());
    assert_eq!(granted(locks.acquire(&held).await.unwrap()).token.get(), 77);
    granted(may_not.acquire(&at_once("y", 5)).await.unwrap());
    place.clear().await;
}

/// Everybody queues behind who waits for the whole table.
async fn a_transaction_that_keeps_a_row_makes_the_upgrade_give_up_soon() {
    let place = Place::new().await;
    earlier_table(&place).await;
    let mut other = place.admin.begin().await.unwrap();
    let row = format!("SELECT FROM \"{}\".locks FOR UPDATE", place.schema);
    sqlx::query(sqlx::AssertSqlSafe(row)).fetch_one(&mut *other).await.unwrap();
    let error = place.builder().operation_timeout(seconds(10)).build().await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    assert!(error.to_string().contains("pg_stat_activity"), "{error}");
    assert_eq!(place.number(COLUMNS).await, 0);
    other.rollback().await.unwrap();
    take(&place.locks().await, "x").await;
    place.clear().await;
}

async fn a_newer_table_is_refused_and_left_alone() {
    let place = Place::new().await;
    earlier_table(&place).await;
    place.sql("COMMENT ON TABLE {s}.locks IS 'leasehold locks, version 2'").await;
    let error = place.builder().build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
    assert!(error.to_string().contains("version 2"), "{error}");
    assert_eq!(place.number(COLUMNS).await, 0);
    place.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    an_earlier_table_gets_ticks_and_keeps_its_leases,
    the_administrators_statements_upgrade_too_and_a_role_without_the_right_says_so,
    who_owns_the_table_alone_upgrades_it,
    a_client_that_meets_an_earlier_table_upgrades_it,
    a_transaction_that_keeps_a_row_makes_the_upgrade_give_up_soon,
    a_newer_table_is_refused_and_left_alone,
);
