//! The schema: created by many at once, by an administrator, again after it was dropped, under any name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, again, give_back, granted, name, seconds, take};
use lock_core::{Acquired, Clock, ErrorKind, LockProvider, LockState, Released, Renewed, SystemClock};
use lock_postgres::{PostgresLocks, sqlx};

async fn many_that_start_at_once_create_it_once() {
    let place = Place::new().await;
    let tasks: Vec<_> = (0..20).map(|_| tokio::spawn(place.builder().build())).collect();
    let mut grants = 0;
    for task in tasks {
        let locks = task.await.unwrap().unwrap();
        grants +=
            u32::from(matches!(locks.acquire(&common::ask("one", seconds(30))).await.unwrap(), Acquired::Granted(_)));
    }
    assert_eq!(grants, 1);
    place.clear().await;
}

async fn who_creates_it_slowly_is_waited_for() {
    let place = Place::new().await;
    let mut other = place.admin.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(7307182319120318565)").execute(&mut *other).await.unwrap();
    let building = tokio::spawn(place.builder().build());
    // Longer than a statement waits for a lock's row.
    let enough = SystemClock.now() + Duration::from_millis(700);
    SystemClock.sleep_until(enough).await;
    other.rollback().await.unwrap();
    building.await.unwrap().unwrap();
    place.clear().await;
}

async fn a_role_that_may_not_create_uses_what_the_administrator_made() {
    let mut place = Place::new().await;
    let (role, url) = place.role().await;
    let connect = || PostgresLocks::builder(url.as_str()).schema(&place.schema).build();

    let error = connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
    assert!(error.to_string().contains("leasehold schema postgres"), "{error}");
    assert_eq!(place.number("SELECT count(*) FROM pg_namespace WHERE nspname = trim('\"' FROM '{s}')").await, 0);

    place.sql(&PostgresLocks::ddl(&place.schema).unwrap()).await;
    // It may be run again.
    place.sql(&PostgresLocks::ddl(&place.schema).unwrap()).await;
    let locks = connect().await.unwrap();
    let error = locks.acquire(&common::ask("x", seconds(30))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("USAGE"), "{error}");

    let grants =
        format!("GRANT USAGE ON SCHEMA {{s}} TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON {{s}}.locks TO {role}");
    place.sql(&grants).await;
    let (request, grant) = take(&locks, "x").await;
    assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(seconds(30)));
    assert_eq!(locks.release(&give_back(&request, grant)).await.unwrap(), Released::Released);
    drop(locks);
    place.clear().await;
}

async fn a_role_that_owns_the_schema_but_may_create_none_creates_the_table() {
    let mut place = Place::new().await;
    let (role, url) = place.role().await;
    place.sql(&format!("CREATE SCHEMA {{s}} AUTHORIZATION {role}")).await;
    let locks = PostgresLocks::builder(url.as_str()).schema(&place.schema).build().await.unwrap();
    take(&locks, "x").await;
    drop(locks);
    place.clear().await;
}

async fn tokens_rise_when_the_record_or_the_schema_is_gone() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (request, first) = take(&locks, "x").await;
    place.sql("DELETE FROM {s}.locks").await;
    assert_eq!(locks.renew(&again(&request, first)).await.unwrap(), Renewed::Lost);
    let (request, second) = take(&locks, "x").await;
    assert!(second.token > first.token);

    place.sql("DROP SCHEMA {s} CASCADE").await;
    assert_eq!(locks.renew(&again(&request, second)).await.unwrap(), Renewed::Lost);
    let (_, third) = take(&locks, "x").await;
    assert!(third.token > second.token);

    place.sql("DROP SCHEMA {s} CASCADE").await;
    assert!(locks.inspect(&name("x")).await.unwrap().is_none());
    place.clear().await;
}

async fn a_schema_that_may_not_be_created_is_missed_in_one_sentence() {
    let place = Place::new().await;
    let error = place.builder().create_schema(false).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady);
    assert!(error.to_string().contains("leasehold schema postgres"), "{error}");

    place.sql(&PostgresLocks::ddl(&place.schema).unwrap()).await;
    let locks = place.builder().create_schema(false).build().await.unwrap();
    take(&locks, "x").await;
    place.sql("DROP SCHEMA {s} CASCADE").await;
    let error = locks.acquire(&common::ask("x", seconds(30))).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, lock_core::Applied::No), "{error}");
    place.clear().await;
}

async fn a_table_of_somebody_else_is_left_alone() {
    let place = Place::new().await;
    place.sql("CREATE SCHEMA {s}; CREATE TABLE {s}.locks (door text)").await;
    let error = place.builder().build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady);
    assert!(error.to_string().contains("choose another schema"), "{error}");
    place.clear().await;
}

async fn any_name_of_a_schema_is_a_name_and_no_statement() {
    for hostile in ["a\".locks; DROP SCHEMA public CASCADE; --", "$$'\\", "{{locks}}", "🔒 É", "a.b", "SELECT"] {
        let mut place = Place::new().await;
        place.schema = format!("{hostile}{}", &common::unique()[10..20]);
        let locks = place.locks().await;
        let (_, grant) = take(&locks, "x").await;
        let status = locks.inspect(&name("x")).await.unwrap().unwrap();
        assert!(matches!(status.state, LockState::Held(holding) if holding.token == grant.token), "{hostile}");
        assert_eq!(place.number("SELECT count(*) FROM {s}.locks").await, 1, "{hostile}");
        place.clear().await;
    }
    let place = Place::new().await;
    assert_eq!(place.number("SELECT count(*) FROM pg_namespace WHERE nspname = 'public'").await, 1);
}

async fn a_record_that_nobody_of_us_wrote_is_an_error_and_no_panic() {
    let place = Place::new().await;
    let locks = place.locks().await;
    take(&locks, "x").await;
    for damage in ["owner = 'somebody'", "holder = '[1]'", "holder = '{\"pid\": \"x\"}'"] {
        place.sql(&format!("UPDATE {{s}}.locks SET {damage}")).await;
        assert_eq!(locks.inspect(&name("x")).await.unwrap_err().kind(), ErrorKind::Corrupt, "{damage}");
        // Who asks for it learns that it is held, which is all that counts.
        assert!(matches!(locks.acquire(&common::ask("x", seconds(1))).await.unwrap(), Acquired::Held(_)), "{damage}");
    }
    place.clear().await;
}

async fn hostile_names_stay_apart_and_are_listed_in_byte_order() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let longest = "x".repeat(512);
    let mut names = [
        "a",
        "A",
        "a ",
        "a%",
        "a_",
        "a/b",
        "..",
        "%",
        "'; DROP TABLE locks; --",
        "é",
        "e\u{301}",
        "🔒",
        "\n",
        "\u{1}",
        "{{locks}}",
        "$1",
        "\\",
        "\"",
        longest.as_str(),
    ];
    for each in names {
        take(&locks, each).await;
    }
    names.sort_unstable();
    let mut listed = Vec::new();
    let mut page = lock_core::ListRequest { prefix: String::new(), after: None, limit: 4 };
    loop {
        let found = locks.list(&page).await.unwrap();
        let Some(last) = found.last() else { break };
        page.after = Some(last.name.clone());
        listed.extend(found.into_iter().map(|status| status.name.as_str().to_owned()));
    }
    assert_eq!(listed, names);
    for (prefix, expected) in [("a", 5), ("%", 1), ("a_", 1), ("\\", 1), ("_", 0), ("\0", 0)] {
        let page = lock_core::ListRequest { prefix: prefix.to_owned(), after: None, limit: 5000 };
        assert_eq!(locks.list(&page).await.unwrap().len(), expected, "{prefix:?}");
    }
    let request = common::ask("a", seconds(30));
    assert!(matches!(locks.acquire(&request).await.unwrap(), Acquired::Held(_)));
    granted(locks.acquire(&common::ask("b", seconds(30))).await.unwrap());
    place.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    many_that_start_at_once_create_it_once,
    who_creates_it_slowly_is_waited_for,
    a_role_that_may_not_create_uses_what_the_administrator_made,
    a_role_that_owns_the_schema_but_may_create_none_creates_the_table,
    tokens_rise_when_the_record_or_the_schema_is_gone,
    a_schema_that_may_not_be_created_is_missed_in_one_sentence,
    a_table_of_somebody_else_is_left_alone,
    any_name_of_a_schema_is_a_name_and_no_statement,
    a_record_that_nobody_of_us_wrote_is_an_error_and_no_panic,
    hostile_names_stay_apart_and_are_listed_in_byte_order,
);
