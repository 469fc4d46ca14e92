//! The check by the lock's own key: a write passes while its grant holds the lock at the store, and never after.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{AsServer, Place, fence, in_time, is_held, name, pass, queue, seconds, unique};
use conformance_tests::Proxy;
use lock_core::{
    Applied, Clock, ErrorKind, Fence, FenceError, InvalidFence, Lease, LeaseGuard, LockProvider, Locks, MemoryLocks,
    Pass, RefusalReason, Resource, SeededEntropy, SystemClock, TestObserver, ToFence,
};
use lock_etcd::{
    EtcdLocks,
    etcd_client::{Client, Compare, CompareOp, Txn, TxnResponse},
};

async fn acquire(locks: &EtcdLocks, ttl: Duration) -> LeaseGuard {
    in_time(Locks::new(locks.clone()).lock("x").ttl(ttl).acquire()).await.unwrap()
}

fn is_not_held(error: &FenceError, lease: &Lease) -> bool {
    matches!(error, FenceError::NotHeld(not) if not.lock == *lease.name() && not.token == lease.token())
}

/// Each way of writing under a lease is refused, and nothing is written.
async fn refuses(place: &Place<impl AsServer>, locks: &EtcdLocks, lease: &Lease) {
    let before: Vec<_> = place.all().await.into_iter().filter(|row| row.key.starts_with("data/")).collect();
    let error = locks.write(lease, [place.put("a", "bad"), place.put("b", "bad")]).await.unwrap_err();
    assert!(is_not_held(&error, lease) && error.applied() == Applied::No, "{error:?}");
    let own = Txn::new().when(locks.hold(lease).unwrap()).and_then([place.put("a", "bad")]);
    assert!(!place.operator().await.txn(own).await.unwrap().succeeded());
    let error = locks.hold_fence(&lease.fence().unwrap()).await.unwrap_err();
    assert!(is_not_held(&error, lease), "{error:?}");
    let after: Vec<_> = place.all().await.into_iter().filter(|row| row.key.starts_with("data/")).collect();
    assert_eq!(before, after);
}

/// Each of them passes.
async fn passes(place: &Place<impl AsServer>, locks: &EtcdLocks, lease: &Lease) {
    let answer = locks.write(lease, [place.put("a", &unique()), place.put("b", &unique())]).await.unwrap();
    assert_eq!(answer.op_responses().len(), 2);
    for when in [locks.hold(lease).unwrap(), locks.hold_fence(&lease.fence().unwrap()).await.unwrap()] {
        let own = Txn::new().when(when).and_then([place.put("a", &unique())]);
        assert!(place.operator().await.txn(own).await.unwrap().succeeded());
    }
}

async fn a_holder_writes_as_often_as_it_likes() {
    let place = Place::shared().await;
    let (locks, other) = (place.locks().await, place.locks().await);
    let guard = acquire(&locks, seconds(6)).await;
    let begun = SystemClock.now();
    // Over renewals, which keep the token.
    while SystemClock.now().since(begun) < seconds(5) {
        passes(&place, &locks, &guard).await;
        passes(&place, &other, &guard).await;
        pass(Duration::from_millis(200)).await;
    }
    guard.release().await.unwrap();
}

async fn a_released_lease_writes_nothing() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let guard = acquire(&locks, seconds(30)).await;
    let lease = (*guard).clone();
    passes(&place, &locks, &lease).await;
    guard.release().await.unwrap();
    refuses(&place, &locks, &lease).await;
    // Nor when somebody else has it.
    let next = acquire(&locks, seconds(30)).await;
    refuses(&place, &locks, &lease).await;
    passes(&place, &locks, &next).await;
}

/// At-least-for: the key stays where it is, with the `create_revision` that it had.
async fn a_lock_that_is_kept_taken_lets_nobody_write() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let lock = Locks::new(locks.clone()).lock("x").ttl(seconds(30)).at_least_for(seconds(30));
    let guard = lock.acquire().await.unwrap();
    let lease = (*guard).clone();
    passes(&place, &locks, &lease).await;
    guard.release().await.unwrap();
    assert_eq!(place.keys("l/x").await.len(), 1, "the lock is kept taken");
    refuses(&place, &locks, &lease).await;
}

async fn a_forced_release_ends_it_for_its_holder_and_not_for_the_next() {
    let place = Place::shared().await;
    let (locks, other) = (place.locks().await, place.locks().await);
    let guard = acquire(&locks, seconds(30)).await;
    let lease = (*guard).clone();
    assert!(other.force_release(&name("x")).await.unwrap());
    assert!(lease.is_valid(), "it hasn't heard of it");
    refuses(&place, &locks, &lease).await;
    let next = acquire(&other, seconds(30)).await;
    refuses(&place, &locks, &lease).await;
    passes(&place, &other, &next).await;
    next.release().await.unwrap();
}

/// A holder that is cut off: what is written for it passes until its lease ends at the store, and never after the next
/// one's first write.
async fn a_lease_that_ends_at_the_server_writes_no_more() {
    let place = Place::shared().await;
    let proxy = Proxy::start(place.host_port()).await.unwrap();
    let far = EtcdLocks::builder(format!("etcd://{}", proxy.address())).prefix(&place.prefix).build().await.unwrap();
    let near = place.locks().await;
    let guard = acquire(&far, seconds(4)).await;
    let lease = (*guard).clone();
    proxy.refuse(true);
    proxy.cut();
    // Who writes for it has a connection of its own.
    passes(&place, &near, &lease).await;
    let revision = |answer: TxnResponse| answer.header().unwrap().revision();
    let taking_over = tokio::spawn({
        let (next, put) = (place.locks().await, place.put("new", "1"));
        async move {
            let guard = acquire(&next, seconds(30)).await;
            let first = revision(next.write(&guard, [put]).await.unwrap());
            (guard, first)
        }
    });
    let (mut last_pass, mut refused) = (0, 0);
    in_time(async {
        while !taking_over.is_finished() || refused < 20 {
            match near.write(&lease, [place.put("old", "1")]).await {
                Ok(answer) => last_pass = revision(answer),
                Err(error) => {
                    assert!(is_not_held(&error, &lease), "{error:?}");
                    refused += 1;
                }
            }
        }
    })
    .await;
    let (next, first) = taking_over.await.unwrap();
    println!(
        "the old holder's last write is revision {last_pass}, the new one's first {first}; {refused} were refused"
    );
    assert!(last_pass < first);
    assert!(!lease.is_valid());
    refuses(&place, &near, &lease).await;
    passes(&place, &near, &next).await;
}

/// A write that is on its way while the lock changes hands.
async fn a_write_that_arrives_late_is_refused() {
    let place = Place::shared().await;
    let proxy = Proxy::start(place.host_port()).await.unwrap();
    let far = EtcdLocks::builder(format!("etcd://{}", proxy.address())).prefix(&place.prefix).build().await.unwrap();
    let near = place.locks().await;
    let guard = acquire(&far, seconds(30)).await;
    let lease = (*guard).clone();
    passes(&place, &far, &lease).await;
    proxy.stall();
    let late = tokio::spawn({
        let (far, lease, put) = (far.clone(), lease.clone(), place.put("a", "late"));
        async move { far.write(&lease, [put]).await }
    });
    pass(Duration::from_millis(200)).await;
    assert!(near.force_release(&name("x")).await.unwrap());
    let next = acquire(&near, seconds(30)).await;
    near.write(&next, [place.put("a", "new")]).await.unwrap();
    proxy.resume();
    let error = in_time(late).await.unwrap().unwrap_err();
    assert!(is_not_held(&error, &lease), "{error:?}");
    let rows = place.all().await;
    assert_eq!(rows.iter().find(|row| row.key == "data/a").unwrap().value, b"new");
}

/// Those who wait have entries of their own, with a number that looks like a token.
async fn a_place_in_line_is_no_hold() {
    let place = Place::shared().await;
    let (locks, other) = (place.locks().await, place.locks().await);
    let guard = acquire(&locks, seconds(30)).await;
    let request = queue("x", seconds(30));
    assert!(is_held(&other.acquire(&request).await.unwrap()));
    let key = format!("{}l/x\0{}", place.prefix, request.owner);
    let entry = place.operator().await.get(key, None).await.unwrap().take_kvs().remove(0);
    let waiter = fence("x", u64::try_from(entry.create_revision()).unwrap());
    assert!(waiter.token() > guard.token());
    let error = other.hold_fence(&waiter).await.unwrap_err();
    assert!(matches!(error, FenceError::NotHeld(_)), "{error:?}");
    passes(&place, &locks, &guard).await;
    // It is one as soon as it is granted.
    guard.release().await.unwrap();
    let grant = common::granted(other.acquire(&request).await.unwrap());
    assert_eq!(grant.token, waiter.token());
    let own = Txn::new().when(other.hold_fence(&waiter).await.unwrap()).and_then([place.put("a", "1")]);
    assert!(place.operator().await.txn(own).await.unwrap().succeeded());
}

/// An owner that comes again, as one that asks again after a doubt does, has another token.
async fn another_grant_of_the_same_owner_is_another_hold() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let same_owner = async || {
        let seeded = Locks::builder(locks.clone()).entropy(Arc::new(SeededEntropy::new(7))).build();
        in_time(seeded.lock("x").ttl(seconds(30)).acquire()).await.unwrap()
    };
    let first = same_owner().await;
    assert!(locks.force_release(&name("x")).await.unwrap());
    let second = same_owner().await;
    assert_eq!(first.owner(), second.owner());
    refuses(&place, &locks, &first).await;
    passes(&place, &locks, &second).await;
}

/// The same name in another store or under another prefix is another lock.
async fn a_lease_of_another_store_is_no_hold() {
    let (place, elsewhere) = (Place::shared().await, Place::shared().await);
    let (locks, others) = (place.locks().await, elsewhere.locks().await);
    let mine = acquire(&locks, seconds(30)).await;
    let theirs = acquire(&others, seconds(30)).await;
    let of_memory = Locks::new(MemoryLocks::new()).lock("x").ttl(seconds(30)).acquire().await.unwrap();
    for lease in [&theirs, &of_memory] {
        refuses(&place, &locks, lease).await;
    }
    passes(&place, &locks, &mine).await;
}

async fn a_lost_answer_leaves_a_doubt_and_is_not_sent_again() {
    let place = Place::shared().await;
    let proxy = Proxy::start(place.host_port()).await.unwrap();
    let far = EtcdLocks::builder(format!("etcd://{}", proxy.address())).prefix(&place.prefix).build().await.unwrap();
    let guard = acquire(&place.locks().await, seconds(30)).await;
    let lost = proxy.lose_reply_to("the-one-that-is-lost");
    let FenceError::Store(error) = far.write(&guard, [place.put("a", "the-one-that-is-lost")]).await.unwrap_err()
    else {
        panic!("not the store's")
    };
    lost.await.unwrap();
    assert_eq!(error.applied(), Applied::Maybe, "{error}");
    let rows = place.all().await;
    assert_eq!(rows.iter().find(|row| row.key == "data/a").map(|row| row.version), Some(1), "applied, and once");
    // What the server refuses is told as that.
    let twice = far.write(&guard, [place.put("b", "1"), place.put("b", "2")]).await.unwrap_err();
    assert!(!twice.is_refusal() && twice.applied() == Applied::No, "{twice}");
    let FenceError::Store(error) = twice else { panic!("{twice:?}") };
    assert_eq!(error.kind(), ErrorKind::Other);
}

/// Compares of the caller's own stand beside it.
async fn the_callers_own_transaction_takes_part() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let mut client = Client::connect([place.host_port()], None).await.unwrap();
    let guard = acquire(&locks, seconds(30)).await;
    let mut write = async |unless: &str, value: &str| {
        let mut when = locks.hold(&guard).unwrap().to_vec();
        when.push(Compare::value(place.data("a"), CompareOp::NotEqual, unless));
        let txn = Txn::new().when(when).and_then([place.put("a", value)]);
        client.txn(txn).await.unwrap().succeeded()
    };
    place.operator().await.put(place.data("a"), "0", None).await.unwrap();
    assert!(write("1", "1").await && !write("1", "2").await && write("0", "2").await);
}

/// What is no fence, as a shared lease would be.
struct NoFence;

impl ToFence for NoFence {
    fn to_fence(&self) -> Result<Fence, InvalidFence> {
        "5@".parse()
    }
}

/// Of a lease that holds nothing here, and of no fence at all.
async fn a_refusal_is_told_once_with_its_reason() {
    let (place, told) = (Place::shared().await, Arc::new(TestObserver::default()));
    let locks = place.locks().await.observer(told.clone());
    let mine = acquire(&locks, seconds(30)).await;
    passes(&place, &locks, &mine).await;
    assert_eq!(told.refusals(), []);
    let elsewhere = Locks::new(MemoryLocks::new()).lock("x").ttl(seconds(30)).acquire().await.unwrap();
    locks.write(&elsewhere, [place.put("a", "bad")]).await.unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::NotHeld]);
    locks.hold_fence(&elsewhere.fence().unwrap()).await.unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::NotHeld]);

    let (fences, accounts) = (place.fences().await.observer(told.clone()), Resource::new("accounts").unwrap());
    fences.write(&accounts, &NoFence, Pass::Again, [place.put("a", "bad")]).await.unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::Invalid]);
    fences.admit(&accounts, &NoFence).unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::Invalid]);
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    a_holder_writes_as_often_as_it_likes,
    a_released_lease_writes_nothing,
    a_lock_that_is_kept_taken_lets_nobody_write,
    a_forced_release_ends_it_for_its_holder_and_not_for_the_next,
    a_lease_that_ends_at_the_server_writes_no_more,
    a_write_that_arrives_late_is_refused,
    a_place_in_line_is_no_hold,
    another_grant_of_the_same_owner_is_another_hold,
    a_lease_of_another_store_is_no_hold,
    a_lost_answer_leaves_a_doubt_and_is_not_sent_again,
    the_callers_own_transaction_takes_part,
    a_refusal_is_told_once_with_its_reason,
);
