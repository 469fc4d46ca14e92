//! What a fenced write costs: messages, and time next to a plain one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Counts, Place, accounts, fence, seconds};
use lock_core::{Clock, FenceError, FenceRegister, Locks, Pass, Resource, SystemClock};
use lock_etcd::EtcdFences;

/// What one step costs the server.
async fn messages<T>(place: &Place<testbed::PrivateServer>, step: impl Future<Output = T>) -> (f64, T) {
    let before = Counts::of(place.host_port()).await.messages();
    let outcome = step.await;
    (Counts::of(place.host_port()).await.messages() - before, outcome)
}

async fn a_write_is_one_message() {
    let place = Place::alone().await;
    let (mine, other) = (place.fences().await, place.fences().await);
    let (accounts, other_resource) = (accounts(), Resource::new("others").unwrap());
    let write = |by: &EtcdFences, resource: &Resource, token: u64, pass: Pass| {
        let (by, resource, put) = (by.clone(), resource.clone(), place.put("x", &token.to_string()));
        async move { by.write(&resource, &fence("x", token), pass, [put]).await }
    };
    let (first, _) = messages(&place, async { write(&mine, &accounts, 5, Pass::Again).await.unwrap() }).await;
    let (steady, ()) = messages(&place, async {
        for _ in 0..200 {
            write(&mine, &accounts, 5, Pass::Again).await.unwrap();
        }
    })
    .await;
    let (grants, ()) = messages(&place, async {
        for token in 6..106 {
            write(&mine, &accounts, token, Pass::Once).await.unwrap();
        }
    })
    .await;
    let (elsewhere, _) = messages(&place, async { write(&other, &accounts, 200, Pass::Again).await.unwrap() }).await;
    let (stale, error) = messages(&place, async { write(&mine, &accounts, 105, Pass::Again).await.unwrap_err() }).await;
    assert!(matches!(&error, FenceError::Stale(stale) if stale.highest.get() == 200), "{error}");
    other.raise(&other_resource, &fence("x", 7), Pass::Again).await.unwrap();
    let (raised, ()) = messages(&place, async {
        for _ in 0..10 {
            write(&mine, &other_resource, 7, Pass::Again).await.unwrap();
        }
    })
    .await;
    println!(
        "messages: {steady} for 200 writes of one grant, {grants} for 100 grants of one process that write once each,"
    );
    println!("{raised} for 10 writes of a fence that another process raised; {first} for the first of a resource,");
    println!("{elsewhere} for the first of a grant at another process, {stale} for a refusal");
    assert_eq!((steady, grants, raised, stale), (200.0, 100.0, 10.0, 1.0));
    assert!(first <= 2.0 && elsewhere <= 2.0, "{first} {elsewhere}");
}

async fn a_write_under_the_locks_own_key_is_one_message() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let guard = Locks::new(locks.clone()).lock("x").ttl(seconds(600)).acquire().await.unwrap();
    let lease = (*guard).clone();
    let (sent, ()) = messages(&place, async {
        for round in 0..200 {
            locks.write(&lease, [place.put("x", &round.to_string())]).await.unwrap();
        }
    })
    .await;
    guard.release().await.unwrap();
    let (refused, _) =
        messages(&place, async { locks.write(&lease, [place.put("x", "late")]).await.unwrap_err() }).await;
    println!("messages: {sent} for 200 writes under the lock's own key, {refused} for a refusal");
    assert_eq!((sent, refused), (200.0, 1.0));
}

/// A put, one under the lock's own key, and one under a register, in turns.
async fn a_fenced_write_costs_about_as_much_as_a_plain_one() {
    const ROUNDS: usize = 400;
    let place = Place::alone().await;
    let (locks, fences, accounts) = (place.locks().await, place.fences().await, accounts());
    let mut operator = place.operator().await;
    let guard = Locks::new(locks.clone()).lock("x").ttl(seconds(600)).acquire().await.unwrap();
    fences.raise(&accounts, &guard.fence().unwrap(), Pass::Again).await.unwrap();
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..ROUNDS {
        let value = round.to_string();
        let begun = SystemClock.now();
        operator.put(place.data("plain"), value.as_str(), None).await.unwrap();
        times[0].push(SystemClock.now().since(begun));
        let begun = SystemClock.now();
        locks.write(&guard, [place.put("held", &value)]).await.unwrap();
        times[1].push(SystemClock.now().since(begun));
        let begun = SystemClock.now();
        fences.write(&accounts, &guard, Pass::Again, [place.put("fenced", &value)]).await.unwrap();
        times[2].push(SystemClock.now().since(begun));
    }
    let [plain, held, fenced] = times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2]
    });
    let ratio = |time: Duration| time.as_secs_f64() / plain.as_secs_f64();
    println!("median of {ROUNDS}: a plain put {plain:.2?};");
    println!(
        "under the lock's own key {held:.2?}, {:.2} times; under a register {fenced:.2?}, {:.2} times",
        ratio(held),
        ratio(fenced)
    );
    assert!(ratio(held) < 1.6 && ratio(fenced) < 1.6, "{} {}", ratio(held), ratio(fenced));
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    a_write_is_one_message,
    a_write_under_the_locks_own_key_is_one_message,
    a_fenced_write_costs_about_as_much_as_a_plain_one,
);
