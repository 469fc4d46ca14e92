//! Many at once: one statement, no deadlock, an answer for each.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, again, ask, give_back, granted, name, seconds, take};
use lock_core::{
    AcquireRequest, Acquired, ErrorKind, Grant, LockProvider, LockState, ReleaseRequest, Released, RenewRequest,
    Renewed,
};

fn pairs(
    requests: &[AcquireRequest],
    answers: Vec<Result<Acquired, lock_core::StoreError>>,
) -> Vec<(AcquireRequest, Grant)> {
    let all = requests.iter().cloned().zip(answers);
    all.filter_map(|(request, answer)| match answer.unwrap() {
        Acquired::Granted(grant) => Some((request, grant)),
        _ => None,
    })
    .collect()
}

async fn opposite_orders_do_not_deadlock() {
    let place = Place::new().await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let before = place.number(deadlocks).await;
    let mut tasks = Vec::new();
    for forwards in [true, false, true, false] {
        // A provider of its own each: other connections, as in other processes.
        let locks = place.locks().await;
        tasks.push(tokio::spawn(async move {
            let mut granted = 0;
            for round in 0..40 {
                let mut requests: Vec<_> = (0..200).map(|n| ask(&format!("{n}"), seconds(30))).collect();
                if !forwards {
                    requests.reverse();
                }
                // Some have a lease that must be renewed and released in the same crowd.
                requests.rotate_left(round * 7 % 200);
                let held = pairs(&requests, locks.acquire_many(&requests).await);
                let renewals: Vec<_> = held.iter().map(|(request, grant)| again(request, *grant)).collect();
                for renewed in locks.renew_many(&renewals).await {
                    assert_eq!(renewed.unwrap(), Renewed::Held(seconds(30)));
                }
                let releases: Vec<_> = held.iter().rev().map(|(request, grant)| give_back(request, *grant)).collect();
                for released in locks.release_many(&releases).await {
                    assert_eq!(released.unwrap(), Released::Released);
                }
                granted += held.len();
            }
            granted
        }));
    }
    let mut granted = 0;
    for task in tasks {
        granted += task.await.unwrap();
    }
    assert!(granted >= 200, "{granted}");
    // The statistics arrive late, so that a zero proves little alone: no operation above took a second attempt's error either.
    assert_eq!(place.number(deadlocks).await, before);
    place.clear().await;
}

async fn answers_come_in_the_order_of_the_requests_even_for_one_lock_twice() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (held, _) = take(&locks, "held").await;
    let twice = ask("twice", seconds(30));
    let requests = [
        ask("b", seconds(30)),
        ask("held", seconds(30)),
        twice.clone(),
        ask("a", Duration::from_millis(1)),
        ask("twice", seconds(30)),
        twice,
        held,
        ask("a", seconds(30)),
    ];
    let answers = locks.acquire_many(&requests).await;
    let is_granted: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().map(|answer| matches!(answer, Acquired::Granted(_))).ok())
        .collect();
    assert_eq!(
        is_granted,
        [Some(true), Some(false), Some(true), None, Some(false), Some(true), Some(true), Some(true)]
    );
    let error = answers[3].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.lock()), (ErrorKind::InvalidTtl, Some(&name("a"))));
    let tokens: Vec<_> = [2, 5].map(|at: usize| answers[at].clone().map(granted).unwrap().token).into();
    assert_eq!(tokens[0], tokens[1], "the same owner asked again");
    place.clear().await;
}

async fn strangers_change_nothing_in_a_group() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (mine, grant) = take(&locks, "mine").await;
    let (other, other_grant) = take(&locks, "other").await;
    let stranger = ask("mine", seconds(3000));
    let stale = lock_core::FencingToken::new(grant.token.get() - 1);
    let renewals = [
        RenewRequest { owner: stranger.owner, ..again(&mine, grant) },
        RenewRequest { token: stale, ..again(&mine, grant) },
        again(&other, other_grant),
    ];
    let renewed: Vec<_> = locks.renew_many(&renewals).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(renewed, [Renewed::Lost, Renewed::Lost, Renewed::Held(seconds(30))]);
    let releases = [
        ReleaseRequest { owner: stranger.owner, ..give_back(&mine, grant) },
        ReleaseRequest { owner: stranger.owner, token: None, ..give_back(&mine, grant) },
        ReleaseRequest { token: Some(stale), ..give_back(&mine, grant) },
        ReleaseRequest { token: None, ..give_back(&other, other_grant) },
    ];
    let released: Vec<_> = locks.release_many(&releases).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(released, [Released::NotHeld, Released::NotHeld, Released::NotHeld, Released::Released]);
    let status = locks.inspect(&name("mine")).await.unwrap().unwrap();
    assert!(
        matches!(&status.state, LockState::Held(holding) if holding.owner == mine.owner && holding.remaining <= seconds(30)),
        "{status:?}"
    );
    place.clear().await;
}

async fn more_than_one_statement_carries() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let requests: Vec<_> = (0..2500).map(|n| ask(&format!("{n}"), seconds(30))).collect();
    let held = pairs(&requests, locks.acquire_many(&requests).await);
    assert_eq!(held.len(), 2500);
    let renewals: Vec<_> = held.iter().map(|(request, grant)| again(request, *grant)).collect();
    assert!(
        locks.renew_many(&renewals).await.into_iter().all(|renewed| renewed.unwrap() == Renewed::Held(seconds(30)))
    );
    place.clear().await;
}

testbed::server_tests!(testbed::postgres =>
    opposite_orders_do_not_deadlock,
    answers_come_in_the_order_of_the_requests_even_for_one_lock_twice,
    strangers_change_nothing_in_a_group,
    more_than_one_statement_carries,
);
