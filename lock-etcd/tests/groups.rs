//! Many at once: one transaction, an answer for each.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Counts, Place, again, ask, give_back, granted, name, queue, seconds, start, take};
use lock_core::{
    AcquireRequest, Acquired, ErrorKind, FencingToken, Grant, LockProvider, ReleaseRequest, Released, RenewRequest,
    Renewed, StoreError, Tick,
};

fn pairs(requests: &[AcquireRequest], answers: Vec<Result<Acquired, StoreError>>) -> Vec<(AcquireRequest, Grant)> {
    let all = requests.iter().cloned().zip(answers);
    all.filter_map(|(request, answer)| match answer.unwrap() {
        Acquired::Granted(grant) => Some((request, grant)),
        _ => None,
    })
    .collect()
}

async fn more_than_one_transaction_carries() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let requests: Vec<_> = (0..300).map(|n| ask(&format!("{n}"), seconds(30))).collect();
    let before = Counts::of(place.host_port()).await.transactions();
    let held = pairs(&requests, locks.acquire_many(&requests).await);
    assert_eq!(held.len(), 300);
    let renewals: Vec<_> = held.iter().map(|(request, grant)| again(request, *grant)).collect();
    let renewed = locks.renew_many(&renewals).await;
    assert!(renewed.into_iter().all(|renewed| matches!(renewed.unwrap(), Renewed::Held(_))));
    let releases: Vec<_> = held.iter().map(|(request, grant)| give_back(request, *grant)).collect();
    let released = locks.release_many(&releases).await;
    assert!(released.into_iter().all(|released| released.unwrap() == Released::Released));
    let sent = Counts::of(place.host_port()).await.transactions() - before;
    println!("300 acquired, renewed and released with {sent} transactions");
    assert!(sent <= 12.0, "{sent}");
    assert!(place.keys("").await.is_empty());
}

/// All kinds of requests in one group: the server checks that no key is written twice, in whatever branch.
async fn a_group_of_all_kinds_is_one_transaction() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let (held, held_grant) = take(&locks, "held", seconds(30)).await;
    let (twice, tick) = (ask("twice", seconds(30)), AcquireRequest { tick: Some(Tick(7)), ..ask("tick", seconds(30)) });
    let requests = [
        ask("b", seconds(30)),
        ask("held", seconds(30)),
        twice.clone(),
        ask("a", Duration::from_millis(1)),
        ask("twice", seconds(30)),
        twice,
        held.clone(),
        queue("held", seconds(30)),
        tick.clone(),
        queue("free", seconds(10)),
    ];
    let answers = locks.acquire_many(&requests).await;
    let is_granted: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().map(|answer| matches!(answer, Acquired::Granted(_))).ok())
        .collect();
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(is_granted, [yes, no, yes, None, no, yes, yes, no, yes, yes]);
    let error = answers[3].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.lock()), (ErrorKind::InvalidTtl, Some(&name("a"))));
    let tokens: Vec<_> = [2, 5].map(|at: usize| granted(answers[at].clone().unwrap()).token).into();
    assert_eq!(tokens[0], tokens[1], "the same owner asked again");

    let grant_of = |at: usize| granted(answers[at].clone().unwrap());
    let releases = [
        give_back(&held, held_grant),
        ReleaseRequest { done: Some(Tick(7)), ..give_back(&tick, grant_of(8)) },
        ReleaseRequest { keep_for: seconds(1), ..give_back(&requests[0], grant_of(0)) },
        ReleaseRequest::new(name("unknown"), held.owner, None),
        ReleaseRequest::new(name("free"), requests[9].owner, None),
    ];
    let released: Vec<_> = locks.release_many(&releases).await.into_iter().map(Result::unwrap).collect();
    let (yes, no) = (Released::Released, Released::NotHeld);
    assert_eq!(released, [yes, yes, yes, no, yes]);
    assert!(matches!(locks.acquire(&tick).await.unwrap(), Acquired::Finished(Tick(7))));
    granted(locks.acquire(&requests[7]).await.unwrap());
}

async fn strangers_change_nothing_in_a_group() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let (mine, grant) = take(&locks, "mine", seconds(30)).await;
    let (other, other_grant) = take(&locks, "other", seconds(30)).await;
    let stranger = ask("mine", seconds(30));
    let stale = FencingToken::new(grant.token.get() - 1);
    for wrong in [
        RenewRequest { owner: stranger.owner, ..again(&mine, grant) },
        RenewRequest { token: stale, ..again(&mine, grant) },
    ] {
        let renewed = locks.renew_many(&[wrong, again(&other, other_grant)]).await;
        let renewed: Vec<_> = renewed.into_iter().map(Result::unwrap).collect();
        assert!(matches!(renewed[..], [Renewed::Lost, Renewed::Held(_)]), "{renewed:?}");
    }
    // That a stale one asked has not made us forget ours.
    assert!(matches!(locks.renew(&again(&mine, grant)).await.unwrap(), Renewed::Held(_)));
    for wrong in [
        ReleaseRequest { owner: stranger.owner, ..give_back(&mine, grant) },
        ReleaseRequest { token: Some(stale), ..give_back(&mine, grant) },
    ] {
        let released = locks.release_many(&[wrong, ReleaseRequest::new(name("unknown"), stranger.owner, None)]).await;
        assert!(released.into_iter().all(|released| released.unwrap() == Released::NotHeld));
    }
    assert!(matches!(locks.renew(&again(&mine, grant)).await.unwrap(), Renewed::Held(_)));
    assert_eq!(locks.release(&give_back(&mine, grant)).await.unwrap(), Released::Released);
    // Nor to delete it at its end, though the lease that it shares is kept alive.
    let (short, short_grant) = take(&locks, "short", seconds(2)).await;
    let (kept, kept_grant) = take(&locks, "kept", seconds(2)).await;
    assert_eq!(locks.renew(&RenewRequest { token: stale, ..again(&short, short_grant) }).await.unwrap(), Renewed::Lost);
    let wrong = ReleaseRequest { token: Some(stale), ..give_back(&short, short_grant) };
    assert_eq!(locks.release(&wrong).await.unwrap(), Released::NotHeld);
    for _ in 0..6 {
        common::pass(Duration::from_millis(500)).await;
        assert!(matches!(locks.renew(&again(&kept, kept_grant)).await.unwrap(), Renewed::Held(_)));
    }
    assert!(place.keys("l/short").await.is_empty());
}

/// A server that takes few operations at once is told of, and served.
async fn a_server_that_takes_few_operations_is_served() {
    let server = start(|| testbed::etcd_private_with(&["--max-txn-ops=40"])).await;
    let place = Place::on(server);
    let locks = place.builder().max_txn_ops(40).build().await.unwrap();
    let requests: Vec<_> = (0..50).map(|n| queue(&format!("{n}"), seconds(30))).collect();
    let held = pairs(&requests, locks.acquire_many(&requests).await);
    assert_eq!(held.len(), 50);
    let renewals: Vec<_> = held.iter().map(|(request, grant)| again(request, *grant)).collect();
    let renewed = locks.renew_many(&renewals).await;
    assert!(renewed.into_iter().all(|renewed| matches!(renewed.unwrap(), Renewed::Held(_))));
    // With its own default it is told what is wrong.
    let careless = place.locks().await;
    let requests: Vec<_> = (50..150).map(|n| ask(&format!("{n}"), seconds(30))).collect();
    for answer in careless.acquire_many(&requests).await.into_iter().take(90) {
        let error = answer.unwrap_err();
        assert!(error.kind() == ErrorKind::NotReady && error.to_string().contains("max-txn-ops"), "{error}");
    }
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    more_than_one_transaction_carries,
    a_group_of_all_kinds_is_one_transaction,
    strangers_change_nothing_in_a_group,
    a_server_that_takes_few_operations_is_served,
);
