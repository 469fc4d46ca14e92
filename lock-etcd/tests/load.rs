//! Many leases, and the way from one holder to the next. Figures are printed; run with `--release` to compare them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Counts, Place, in_time, pass, seconds};
use futures_util::future::join_all;
use lock_core::{Clock, Locks, SystemClock};
use lock_etcd::etcd_client::{Client, LockOptions};

/// A thousand leases of one client cost the server a message per keep-alive of the one lease they share.
async fn a_thousand_leases_are_kept_alive_by_a_handful_of_messages() {
    let place = Place::alone().await;
    let locks = Locks::new(place.locks().await);
    let asked = (0..1000).map(|n| locks.lock(format!("{n}")).ttl(seconds(10)).acquire());
    let guards: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    pass(seconds(5)).await;
    let before = Counts::of(place.host_port()).await;
    pass(seconds(20)).await;
    let after = Counts::of(place.host_port()).await;
    let keep_alives = (after.keep_alives() - before.keep_alives()) / 2.0;
    let transactions = (after.transactions() - before.transactions()) / 2.0;
    println!("in 10 s: {keep_alives} keep-alives and {transactions} transactions for 1,000 leases of 10 s");
    assert!(guards.iter().all(|guard| guard.is_valid()));
    assert!((1.0..=10.0).contains(&keep_alives), "{keep_alives}");
    assert!(transactions < 100.0, "{transactions}");
    for released in join_all(guards.into_iter().map(lock_core::LeaseGuard::release)).await {
        released.unwrap();
    }
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn ours(place: &Place<testbed::PrivateServer>, rounds: usize) -> Duration {
    let clients = [Locks::new(place.locks().await), Locks::new(place.locks().await)];
    let mut guard = clients[0].lock("ours").ttl(seconds(30)).acquire().await.unwrap();
    let mut times = Vec::new();
    for round in 1..=rounds {
        let waiting = tokio::spawn(clients[round % 2].lock("ours").ttl(seconds(30)).acquire());
        pass(Duration::from_millis(20)).await;
        let begun = SystemClock.now();
        let released = tokio::spawn(guard.release());
        guard = in_time(waiting).await.unwrap().unwrap();
        times.push(SystemClock.now().since(begun));
        released.await.unwrap().unwrap();
    }
    guard.release().await.unwrap();
    middle(times)
}

/// The driver's own `lock()`: the server's lock service.
async fn theirs(place: &Place<testbed::PrivateServer>, rounds: usize) -> Duration {
    let clients = [place.operator().await, place.operator().await];
    let lock = |client: &Client| {
        let mut client = client.clone();
        async move {
            let lease = client.lease_grant(30, None).await.unwrap().id();
            client.lock("theirs", Some(LockOptions::new().with_lease(lease))).await.unwrap().key().to_vec()
        }
    };
    let mut key = lock(&clients[0]).await;
    let mut times = Vec::new();
    for round in 1..=rounds {
        let waiting = tokio::spawn(lock(&clients[round % 2]));
        pass(Duration::from_millis(150)).await;
        let begun = SystemClock.now();
        let mut holder = clients[(round + 1) % 2].clone();
        let released = tokio::spawn(async move { holder.unlock(key).await.unwrap() });
        key = in_time(waiting).await.unwrap();
        times.push(SystemClock.now().since(begun));
        released.await.unwrap();
    }
    middle(times)
}

/// From the release to the next holder: one transaction, one event, one look.
async fn a_hand_off_is_quick() {
    let place = Place::alone().await;
    let (ours, theirs) = (ours(&place, 100).await, theirs(&place, 100).await);
    println!("hand-off, median of 100: ours {ours:.2?}, the driver's lock() {theirs:.2?}");
    assert!(ours < Duration::from_millis(50).max(theirs * 3), "{ours:?}, theirs {theirs:?}");
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    a_thousand_leases_are_kept_alive_by_a_handful_of_messages,
    a_hand_off_is_quick,
);
