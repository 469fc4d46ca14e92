//! Many at once: one command, an answer for each.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, again, ask, give_back, granted, name, seconds, take};
use futures_util::future::join_all;
use lock_core::{
    AcquireRequest, Acquired, ErrorKind, Grant, LockProvider, LockState, ReleaseRequest, Released, RenewRequest,
    Renewed, StoreError, Waiting,
};
use mongodb::bson::doc;

fn pairs(requests: &[AcquireRequest], answers: Vec<Result<Acquired, StoreError>>) -> Vec<(AcquireRequest, Grant)> {
    let all = requests.iter().cloned().zip(answers);
    all.filter_map(|(request, answer)| match answer.unwrap() {
        Acquired::Granted(grant) => Some((request, grant)),
        _ => None,
    })
    .collect()
}

async fn groups_of_several_clients_share_out_the_locks() {
    let place = Place::new().await;
    let mut tasks = Vec::new();
    for forwards in [true, false, true, false] {
        let locks = place.locks().await;
        tasks.push(tokio::spawn(async move {
            let mut granted = 0;
            for round in 0..6 {
                let mut requests: Vec<_> = (0..200).map(|n| ask(&format!("{n}"), seconds(30))).collect();
                if !forwards {
                    requests.reverse();
                }
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
    place.clear().await;
}

async fn answers_come_in_the_order_of_the_requests_even_for_one_lock_twice() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (held, _) = take(&locks, "held").await;
    let twice = ask("twice", seconds(30));
    let mut waits = ask("held", seconds(30));
    waits.waiting = Waiting::Wake(seconds(30));
    let requests = [
        ask("b", seconds(30)),
        ask("held", seconds(30)),
        twice.clone(),
        ask("a", Duration::from_millis(1)),
        ask("twice", seconds(30)),
        twice,
        held,
        waits,
        ask("a", seconds(30)),
    ];
    let answers = locks.acquire_many(&requests).await;
    let is_granted: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().map(|answer| matches!(answer, Acquired::Granted(_))).ok())
        .collect();
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(is_granted, [yes, no, yes, None, no, yes, yes, no, yes]);
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
    // Each in a group of two, so that none is sent alone.
    for wrong in [
        RenewRequest { owner: stranger.owner, ..again(&mine, grant) },
        RenewRequest { token: stale, ..again(&mine, grant) },
    ] {
        let renewed = locks.renew_many(&[wrong, again(&other, other_grant)]).await;
        let renewed: Vec<_> = renewed.into_iter().map(Result::unwrap).collect();
        assert_eq!(renewed, [Renewed::Lost, Renewed::Held(seconds(30))]);
    }
    let nobodys = ReleaseRequest::new(name("unknown"), stranger.owner, None);
    for wrong in [
        ReleaseRequest { owner: stranger.owner, ..give_back(&mine, grant) },
        ReleaseRequest { owner: stranger.owner, token: None, ..give_back(&mine, grant) },
        ReleaseRequest { token: Some(stale), ..give_back(&mine, grant) },
    ] {
        let released = locks.release_many(&[wrong, nobodys.clone()]).await;
        assert!(released.into_iter().all(|released| released.unwrap() == Released::NotHeld));
    }
    let released =
        locks.release_many(&[nobodys, ReleaseRequest { token: None, ..give_back(&other, other_grant) }]).await;
    let released: Vec<_> = released.into_iter().map(Result::unwrap).collect();
    assert_eq!(released, [Released::NotHeld, Released::Released]);
    let status = locks.inspect(&name("mine")).await.unwrap().unwrap();
    let LockState::Held(holding) = &status.state else { panic!("{status:?}") };
    assert!(holding.owner == mine.owner && holding.remaining <= Duration::from_millis(30_001), "{status:?}");
    place.clear().await;
}

async fn more_than_one_command_carries() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let requests: Vec<_> = (0..700).map(|n| ask(&format!("{n}"), seconds(30))).collect();
    let held = pairs(&requests, locks.acquire_many(&requests).await);
    assert_eq!(held.len(), 700);
    let renewals: Vec<_> = held.iter().map(|(request, grant)| again(request, *grant)).collect();
    assert!(
        locks.renew_many(&renewals).await.into_iter().all(|renewed| renewed.unwrap() == Renewed::Held(seconds(30)))
    );
    place.clear().await;
}

/// All insert the same record that isn't there yet: the server refuses all but one with E11000.
async fn racing_inserts_of_one_name_are_one_grant() {
    let place = Place::new().await;
    let clients = [place.locks().await, place.locks().await, place.locks().await];
    for round in 0..10 {
        let fresh = format!("fresh-{round}");
        let singles = (0..24).map(|n| {
            let (locks, request) = (clients[n % 3].clone(), ask(&fresh, seconds(30)));
            async move { vec![locks.acquire(&request).await] }
        });
        // And in groups, which learn of it by statement.
        let groups = (0..6).map(|n| {
            let locks = clients[n % 3].clone();
            let requests = [ask(&fresh, seconds(30)), ask(&format!("{fresh}-{n}"), seconds(30))];
            async move { locks.acquire_many(&requests).await.into_iter().take(1).collect() }
        });
        let (singles, groups): (Vec<Vec<_>>, Vec<Vec<_>>) = tokio::join!(join_all(singles), join_all(groups));
        let answers: Vec<_> = singles.into_iter().chain(groups).flatten().map(Result::unwrap).collect();
        assert_eq!(answers.len(), 30);
        let granted = answers.iter().filter(|answer| matches!(answer, Acquired::Granted(_))).count();
        assert_eq!(granted, 1, "{answers:?}");
    }
    place.clear().await;
}

/// Somebody else's transaction holds one of the records: the others' leases must not wait for it.
async fn a_record_under_a_foreign_transaction_costs_the_others_nothing() {
    let place = Place::new().await;
    let locks = place.builder().operation_timeout(seconds(2)).build().await.unwrap();
    let requests: Vec<_> = ["a", "b", "c", "d"].into_iter().map(|lock| ask(lock, seconds(60))).collect();
    let held = pairs(&requests, locks.acquire_many(&requests).await);
    let mut session = place.client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let theirs = place.records();
    theirs.update_one(doc! { "_id": "b" }, doc! { "$set": { "x": 1 } }).session(&mut session).await.unwrap();

    let renewals: Vec<_> = held.iter().map(|(request, grant)| again(request, *grant)).collect();
    let renewed = locks.renew_many(&renewals).await;
    let acquired = locks.acquire_many(&requests).await;
    let releases: Vec<_> = held.iter().map(|(request, grant)| give_back(request, *grant)).collect();
    let released = locks.release_many(&releases).await;
    session.abort_transaction().await.unwrap();
    for at in [0, 2, 3] {
        assert_eq!(renewed[at].clone().unwrap(), Renewed::Held(seconds(60)), "{at}");
        assert_eq!(granted(acquired[at].clone().unwrap()).token, held[at].1.token, "{at}");
        assert_eq!(released[at].clone().unwrap(), Released::Released, "{at}");
    }
    for error in [renewed[1].as_ref().err(), acquired[1].as_ref().err(), released[1].as_ref().err()] {
        assert_eq!(error.map(StoreError::kind), Some(ErrorKind::Timeout), "{error:?}");
    }
    place.clear().await;
}

testbed::server_tests!(testbed::mongo =>
    groups_of_several_clients_share_out_the_locks,
    answers_come_in_the_order_of_the_requests_even_for_one_lock_twice,
    strangers_change_nothing_in_a_group,
    more_than_one_command_carries,
    racing_inserts_of_one_name_are_one_grant,
    a_record_under_a_foreign_transaction_costs_the_others_nothing,
);
