//! Waiting in line: in order, woken one by one, at the same cost however many wait.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Counts, Place, ask, give_back, granted, in_time, is_held, pass, queue, seconds, take};
use conformance_tests::Proxy;
use lock_core::{AcquireRequest, Acquired, LockProvider, Locks, ReleaseRequest, Released, Waiting};
use lock_etcd::EtcdLocks;

/// Each hand-off costs the same with ten in line and with five hundred, of five clients.
async fn a_hand_off_costs_the_same_however_many_wait() {
    let mut costs = Vec::new();
    for waiters in [10_usize, 100, 500] {
        let place = Place::alone().await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(Locks::new(place.locks().await));
        }
        let first = Locks::new(place.locks().await).lock("x").ttl(seconds(60)).acquire().await.unwrap();
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for waiter in 0..waiters {
            let lock = clients[waiter % 5].lock("x").ttl(seconds(60)).fair();
            let told = told.clone();
            tasks.push(tokio::spawn(async move {
                let guard = lock.acquire().await.unwrap();
                let _ = told.send((waiter, guard.token()));
                guard.release().await.unwrap();
            }));
            // Each is in line before the next one asks.
            if waiter % 10 == 9 || waiters <= 10 {
                let expected = waiter + 1;
                in_time(async {
                    while place.keys("l/x").await.len() < expected + 1 {
                        pass(Duration::from_millis(5)).await;
                    }
                })
                .await;
            }
        }
        pass(seconds(1)).await;
        let before = Counts::of(place.host_port()).await;
        first.release().await.unwrap();
        let mut last = 0;
        let mut got = Vec::new();
        for _ in 0..waiters {
            let (waiter, token) = in_time(order.recv()).await.unwrap();
            assert!(token.get() > last, "tokens rise in the order of the line");
            last = token.get();
            got.push(waiter / 10);
        }
        assert!(got.is_sorted(), "those who queued first were first: {got:?}");
        for task in tasks {
            task.await.unwrap();
        }
        let after = Counts::of(place.host_port()).await;
        let each = |sum: f64| sum / waiters as f64;
        let (messages, cpu) =
            (each(after.messages() - before.messages()), each(after.cpu_seconds() - before.cpu_seconds()));
        println!(
            "{waiters} waiters: {messages:.2} messages and {:.2} ms of the server's CPU per hand-off",
            cpu * 1000.0
        );
        assert!(place.keys("").await.is_empty(), "nothing stays behind: {:?}", place.keys("").await);
        costs.push((messages, cpu));
    }
    let (least, most) = (costs[0], costs[2]);
    assert!(most.0 < least.0 * 1.3 + 0.5, "messages: {costs:?}");
    assert!(most.1 < least.1 * 2.0 + 0.001, "CPU: {costs:?}");
}

/// A waiter who gives up in the middle: the one behind him isn't granted anything before its time.
async fn who_leaves_the_line_lets_nobody_in() {
    let place = Place::shared().await;
    let (one, two) = (place.locks().await, place.locks().await);
    let (holder, grant) = take(&one, "x", seconds(30)).await;
    let waiting = [queue("x", seconds(30)), queue("x", seconds(30)), queue("x", seconds(30))];
    for (at, request) in waiting.iter().enumerate() {
        let Acquired::Held(held) = two.acquire(request).await.unwrap() else { panic!("got a held lock") };
        assert_eq!(held.position, Some(u32::try_from(at).unwrap()));
    }
    let mut watch = two.watch(&waiting[2].name, waiting[2].owner).await.unwrap();
    let leave = |request: &AcquireRequest| ReleaseRequest::new(request.name.clone(), request.owner, None);
    // He held nothing.
    assert_eq!(two.release(&leave(&waiting[1])).await.unwrap(), Released::NotHeld);
    in_time(watch.woken()).await;
    assert!(is_held(&two.acquire(&waiting[2]).await.unwrap()));
    // The first in line leaves too: now its successor follows the holder.
    assert_eq!(two.release(&leave(&waiting[0])).await.unwrap(), Released::NotHeld);
    in_time(watch.woken()).await;
    assert!(is_held(&two.acquire(&waiting[2]).await.unwrap()));
    one.release(&give_back(&holder, grant)).await.unwrap();
    in_time(watch.woken()).await;
    let next = granted(two.acquire(&waiting[2]).await.unwrap());
    assert!(next.token > grant.token);
    assert_eq!(two.release(&give_back(&waiting[2], next)).await.unwrap(), Released::Released);
    assert!(place.keys("").await.is_empty(), "{:?}", place.keys("").await);
}

/// A place in line is not a hold: whoever has one and asks without waiting leaves it.
async fn one_who_waits_no_more_leaves_his_place() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let (holder, grant) = take(&locks, "x", seconds(30)).await;
    let waiting = queue("x", seconds(30));
    assert!(is_held(&locks.acquire(&waiting).await.unwrap()));
    assert_eq!(place.keys("l/x").await.len(), 2);
    let impatient = AcquireRequest { waiting: Waiting::No, ..waiting.clone() };
    assert!(is_held(&locks.acquire(&impatient).await.unwrap()));
    assert_eq!(place.keys("l/x").await.len(), 1);
    locks.release(&give_back(&holder, grant)).await.unwrap();
    assert!(place.keys("").await.is_empty(), "{:?}", place.keys("").await);
}

/// A waiter's own entry is looked at again before he is granted anything (etcd #11456).
async fn a_waiter_whose_entry_was_deleted_queues_anew() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let (holder, grant) = take(&locks, "x", seconds(30)).await;
    let (first, second) = (queue("x", seconds(30)), queue("x", seconds(30)));
    assert!(is_held(&locks.acquire(&first).await.unwrap()));
    assert!(is_held(&locks.acquire(&second).await.unwrap()));
    assert_eq!(place.delete(&format!("l/x\0{}", first.owner)).await, 1);
    locks.release(&give_back(&holder, grant)).await.unwrap();
    // It isn't there, so it isn't next.
    assert!(is_held(&locks.acquire(&first).await.unwrap()));
    granted(locks.acquire(&second).await.unwrap());
}

/// Where the store has forgotten the revision from which a waiter listens, he looks.
async fn a_stream_that_is_cut_while_the_store_forgets_loses_no_wake_up() {
    let place = Place::alone().await;
    let proxy = Proxy::start(place.host_port()).await.unwrap();
    let far = EtcdLocks::builder(format!("etcd://{}/", proxy.address())).prefix(&place.prefix).build().await.unwrap();
    let near = place.locks().await;
    let server = Arc::new(place.server);
    for _ in 0..3 {
        let (holder, grant) = take(&near, "x", seconds(60)).await;
        let waiting = tokio::spawn(Locks::new(far.clone()).lock("x").ttl(seconds(60)).acquire());
        pass(Duration::from_millis(300)).await;
        proxy.refuse(true);
        proxy.cut();
        near.release(&give_back(&holder, grant)).await.unwrap();
        let compacted = Arc::clone(&server);
        tokio::task::spawn_blocking(move || testbed::Etcd::of(&compacted).compact()).await.unwrap().unwrap();
        proxy.refuse(false);
        let guard = in_time(waiting).await.unwrap().unwrap();
        assert!(guard.token() > grant.token);
        guard.release().await.unwrap();
    }
}

/// A watch that the store gave up, with nothing missed: the release that comes later is heard all the same.
async fn a_watch_that_the_store_gave_up_is_made_good_before_the_release() {
    let place = Place::alone().await;
    let proxy = Proxy::start(place.host_port()).await.unwrap();
    let far = EtcdLocks::builder(format!("etcd://{}/", proxy.address())).prefix(&place.prefix).build().await.unwrap();
    let near = place.locks().await;
    let (holder, grant) = take(&near, "x", seconds(60)).await;
    let waiting = tokio::spawn(Locks::new(far).lock("x").ttl(seconds(60)).acquire());
    in_time(async {
        while place.keys("l/x").await.len() < 2 {
            pass(Duration::from_millis(5)).await;
        }
    })
    .await;
    // What comes between moves the revision beyond the one he listens from, which is forgotten then.
    for number in 0..5 {
        take(&near, &format!("other/{number}"), seconds(60)).await;
    }
    let server = Arc::new(place.server);
    let compacted = Arc::clone(&server);
    tokio::task::spawn_blocking(move || testbed::Etcd::of(&compacted).compact()).await.unwrap().unwrap();
    proxy.cut();
    pass(seconds(4)).await;
    near.release(&give_back(&holder, grant)).await.unwrap();
    in_time(waiting).await.unwrap().unwrap().release().await.unwrap();
}

/// The lease of those who wait is kept alive, though nobody renews.
async fn a_place_in_line_outlives_the_ttl() {
    let place = Place::shared().await;
    let (one, two) = (place.locks().await, Locks::new(place.locks().await));
    let (holder, grant) = take(&one, "x", seconds(60)).await;
    let waiting = tokio::spawn(two.lock("x").ttl(seconds(2)).acquire());
    pass(Duration::from_millis(300)).await;
    let mine = |keys: Vec<String>| keys.into_iter().find(|key| !key.ends_with(&holder.owner.to_string()));
    let before = mine(place.keys("l/x").await).expect("a place in line");
    pass(seconds(6)).await;
    assert_eq!(mine(place.keys("l/x").await), Some(before));
    one.release(&give_back(&holder, grant)).await.unwrap();
    in_time(waiting).await.unwrap().unwrap().release().await.unwrap();
}

/// Nobody asks for it any more: it is gone when its span is over, though the lease lives on.
async fn an_abandoned_place_in_line_ends() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let (_holder, _) = take(&locks, "x", seconds(60)).await;
    let request = AcquireRequest { waiting: Waiting::InLine(seconds(2)), ..ask("x", seconds(2)) };
    assert!(is_held(&locks.acquire(&request).await.unwrap()));
    assert_eq!(place.keys("l/x").await.len(), 2);
    pass(seconds(3)).await;
    assert_eq!(place.keys("l/x").await.len(), 1);
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    a_hand_off_costs_the_same_however_many_wait,
    who_leaves_the_line_lets_nobody_in,
    one_who_waits_no_more_leaves_his_place,
    a_waiter_whose_entry_was_deleted_queues_anew,
    a_stream_that_is_cut_while_the_store_forgets_loses_no_wake_up,
    a_watch_that_the_store_gave_up_is_made_good_before_the_release,
    a_place_in_line_outlives_the_ttl,
    an_abandoned_place_in_line_ends,
);
