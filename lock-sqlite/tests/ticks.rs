//! Ticks: kept with the rest of the record, told without a write, and added to the files of earlier programs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

mod common;

use common::{Home, TTL, ask, extend, give_back, granted, is_held, name, take};
use lock_core::{
    AcquireRequest, Acquired, ErrorKind, LockProvider, LockState, OwnerId, ReleaseRequest, Released, Renewed, Tick,
    TickUse,
};
use lock_sqlite::{
    SqliteLocks,
    sqlx::{self, AssertSqlSafe, Connection},
};

/// A wish for a tick that its grant uses up.
fn at_once(lock: &str, tick: u64) -> AcquireRequest {
    AcquireRequest { tick: Some(Tick(tick)), ..ask(lock, TTL) }
}

fn after_work(lock: &str, tick: u64) -> AcquireRequest {
    AcquireRequest { tick_use: TickUse::AtRelease, ..at_once(lock, tick) }
}

fn is_finished(answer: &Acquired, last: u64) -> bool {
    matches!(answer, Acquired::Finished(tick) if *tick == Tick(last))
}

async fn execute(home: &Home, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut home.sql().await).await.unwrap();
}

async fn last_tick(home: &Home) -> Option<i64> {
    sqlx::query_scalar("SELECT last_tick FROM leasehold_locks").fetch_one(&mut home.sql().await).await.unwrap()
}

#[tokio::test]
async fn in_a_group_each_request_is_judged_after_those_before_it() {
    let home = Home::new();
    let locks = home.locks().await;
    let first = at_once("x", 5);
    let plain = ask("y", TTL);
    let group = [
        first.clone(),
        at_once("x", 5),
        at_once("x", 6),
        ask("x", TTL),
        first.clone(),
        plain.clone(),
        after_work("y", 5),
        after_work("z", 7),
        at_once("z", 7),
    ];
    let answers: Vec<_> = locks.acquire_many(&group).await.into_iter().map(Result::unwrap).collect();
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
    let again = [after_work("z", 7), after_work("z", 8), at_once("x", 4), at_once("x", 6), after_work("y", 1)];
    let answers: Vec<_> = locks.acquire_many(&again).await.into_iter().map(Result::unwrap).collect();
    assert!(is_finished(&answers[0], 7) && is_finished(&answers[2], 5), "{answers:?}");
    for at in [1, 3, 4] {
        granted(answers[at].clone());
    }
}

#[tokio::test]
async fn who_is_told_that_a_tick_was_used_up_writes_nothing_and_waits_for_nobody() {
    let home = Home::new();
    let (runner, late) = (home.locks().await, home.locks().await);
    let request = at_once("x", 5);
    let grant = take(&runner, &request).await;
    runner.release(&give_back(&request, grant)).await.unwrap();
    let mut writer = home.sql().await;
    let writing = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert!(is_finished(&late.acquire(&at_once("x", 5)).await.unwrap(), 5));
    drop(writing);
}

#[tokio::test]
async fn a_record_that_nobody_understands_keeps_the_last_tick_that_can_be_read() {
    let home = Home::new();
    let locks = home.locks().await;
    take(&locks, &at_once("x", 5)).await;
    execute(&home, "PRAGMA ignore_check_constraints = ON; UPDATE leasehold_locks SET token = -1").await;
    assert_eq!(locks.acquire(&at_once("x", 5)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(locks.force_release(&name("x")).await.unwrap());
    assert!(is_finished(&locks.acquire(&at_once("x", 5)).await.unwrap(), 5));

    for spoil in [
        "PRAGMA ignore_check_constraints = ON; UPDATE leasehold_locks SET last_tick = -1",
        "PRAGMA ignore_check_constraints = ON; UPDATE leasehold_locks SET last_tick = 9007199254740992",
    ] {
        execute(&home, spoil).await;
        assert_eq!(locks.acquire(&at_once("x", 5)).await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(locks.force_release(&name("x")).await.unwrap());
        assert_eq!(last_tick(&home).await, None);
    }
    take(&locks, &at_once("x", 5)).await;
}

/// A file as an earlier program made it, with a lock that is held on this host and boot; the holder's request.
async fn earlier_file(home: &Home) -> AcquireRequest {
    let held = ask("held", TTL);
    execute(home, include_str!("sql/before_ticks.sql")).await;
    execute(home, "PRAGMA journal_mode = WAL").await;
    // Where this host's clock stands is told by a lease in a file of today.
    let other = Home::new();
    take(&other.locks().await, &held).await;
    let today = "SELECT boot_id, until_ns, ends_micros FROM leasehold_locks";
    let (boot, until, ends): (String, i64, i64) =
        sqlx::query_as(today).fetch_one(&mut other.sql().await).await.unwrap();
    let owner = held.owner;
    let insert = format!(
        "INSERT INTO leasehold_locks (name, token, owner, boot_id, until_ns, holder, ends_micros)
         VALUES ('held', 77, '{owner}', '{boot}', {until}, NULL, {ends})"
    );
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut home.sql().await).await.unwrap();
    held
}

#[tokio::test]
async fn a_file_of_an_earlier_program_gets_ticks_and_keeps_its_leases() {
    let home = Home::new();
    let held = earlier_file(&home).await;
    let locks = home.locks().await;
    let status = locks.inspect(&name("held")).await.unwrap().unwrap();
    let LockState::Held(holding) = status.state else { panic!("{status:?}") };
    assert_eq!((holding.owner, holding.token.get()), (held.owner, 77));
    assert!(matches!(locks.acquire(&at_once("held", 5)).await.unwrap(), Acquired::Held(_)));
    let grant = take(&locks, &held).await;
    assert_eq!(locks.renew(&extend(&held, grant)).await.unwrap(), Renewed::Held(TTL));
    locks.release(&ReleaseRequest { done: Some(Tick(5)), ..give_back(&held, grant) }).await.unwrap();
    assert!(is_finished(&locks.acquire(&at_once("held", 5)).await.unwrap(), 5));
    assert!(take(&locks, &at_once("held", 6)).await.token > grant.token);

    // It is now as one that was made today, also for who opens it next.
    assert!(is_held(&home.locks().await, "held").await);
    let today = Home::new();
    drop(today.locks().await);
    let columns = "SELECT name, type, \"notnull\", pk FROM pragma_table_info('leasehold_locks')";
    let columns = async |home: &Home| -> Vec<(String, String, bool, bool)> {
        sqlx::query_as(columns).fetch_all(&mut home.sql().await).await.unwrap()
    };
    assert_eq!(columns(&home).await, columns(&today).await);
    let negative = "UPDATE leasehold_locks SET last_tick = -1";
    sqlx::raw_sql(negative).execute(&mut home.sql().await).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_open_a_file_of_an_earlier_program_at_once() {
    let home = Home::new();
    earlier_file(&home).await;
    let open = |_| {
        let path = home.path();
        tokio::spawn(async move { SqliteLocks::builder(path).build().await.unwrap().acquire(&at_once("x", 5)).await })
    };
    let mut ran = 0;
    for opened in (0..12).map(open).collect::<Vec<_>>() {
        ran += usize::from(matches!(opened.await.unwrap().unwrap(), Acquired::Granted(_)));
    }
    assert_eq!(ran, 1);
}

#[tokio::test]
async fn a_file_that_is_refused_is_not_upgraded() {
    let newer = Home::new();
    earlier_file(&newer).await;
    execute(&newer, "UPDATE leasehold_schema SET version = 2").await;
    let strange = Home::new();
    earlier_file(&strange).await;
    execute(&strange, "DROP TABLE leasehold_locks; CREATE TABLE leasehold_locks (mine)").await;
    for (home, says) in [(newer, "upgrade this program"), (strange, "not of this program")] {
        let error = SqliteLocks::builder(home.path()).build().await.unwrap_err();
        assert!(error.kind() == ErrorKind::NotReady && error.to_string().contains(says), "{error}");
        let has: bool = sqlx::query_scalar(include_str!("../src/sql/has_last_tick.sql"))
            .fetch_one(&mut home.sql().await)
            .await
            .unwrap();
        assert!(!has, "{error}");
    }
}
