//! Leases on the server's clock, also when a statement had to wait for a row.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, again, ask, give_back, granted, name, seconds, take};
use futures_util::future::join_all;
use lock_core::{
    Acquired, Applied, Clock, ErrorKind, LockError, LockProvider, LockState, Locks, ReleaseRequest, Released, Renewed,
    SystemClock,
};

/// Waits until a session of this application waits for a row.
async fn somebody_waits(place: &Place, app: &str) {
    let waiting =
        format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = '{app}'");
    while place.number(&waiting).await == 0 {
        tokio::task::yield_now().await;
    }
}

async fn an_acquire_that_waited_for_the_row_is_judged_after_the_wait() {
    let place = Place::new().await;
    let app = common::unique();
    let url = format!("{}?application_name={app}", place.url);
    let builder = lock_postgres::PostgresLocks::builder(url).schema(&place.schema);
    let locks = builder.grace(Duration::ZERO).build().await.unwrap();
    let short = Duration::from_millis(150);
    // A statement doesn't wait for a row for long; on a slow machine it gives up, and the story is told again.
    for round in 0..10 {
        let lock = format!("x{round}");
        granted(locks.acquire(&ask(&lock, short)).await.unwrap());
        // Somebody else's transaction is on the row while the lease expires. The lease was live when the asker's
        // statement began, and it says that it waits: so it goes for the row.
        let row = format!("SELECT FROM \"{}\".locks WHERE name = '{lock}' FOR UPDATE", place.schema);
        let mut other = place.admin.begin().await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(row)).fetch_one(&mut *other).await.unwrap();
        let mut request = ask(&lock, short);
        request.waiting = lock_core::Waiting::Wake(seconds(10));
        let sent = SystemClock.now();
        let asking = tokio::spawn({
            let (locks, request) = (locks.clone(), request.clone());
            async move { locks.acquire(&request).await }
        });
        somebody_waits(&place, &app).await;
        SystemClock.sleep_until(sent + short + Duration::from_millis(20)).await;
        other.rollback().await.unwrap();
        match asking.await.unwrap() {
            Err(error) if error.kind() == ErrorKind::Contention => continue,
            answer => {
                let grant = granted(answer.unwrap());
                // Counted from the start of its statement the lease would have ended already.
                assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(short));
                return place.clear().await;
            }
        }
    }
    panic!("ten times too slow");
}

async fn an_expired_lease_is_nobodys_and_rests_for_its_grace() {
    let place = Place::new().await;
    let locks = place.builder().grace(seconds(1)).build().await.unwrap();
    let request = ask("x", Duration::from_millis(100));
    let asked = SystemClock.now();
    let first = granted(locks.acquire(&request).await.unwrap());
    SystemClock.sleep_until(asked + Duration::from_millis(200)).await;
    assert_eq!(locks.renew(&again(&request, first)).await.unwrap(), Renewed::Lost);
    assert_eq!(locks.release(&give_back(&request, first)).await.unwrap(), Released::NotHeld);
    let Acquired::Held(held) = locks.acquire(&ask("x", seconds(30))).await.unwrap() else { panic!("it rests") };
    assert_eq!(held.holder, None);
    let rest = held.remaining.unwrap();
    assert!(rest > Duration::from_millis(300) && rest <= Duration::from_millis(950), "{rest:?}");
    let status = locks.inspect(&name("x")).await.unwrap().unwrap();
    assert!(matches!(status.state, LockState::Resting(_)), "{status:?}");

    SystemClock.sleep_until(SystemClock.now() + rest).await;
    let (_, second) = take(&locks, "x").await;
    assert!(second.token > first.token);
    assert!(SystemClock.now().since(asked) >= Duration::from_millis(1100));
    place.clear().await;
}

async fn asking_again_and_late_renewals_never_shorten_a_lease_or_change_its_token() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (mut request, grant) = take(&locks, "x").await;
    request.ttl = seconds(1);
    assert_eq!(granted(locks.acquire(&request).await.unwrap()).token, grant.token);
    assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(seconds(1)));
    let status = locks.inspect(&name("x")).await.unwrap().unwrap();
    let LockState::Held(holding) = status.state else { panic!("{status:?}") };
    assert!(holding.remaining > seconds(25), "{holding:?}");
    assert_eq!(holding.token, grant.token);
    place.clear().await;
}

async fn at_least_for_is_kept_by_the_server() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let release = ReleaseRequest { keep_for: seconds(60), ..give_back(&request, grant) };
    assert_eq!(locks.release(&release).await.unwrap(), Released::Released);
    assert_eq!(locks.release(&release).await.unwrap(), Released::NotHeld);
    let Acquired::Held(held) = locks.acquire(&ask("x", seconds(30))).await.unwrap() else { panic!("it is kept") };
    assert!(held.remaining.unwrap() > seconds(55), "{held:?}");
    assert!(!locks.force_release(&name("x")).await.unwrap(), "nobody holds it");
    let (_, next) = take(&locks, "x").await;
    assert!(next.token > grant.token);
    assert!(locks.force_release(&name("x")).await.unwrap());
    let (_, last) = take(&locks, "x").await;
    assert!(last.token > next.token);
    place.clear().await;
}

async fn connections_that_the_server_ended_are_replaced_unnoticed() {
    let place = Place::new().await;
    let app = common::unique();
    let url = format!("{}?application_name={app}", place.url);
    let locks = lock_postgres::PostgresLocks::builder(url).schema(&place.schema).build().await.unwrap();
    let (request, grant) = take(&locks, "x").await;
    // Several idle connections, all of them ended.
    let renewals: Vec<_> = (0..4).map(|_| again(&request, grant)).collect();
    let (a, b, c, d) = tokio::join!(
        locks.renew(&renewals[0]),
        locks.renew(&renewals[1]),
        locks.renew(&renewals[2]),
        locks.renew(&renewals[3])
    );
    assert!([a, b, c, d].into_iter().all(|renewed| renewed.unwrap() == Renewed::Held(seconds(30))));
    let ended =
        format!("SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = '{app}'");
    assert!(place.number(&ended).await >= 1);
    assert_eq!(locks.renew(&renewals[0]).await.unwrap(), Renewed::Held(seconds(30)));
    place.clear().await;
}

async fn an_operation_that_meets_a_held_row_ends_soon_and_was_not_applied() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let mut other = place.admin.begin().await.unwrap();
    let row = format!("SELECT FROM \"{}\".locks WHERE name = 'x' FOR UPDATE", place.schema);
    sqlx::query(sqlx::AssertSqlSafe(row)).fetch_one(&mut *other).await.unwrap();
    let start = SystemClock.now();
    let error = locks.renew(&again(&request, grant)).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    let took = SystemClock.now().since(start);
    assert!(took >= Duration::from_millis(240) && took < seconds(2), "{took:?}");
    other.rollback().await.unwrap();
    assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(seconds(30)));
    place.clear().await;
}

async fn a_row_that_somebody_holds_costs_that_lease_and_no_other() {
    let place = Place::new().await;
    let locks = Locks::new(place.locks().await);
    let ttl = seconds(3);
    let acquiring = (0..50).map(|number| tokio::spawn(locks.lock(format!("lock-{number:02}")).ttl(ttl).acquire()));
    let mut guards = Vec::new();
    for task in acquiring.collect::<Vec<_>>() {
        guards.push(task.await.unwrap().unwrap());
    }
    let mut somebody = place.admin.begin().await.unwrap();
    let hold = format!("SELECT 1 FROM \"{}\".locks WHERE name = 'lock-07' FOR UPDATE", place.schema);
    sqlx::raw_sql(sqlx::AssertSqlSafe(hold)).execute(&mut *somebody).await.unwrap();

    let held = &guards[7];
    assert_eq!(held.lost().await, lock_core::LossReason::Expired, "its own renewal can't be made");
    let valid = guards.iter().filter(|guard| guard.is_valid()).count();
    assert_eq!(valid, 49, "the others were renewed");
    // And what comes meanwhile is granted, given back, or told what is the matter.
    let many =
        (0..30).map(|number| locks.lock(format!("lock-{:02}", number + 7)).ttl(ttl).wait_at_most(seconds(2)).acquire());
    let came = std::time::Duration::from_secs(20);
    let fresh = (0..30).map(|number| locks.lock(format!("fresh-{number}")).ttl(ttl).wait_at_most(seconds(2)).acquire());
    let all = async { tokio::join!(join_all(many), join_all(fresh)) };
    let (many, fresh) = tokio::time::timeout(came, all).await.unwrap();
    assert!(fresh.iter().all(Result::is_ok), "{:?}", fresh.iter().find(|one| one.is_err()));
    assert!(matches!(&many[0], Err(LockError::Store(_))), "nobody can say who has it: {:?}", many[0]);
    for guard in fresh.into_iter().flatten() {
        guard.release().await.unwrap();
    }
    somebody.rollback().await.unwrap();
    assert!(locks.lock("lock-07").ttl(ttl).wait_at_most(seconds(10)).acquire().await.is_ok());
    drop(guards);
    locks.settled().await;
    place.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    a_row_that_somebody_holds_costs_that_lease_and_no_other,
    an_acquire_that_waited_for_the_row_is_judged_after_the_wait,
    an_expired_lease_is_nobodys_and_rests_for_its_grace,
    asking_again_and_late_renewals_never_shorten_a_lease_or_change_its_token,
    at_least_for_is_kept_by_the_server,
    connections_that_the_server_ended_are_replaced_unnoticed,
    an_operation_that_meets_a_held_row_ends_soon_and_was_not_applied,
);
