//! Ticks: judged with the row, also when a statement had to wait for it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{Place, ask, give_back, granted, name, seconds, take};
use lock_core::{
    AcquireRequest, Acquired, ErrorKind, LockProvider, OwnerId, ReleaseRequest, Released, Tick, TickUse, Waiting,
};
use lock_postgres::PostgresLocks;
use sqlx::AssertSqlSafe;

/// A wish for a tick that its grant uses up.
fn at_once(lock: &str, tick: u64) -> AcquireRequest {
    AcquireRequest { tick: Some(Tick(tick)), ..ask(lock, seconds(30)) }
}

fn after_work(lock: &str, tick: u64) -> AcquireRequest {
    AcquireRequest { tick_use: TickUse::AtRelease, ..at_once(lock, tick) }
}

fn waiting(request: AcquireRequest) -> AcquireRequest {
    AcquireRequest { waiting: Waiting::Wake(seconds(60)), ..request }
}

fn is_finished(answer: &Acquired, last: u64) -> bool {
    matches!(answer, Acquired::Finished(tick) if *tick == Tick(last))
}

async fn all(locks: &PostgresLocks, requests: &[AcquireRequest]) -> Vec<Acquired> {
    locks.acquire_many(requests).await.into_iter().map(Result::unwrap).collect()
}

/// Everything that the rows say, and the transactions that wrote and locked them.
async fn rows(place: &Place) -> Vec<String> {
    let rows = format!("SELECT l.ctid, l.xmin, l.xmax, l FROM \"{}\".locks AS l ORDER BY l.name", place.schema);
    let text = format!("SELECT rows::text FROM ({rows}) AS rows");
    sqlx::query_scalar(AssertSqlSafe(text)).fetch_all(&place.admin).await.unwrap()
}

async fn each_request_of_a_group_is_judged_by_its_own_tick_and_after_those_before_it() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let first = at_once("x", 5);
    let plain = ask("y", seconds(30));
    let group = [
        first.clone(),
        at_once("x", 5),
        at_once("x", 6),
        ask("x", seconds(30)),
        first.clone(),
        plain.clone(),
        after_work("y", 5),
        after_work("z", 7),
        at_once("z", 7),
    ];
    let answers = all(&locks, &group).await;
    let grant = granted(answers[0].clone());
    assert!(is_finished(&answers[1], 5), "{answers:?}");
    assert!(matches!(answers[2..4], [Acquired::Held(_), Acquired::Held(_)]), "{answers:?}");
    assert_eq!(granted(answers[4].clone()).token, grant.token, "the call's own tick");
    let (plain_grant, work) = (granted(answers[5].clone()), granted(answers[7].clone()));
    assert!(matches!((&answers[6], &answers[8]), (Acquired::Held(_), Acquired::Held(_))), "{answers:?}");

    // Of the releases, only those that find their lease use a tick up.
    let done = |release: ReleaseRequest, tick| ReleaseRequest { done: Some(Tick(tick)), ..release };
    let releases = [
        done(ReleaseRequest { owner: OwnerId::from_u128(1), ..give_back(&group[7], work) }, 9),
        done(give_back(&group[7], work), 7),
        done(give_back(&group[7], work), 8),
        done(give_back(&first, grant), 3),
        give_back(&plain, plain_grant),
    ];
    let released: Vec<_> = locks.release_many(&releases).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(released.iter().filter(|released| **released == Released::Released).count(), 3, "{released:?}");
    // In one statement, each with a tick of its own or none.
    let answers = all(&locks, &[after_work("z", 7), at_once("x", 4), after_work("y", 1), ask("w", seconds(30))]).await;
    assert!(is_finished(&answers[0], 7) && is_finished(&answers[1], 5), "{answers:?}");
    granted(answers[2].clone());
    granted(answers[3].clone());
    for answer in all(&locks, &[after_work("z", 8), at_once("x", 6)]).await {
        granted(answer);
    }
    place.clear().await;
}

/// What the row says is newer than what was there when the statement began.
async fn a_tick_that_was_used_up_while_the_asker_waited_for_the_row_is_not_granted() {
    let place = Place::new().await;
    let app = common::unique();
    let url = format!("{}?application_name={app}", place.url);
    let locks = PostgresLocks::builder(url).schema(&place.schema).build().await.unwrap();
    let blocked =
        format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = '{app}'");
    // A name that is text within JSON.
    let lock = "free \"\\ 🔒";
    take(&locks, lock).await;
    let (free, taken) = (
        "free_at = clock_timestamp(), expires_at = clock_timestamp()",
        "free_at = clock_timestamp() + interval '1 hour'",
    );
    let unchanged =
        "SELECT count(*) FROM {s}.locks WHERE last_tick = 7 AND owner IS NULL AND wanted_until <= clock_timestamp()";
    for make in [at_once, after_work] {
        // What the lock was when the statement began, what it is after the wait, and whether the asker waits for it.
        for (before, after, waits) in
            [(free, free, false), (free, taken, false), (free, taken, true), (taken, taken, true)]
        {
            let mut told = None;
            // A statement doesn't wait for a row for long; on a slow machine it gives up, and the story is told again.
            for _ in 0..10 {
                place.sql(&format!("UPDATE {{s}}.locks SET owner = NULL, last_tick = NULL, {before}")).await;
                let mut other = place.admin.begin().await.unwrap();
                let use_up = format!("UPDATE \"{}\".locks SET last_tick = 7, {after}", place.schema);
                sqlx::raw_sql(AssertSqlSafe(use_up)).execute(&mut *other).await.unwrap();
                let request = if waits { waiting(make(lock, 6)) } else { make(lock, 6) };
                let asking = tokio::spawn({
                    let locks = locks.clone();
                    async move { locks.acquire(&request).await }
                });
                while place.number(&blocked).await == 0 && !asking.is_finished() {
                    tokio::task::yield_now().await;
                }
                other.commit().await.unwrap();
                match asking.await.unwrap() {
                    Err(error) if error.kind() == ErrorKind::Contention => {}
                    answer => {
                        told = Some(answer.unwrap());
                        break;
                    }
                }
            }
            let told = told.expect("ten times too slow");
            assert!(is_finished(&told, 7), "{before}, then {after}: {told:?}");
            assert_eq!(place.number(unchanged).await, 1, "{before}, then {after}");
        }
    }
    place.clear().await;
}

async fn who_is_told_that_a_tick_was_used_up_writes_nothing() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (running, over) = (at_once("running", 5), at_once("over", 5));
    granted(locks.acquire(&running).await.unwrap());
    let grant = granted(locks.acquire(&over).await.unwrap());
    locks.release(&give_back(&over, grant)).await.unwrap();
    let before = rows(&place).await;
    let late = [waiting(at_once("running", 5)), waiting(after_work("over", 4))];
    for answer in all(&locks, &late).await {
        assert!(is_finished(&answer, 5), "{answer:?}");
    }
    assert_eq!(rows(&place).await, before);
    // Who waits for the next one marks the row, as ever.
    assert!(matches!(locks.acquire(&waiting(at_once("running", 6))).await.unwrap(), Acquired::Held(_)));
    assert_ne!(rows(&place).await, before);
    // And has used nothing up by it.
    assert!(locks.force_release(&name("running")).await.unwrap());
    granted(locks.acquire(&at_once("running", 6)).await.unwrap());
    place.clear().await;
}

async fn a_last_tick_that_nobody_of_us_wrote_is_an_error_for_those_who_ask_for_one() {
    let place = Place::new().await;
    let locks = place.locks().await;
    granted(locks.acquire(&at_once("x", 5)).await.unwrap());
    place.sql("UPDATE {s}.locks SET last_tick = 9007199254740992").await;
    let error = locks.acquire(&at_once("x", 6)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(matches!(locks.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Held(_)));
    assert!(locks.force_release(&name("x")).await.unwrap());
    take(&locks, "x").await;
    // One that is no tick at all never was used up.
    place.sql("UPDATE {s}.locks SET last_tick = -1, free_at = clock_timestamp(), expires_at = clock_timestamp()").await;
    granted(locks.acquire(&at_once("x", Tick::MAX.0)).await.unwrap());
    assert!(is_finished(&locks.acquire(&at_once("x", Tick::MAX.0)).await.unwrap(), Tick::MAX.0));
    place.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    each_request_of_a_group_is_judged_by_its_own_tick_and_after_those_before_it,
    a_tick_that_was_used_up_while_the_asker_waited_for_the_row_is_not_granted,
    who_is_told_that_a_tick_was_used_up_writes_nothing,
    a_last_tick_that_nobody_of_us_wrote_is_an_error_for_those_who_ask_for_one,
);
