//! Waiting by event: published only when somebody waits, not lost when the connection is cut, silent otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{AsServer, Place, ask, give_back, granted, in_time, name, pass, seconds, take};
use futures_util::{FutureExt, StreamExt};
use lock_core::{Acquired, LockProvider, OwnerId, Waiting, Wake};
use lock_redis::{RedisLocks, redis::Client};

async fn a_release_is_published_only_if_somebody_waits() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let mut listener = Client::open(place.url()).unwrap().get_async_pubsub().await.unwrap();
    listener.subscribe(format!("{}released/0", place.prefix)).await.unwrap();
    let mut messages = listener.into_on_message();
    let others = ask("x", seconds(30));
    for (waiting, published) in [
        (None, false),
        (Some(Waiting::No), false),
        (Some(Waiting::Wake(seconds(60))), true),
        // The mark went with the message.
        (None, false),
    ] {
        // Who waits and gets it at once waits no more.
        let mut request = ask("x", seconds(30));
        request.waiting = Waiting::Wake(seconds(60));
        let grant = granted(locks.acquire(&request).await.unwrap());
        if let Some(waiting) = waiting {
            let mut others = others.clone();
            others.waiting = waiting;
            assert!(matches!(locks.acquire(&others).await.unwrap(), Acquired::Held(_)));
        }
        locks.release(&give_back(&request, grant)).await.unwrap();
        if published {
            let message = in_time(messages.next()).await.unwrap();
            assert_eq!(message.get_payload_bytes(), b"x");
        }
        // What is published now comes after all that was before.
        let _: u64 = place.command(&["PUBLISH", &format!("{}released/0", place.prefix), "end"]).await;
        assert_eq!(in_time(messages.next()).await.unwrap().get_payload_bytes(), b"end", "{waiting:?}");
    }
    // A mark that has run out is none.
    let (request, grant) = take(&locks, "y").await;
    let mut brief = ask("y", seconds(30));
    brief.waiting = Waiting::Wake(Duration::from_millis(1));
    locks.acquire(&brief).await.unwrap();
    pass(Duration::from_millis(5)).await;
    locks.release(&give_back(&request, grant)).await.unwrap();
    let _: u64 = place.command(&["PUBLISH", &format!("{}released/0", place.prefix), "end"]).await;
    assert_eq!(in_time(messages.next()).await.unwrap().get_payload_bytes(), b"end");
}

async fn a_watcher_is_woken_by_another_providers_release_and_by_force() {
    let place = Place::shared().await;
    let (holder, waiter) = (place.locks().await, place.locks().await);
    assert_eq!(waiter.capabilities().wake, Wake::Event);
    for forced in [false, true] {
        for lock in ["x", "🔒 ' \" \\ \n", "{}", "}{", &"x".repeat(512)] {
            let (request, grant) = take(&holder, lock).await;
            let mut watch = waiter.watch(&name(lock), OwnerId::from_u128(1)).await.unwrap();
            let mut wish = ask(lock, seconds(30));
            wish.waiting = Waiting::Wake(seconds(60));
            assert!(matches!(waiter.acquire(&wish).await.unwrap(), Acquired::Held(_)));
            if forced {
                assert!(holder.force_release(&name(lock)).await.unwrap());
            } else {
                holder.release(&give_back(&request, grant)).await.unwrap();
            }
            in_time(watch.woken()).await;
            let grant = granted(waiter.acquire(&wish).await.unwrap());
            waiter.release(&give_back(&wish, grant)).await.unwrap();
        }
    }
}

async fn databases_and_prefixes_do_not_wake_each_other() {
    let place = Place::alone().await;
    let in_database = |number: u32| place.url().trim_end_matches("/0").to_owned() + &format!("/{number}");
    let one = RedisLocks::connect(&in_database(1)).await.unwrap();
    let two = RedisLocks::connect(&in_database(2)).await.unwrap();
    let (request, grant) = take(&one, "x").await;
    take(&two, "x").await;
    let mut elsewhere = two.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    let mut here = one.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    let mut wish = ask("x", seconds(30));
    wish.waiting = Waiting::Wake(seconds(60));
    one.acquire(&wish).await.unwrap();
    two.acquire(&wish).await.unwrap();
    one.release(&give_back(&request, grant)).await.unwrap();
    in_time(here.woken()).await;
    // A round trip on its own connection that listens: what was on its way has come.
    assert!(two.force_release(&name("x")).await.unwrap());
    in_time(elsewhere.woken()).await;
    assert!(elsewhere.woken().now_or_never().is_none());
}

async fn hand_offs_lose_no_wake_up() {
    let place = Place::shared().await;
    let (one, two) = (place.locks().await, place.locks().await);
    let hand_offs = |locks: RedisLocks| async move {
        let mut watch = locks.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
        for _ in 0..300 {
            let mut wish = ask("x", seconds(60));
            wish.waiting = Waiting::Wake(seconds(60));
            let grant = loop {
                match locks.acquire(&wish).await.unwrap() {
                    Acquired::Granted(grant) => break grant,
                    _ => in_time(watch.woken()).await,
                }
            };
            locks.release(&give_back(&wish, grant)).await.unwrap();
        }
    };
    tokio::join!(hand_offs(one), hand_offs(two));
}

async fn listeners(place: &Place<impl AsServer>) -> usize {
    let listed: String = place.command(&["CLIENT", "LIST", "TYPE", "PUBSUB"]).await;
    listed.lines().filter(|line| !line.is_empty()).count()
}

async fn a_cut_subscription_wakes_everybody_when_it_is_made_good() {
    let place = Place::alone().await;
    let waiter = place.locks().await;
    let mut watch = waiter.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    let cut: u64 = place.command(&["CLIENT", "KILL", "TYPE", "PUBSUB"]).await;
    assert_eq!(cut, 1);
    in_time(watch.woken()).await;
    // And it listens again.
    let (request, grant) = take(&place.locks().await, "x").await;
    let mut wish = ask("x", seconds(30));
    wish.waiting = Waiting::Wake(seconds(60));
    waiter.acquire(&wish).await.unwrap();
    waiter.release(&give_back(&request, grant)).await.unwrap();
    in_time(watch.woken()).await;
}

async fn watches_share_one_connection_and_a_dropped_provider_leaves_none() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let before: String = place.command(&["CLIENT", "LIST"]).await;
    let mut watches = Vec::new();
    for n in 0..50 {
        watches.push(locks.watch(&name(&format!("{n}")), OwnerId::from_u128(1)).await.unwrap());
    }
    assert_eq!(listeners(&place).await, 1);
    let own = before.lines().filter(|line| line.contains("lib-name=leasehold") || line.contains("resp=3")).count();
    drop((locks, watches));
    in_time(async {
        loop {
            let now: String = place.command(&["CLIENT", "LIST"]).await;
            // Nobody but the one who asks.
            if now.lines().count() <= before.lines().count() - own.max(1) && listeners(&place).await == 0 {
                break;
            }
            pass(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn who_is_refused_and_does_not_wait_writes_nothing() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    take(&locks, "x").await;
    // The server counts what it would have to save.
    let written = || async {
        let info: String = place.command(&["INFO", "commandstats"]).await;
        info.lines()
            .filter(|line| line.starts_with("cmdstat_hset") || line.starts_with("cmdstat_pexpireat"))
            .map(|line| line.split("calls=").nth(1).unwrap().split(',').next().unwrap().parse::<u64>().unwrap())
            .sum::<u64>()
    };
    let before = written().await;
    for _ in 0..10 {
        assert!(matches!(locks.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Held(_)));
    }
    assert_eq!(written().await, before);
    // Who waits marks the record, once.
    let mut wish = ask("x", seconds(30));
    wish.waiting = Waiting::Wake(seconds(60));
    locks.acquire(&wish).await.unwrap();
    assert_eq!(written().await, before + 1);
    wish.waiting = Waiting::Wake(seconds(30));
    for _ in 0..10 {
        locks.acquire(&wish).await.unwrap();
    }
    assert_eq!(written().await, before + 1);
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    a_release_is_published_only_if_somebody_waits,
    a_watcher_is_woken_by_another_providers_release_and_by_force,
    databases_and_prefixes_do_not_wake_each_other,
    hand_offs_lose_no_wake_up,
    a_cut_subscription_wakes_everybody_when_it_is_made_good,
    watches_share_one_connection_and_a_dropped_provider_leaves_none,
    who_is_refused_and_does_not_wait_writes_nothing,
);
