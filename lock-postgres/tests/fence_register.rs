//! The register of fences: judged and raised in the transaction of the write.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{PASSWORD, Place, ledger::Ledger};
use lock_core::{
    Applied, ErrorKind, Fence, FenceError, FenceRegister, FencingToken, Operation, Pass, Resource, StoreError,
};
use lock_postgres::{PostgresFences, PostgresLocks, sqlx};

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

struct Stage {
    place: Place,
    ledger: Ledger,
    fences: PostgresFences,
}

impl Stage {
    async fn new() -> Self {
        let place = Place::new().await;
        let ledger = Ledger::new(&place).await;
        let fences = PostgresFences::builder(ledger.pool.clone()).schema(&place.schema).build().await.unwrap();
        Self { place, ledger, fences }
    }

    /// A write and its check in one transaction; committed even if it was refused, as by a program that doesn't listen.
    async fn write(&self, isolation: &str, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        let mut tx = self.ledger.begin(isolation).await;
        self.ledger.write(&mut tx, &fence.to_string()).await;
        let outcome = self.fences.admit(&mut tx, &accounts(), fence, pass).await;
        let _ = tx.commit().await;
        outcome
    }

    async fn highest(&self) -> Option<String> {
        self.fences.highest(&accounts()).await.unwrap().map(|fence| fence.to_string())
    }

    async fn clear(self) {
        self.ledger.pool.close().await;
        self.place.clear().await;
    }
}

fn accounts() -> Resource {
    Resource::new("accounts").unwrap()
}

fn fence(text: &str) -> Fence {
    text.parse().unwrap()
}

fn stale(outcome: Result<(), FenceError>) -> FencingToken {
    match outcome {
        Err(FenceError::Stale(stale)) => stale.highest,
        other => panic!("{other:?}"),
    }
}

fn store(outcome: Result<(), FenceError>) -> StoreError {
    match outcome {
        Err(FenceError::Store(error)) => error,
        other => panic!("{other:?}"),
    }
}

async fn the_highest_passes_again_or_once_and_what_is_refused_keeps_nothing() {
    let stage = Stage::new().await;
    for isolation in LEVELS {
        stage.write(isolation, &fence("5@x"), Pass::Again).await.unwrap();
        stage.write(isolation, &fence("5@x"), Pass::Again).await.unwrap();
        assert_eq!(stale(stage.write(isolation, &fence("5@x"), Pass::Once).await).get(), 5);
        stage.write(isolation, &fence("7@x"), Pass::Once).await.unwrap();
        assert_eq!(stale(stage.write(isolation, &fence("6@x"), Pass::Again).await).get(), 7);
        let outcome = stage.write(isolation, &fence("9@y"), Pass::Again).await;
        assert!(
            matches!(&outcome, Err(FenceError::OtherLock(other)) if other.fenced_by.as_str() == "x"),
            "{outcome:?}"
        );
        assert_eq!(stage.highest().await.unwrap(), "7@x");
        assert_eq!(stage.ledger.entries().await, ["5@x", "5@x", "7@x"]);
        stage.place.sql("TRUNCATE {s}.entries").await;
        // For another lock, once the first is forgotten.
        assert!(stage.fences.forget(&accounts()).await.unwrap());
        assert!(!stage.fences.forget(&accounts()).await.unwrap());
        assert_eq!(stage.highest().await, None);
        stage.write(isolation, &fence("1@y"), Pass::Again).await.unwrap();
        stage.fences.forget(&accounts()).await.unwrap();
        stage.place.sql("TRUNCATE {s}.entries").await;
    }
    let most = Fence::new(fence("1@x").lock().clone(), FencingToken::MAX).unwrap();
    stage.write(LEVELS[0], &most, Pass::Again).await.unwrap();
    assert_eq!(stage.highest().await.unwrap(), most.to_string());
    stage.clear().await;
}

async fn a_late_write_after_a_raise_is_refused_with_all_of_its_transaction() {
    let stage = Stage::new().await;
    stage.fences.raise(&accounts(), &fence("5@x"), Pass::Again).await.unwrap();
    for (isolation, next) in LEVELS.into_iter().zip(["6@x", "7@x", "8@x"]) {
        let mut late = stage.ledger.begin(isolation).await;
        stage.ledger.write(&mut late, "late").await;
        // The next holder, before it reads.
        stage.fences.raise(&accounts(), &fence(next), Pass::Again).await.unwrap();
        match stage.fences.admit(&mut late, &accounts(), &fence("5@x"), Pass::Again).await {
            Err(FenceError::Stale(stale)) => println!("{isolation}: {stale}"),
            Err(FenceError::Store(error)) if isolation != LEVELS[0] => {
                assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
                assert_eq!((error.store(), error.operation()), (Some("postgres"), Some(Operation::Fence)));
                println!("{isolation}: {error}");
            }
            other => panic!("{isolation}: {other:?}"),
        }
        let _ = late.commit().await;
    }
    assert!(stage.ledger.entries().await.is_empty());
    assert_eq!(stale(stage.fences.raise(&accounts(), &fence("5@x"), Pass::Again).await).get(), 8);
    stage.fences.raise(&accounts(), &fence("8@x"), Pass::Again).await.unwrap();
    assert_eq!(stale(stage.fences.raise(&accounts(), &fence("8@x"), Pass::Once).await).get(), 8);
    stage.clear().await;
}

async fn a_raise_waits_for_the_transaction_that_was_admitted() {
    let stage = Stage::new().await;
    let app = format!("raiser_{}", common::unique());
    let other = PostgresFences::connect(&format!(
        "{}?application_name={app}&leasehold_schema={}",
        stage.place.url,
        stage.place.schema.replace(' ', "%20")
    ))
    .await
    .unwrap();
    // The first fence of the resource, the raising one, and the same again.
    for (before, own, next) in [(None, "5@x", "6@x"), (Some("6@x"), "7@x", "8@x"), (Some("9@x"), "9@x", "10@x")] {
        if let Some(before) = before {
            stage.fences.raise(&accounts(), &fence(before), Pass::Again).await.unwrap();
        }
        let mut tx = stage.ledger.begin("READ COMMITTED").await;
        stage.fences.admit(&mut tx, &accounts(), &fence(own), Pass::Again).await.unwrap();
        let (raiser, next) = (other.clone(), fence(next));
        let raising = tokio::spawn(async move { raiser.raise(&accounts(), &next, Pass::Again).await });
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = '{app}'"
        );
        while stage.place.number(&waits).await == 0 {
            assert!(!raising.is_finished(), "{own}: the raise came between the check and the end of its transaction");
            tokio::task::yield_now().await;
        }
        stage.ledger.write(&mut tx, own).await;
        tx.commit().await.unwrap();
        raising.await.unwrap().unwrap();
        assert!(stage.write("READ COMMITTED", &fence(own), Pass::Again).await.is_err());
    }
    assert_eq!(stage.ledger.entries().await, ["5@x", "7@x", "9@x"]);
    stage.clear().await;
}

async fn what_is_rolled_back_raised_nothing() {
    let stage = Stage::new().await;
    stage.fences.raise(&accounts(), &fence("5@x"), Pass::Again).await.unwrap();
    let mut tx = stage.ledger.begin("READ COMMITTED").await;
    stage.fences.admit(&mut tx, &accounts(), &fence("9@x"), Pass::Again).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(stage.highest().await.unwrap(), "5@x");
    stage.clear().await;
}

async fn equal_passes_write_no_version_of_the_row() {
    let stage = Stage::new().await;
    stage.fences.raise(&accounts(), &fence("5@x"), Pass::Again).await.unwrap();
    let version = "SELECT ('x' || md5(ctid::text || xmin::text))::bit(60)::bigint FROM {s}.fences";
    let before = stage.place.number(version).await;
    for _ in 0..10 {
        stage.write("READ COMMITTED", &fence("5@x"), Pass::Again).await.unwrap();
    }
    assert_eq!(stage.place.number(version).await, before);
    stage.clear().await;
}

async fn many_first_fences_at_once_leave_the_highest() {
    let stage = Stage::new().await;
    for round in 0..10 {
        let resource = Resource::new(format!("round {round}")).unwrap();
        let raising = (1..=16u64).map(|token| {
            let (fences, resource) = (stage.fences.clone(), resource.clone());
            let fence = fence(&format!("{token}@x"));
            tokio::spawn(async move { fences.raise(&resource, &fence, Pass::Once).await })
        });
        let mut raised = 0;
        for outcome in futures_util::future::join_all(raising).await {
            match outcome.unwrap() {
                Ok(()) => raised += 1,
                Err(FenceError::Stale(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(raised >= 1);
        assert_eq!(stage.fences.highest(&resource).await.unwrap(), Some(fence("16@x")));
    }
    stage.clear().await;
}

async fn what_no_version_of_this_writes_is_corrupt_and_nothing_is_written() {
    let stage = Stage::new().await;
    stage.place.sql("ALTER TABLE {s}.fences DROP CONSTRAINT fences_token_check").await;
    let good = ("x", "5");
    for (lock, token) in [("x", "-1"), ("x", "0"), ("", "5"), (&"x".repeat(513), "5")] {
        stage.place.sql("DELETE FROM {s}.fences").await;
        stage.place.sql(&format!("INSERT INTO {{s}}.fences VALUES ('accounts', '{lock}', {token})")).await;
        let error = store(stage.write("READ COMMITTED", &fence("9@x"), Pass::Again).await);
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{lock:.9} {token}: {error}");
        let error = store(stage.fences.raise(&accounts(), &fence("9@x"), Pass::Again).await);
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{error}");
        assert!(stage.fences.highest(&accounts()).await.is_err());
        assert_eq!(stage.place.number(&format!("SELECT count(*) FROM {{s}}.fences WHERE token = {token}")).await, 1);
    }
    // A column that somebody made text.
    stage.place.sql("DELETE FROM {s}.fences; ALTER TABLE {s}.fences ALTER token TYPE text").await;
    stage.place.sql(&format!("INSERT INTO {{s}}.fences VALUES ('accounts', '{}', ' {} ')", good.0, good.1)).await;
    let error = store(stage.write("READ COMMITTED", &fence("9@x"), Pass::Again).await);
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{error}");
    assert!(stage.ledger.entries().await.is_empty());
    stage.clear().await;
}

async fn hostile_names_stay_apart() {
    let stage = Stage::new().await;
    let longest = "é".repeat(256);
    let names =
        ["a", "A", "a ", "'; DROP TABLE fences; --", "\\'", "{{fences}}", "🔒\n", "é", "e\u{301}", longest.as_str()];
    for (n, name) in names.iter().enumerate() {
        let fence = Fence::new(common::name(name), FencingToken::new(n as u64 + 1)).unwrap();
        stage.fences.raise(&Resource::new(name).unwrap(), &fence, Pass::Once).await.unwrap();
    }
    for (n, name) in names.iter().enumerate() {
        let seen = stage.fences.highest(&Resource::new(name).unwrap()).await.unwrap().unwrap();
        assert_eq!((seen.lock().as_str(), seen.token().get()), (*name, n as u64 + 1));
    }
    stage.clear().await;
}

async fn many_that_start_at_once_create_it_once_beside_the_locks() {
    let place = Place::new().await;
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(10).connect(&place.url).await.unwrap();
    let building = (0..10).map(|_| tokio::spawn(PostgresFences::builder(pool.clone()).schema(&place.schema).build()));
    let (building, locks) = (building.collect::<Vec<_>>(), tokio::spawn(place.builder().build()));
    for built in building {
        built.await.unwrap().unwrap();
    }
    drop(locks.await.unwrap().unwrap());
    assert_eq!(place.number("SELECT count(*) FROM pg_tables WHERE schemaname = trim('\"' FROM '{s}')").await, 2);
    pool.close().await;
    place.clear().await;
}

async fn a_role_that_may_not_create_uses_what_the_administrator_made() {
    let mut place = Place::new().await;
    let (role, url) = place.role().await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let build = || PostgresFences::builder(pool.clone()).schema(&place.schema).build();
    let error = build().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::NotReady, Some(Operation::Connect)), "{error}");
    assert!(error.to_string().contains("PostgresFences::ddl"), "{error}");
    // Alone, and as one script with the locks'.
    let ddl = PostgresFences::ddl(&place.schema).unwrap();
    let both = PostgresLocks::ddl(&place.schema).unwrap() + &ddl;
    for script in [&ddl, &ddl, &both, &both] {
        place.sql(script).await;
    }
    let fences = build().await.unwrap();
    let error = store(fences.raise(&accounts(), &fence("5@x"), Pass::Again).await);
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Denied, Applied::No), "{error}");
    assert!(error.to_string().contains("its table fences"), "{error}");
    let grants = format!(
        "GRANT USAGE ON SCHEMA {{s}} TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON {{s}}.fences TO {role}"
    );
    place.sql(&grants).await;
    fences.raise(&accounts(), &fence("5@x"), Pass::Again).await.unwrap();
    assert!(fences.forget(&accounts()).await.unwrap());
    assert!(!format!("{fences:?}{error:?}").contains(PASSWORD));
    let missing = PostgresFences::builder(pool.clone()).schema("no such schema").create_schema(false).build();
    assert_eq!(missing.await.unwrap_err().kind(), ErrorKind::NotReady);

    place.sql("DROP TABLE {s}.fences").await;
    let error = store(fences.raise(&accounts(), &fence("5@x"), Pass::Again).await);
    assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
    place.sql("CREATE TABLE {s}.fences (resource text)").await;
    assert_eq!(build().await.unwrap_err().kind(), ErrorKind::NotReady);
    assert_eq!(
        PostgresFences::connect("postgres://u:s3cret-word@localhost:1/x").await.unwrap_err().kind(),
        ErrorKind::Unreachable
    );
    assert_eq!(PostgresFences::connect("mysql://u@localhost/x").await.unwrap_err().kind(), ErrorKind::InvalidConfig);
    assert!(PostgresFences::ddl("").is_err());
    pool.close().await;
    place.clear().await;
}

async fn a_raise_is_durable_where_the_role_has_commits_without() {
    let place = Place::new().await;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .connect(&format!("{}?options=-csynchronous_commit%3Doff", place.url))
        .await
        .unwrap();
    let fences = PostgresFences::builder(pool.clone()).schema(&place.schema).build().await.unwrap();
    // What was in force at the write is kept in the row's table by a trigger.
    place
        .sql(
            "CREATE TABLE {s}.seen (level text);
             CREATE FUNCTION {s}.look() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN INSERT INTO {s}.seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END$$;
             CREATE TRIGGER look BEFORE INSERT OR UPDATE ON {s}.fences FOR EACH ROW EXECUTE FUNCTION {s}.look()",
        )
        .await;
    for token in ["5@x", "6@x"] {
        fences.raise(&accounts(), &fence(token), Pass::Again).await.unwrap();
    }
    assert_eq!(place.number("SELECT count(*) FROM {s}.seen WHERE level = 'on'").await, 2);
    let after: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&pool).await.unwrap();
    assert_eq!(after, "off");
    pool.close().await;
    place.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    the_highest_passes_again_or_once_and_what_is_refused_keeps_nothing,
    a_late_write_after_a_raise_is_refused_with_all_of_its_transaction,
    a_raise_waits_for_the_transaction_that_was_admitted,
    what_is_rolled_back_raised_nothing,
    equal_passes_write_no_version_of_the_row,
    many_first_fences_at_once_leave_the_highest,
    what_no_version_of_this_writes_is_corrupt_and_nothing_is_written,
    hostile_names_stay_apart,
    many_that_start_at_once_create_it_once_beside_the_locks,
    a_role_that_may_not_create_uses_what_the_administrator_made,
    a_raise_is_durable_where_the_role_has_commits_without,
);
