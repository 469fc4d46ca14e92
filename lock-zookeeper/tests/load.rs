//! What many leases and many waiters cost, by the server's own count.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{LONG, OPEN, fresh_path, locks, operator, packets, sleep, start, until};
use futures_util::future::join_all;
use lock_core::{Clock, Locks, Moment, SystemClock};
use lock_zookeeper::zookeeper_client::{Acls, Client, LockPrefix};
use testbed::Server;

fn now() -> Moment {
    SystemClock.now()
}

async fn client(server: &Server, path: &str) -> Locks {
    Locks::builder_shared(Arc::new(locks(server, path).await)).build()
}

/// The CPU time that the server has used.
fn cpu(server: &Server) -> Duration {
    let stat = server.exec(&["cat", "/proc/1/stat"]).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Packets that arrive in this time, without the questions.
async fn received(server: &Server, within: Duration) -> u64 {
    let before = packets(server.host_port()).await;
    sleep(within).await;
    packets(server.host_port()).await - before - 1
}

async fn a_thousand_leases_cost_what_one_does() {
    let server = start(testbed::zookeeper_private).await;
    let ttl = Duration::from_secs(6);
    let mut costs = Vec::new();
    for leases in [1_usize, 1000] {
        let client = client(&server, &fresh_path()).await;
        let names: Vec<String> = (0..leases).map(|lease| format!("lease-{lease}")).collect();
        let begun = now();
        let guards = join_all(names.iter().map(|name| client.lock(name.as_str()).ttl(ttl).acquire())).await;
        let guards: Vec<_> = guards.into_iter().map(Result::unwrap).collect();
        let taken = now().since(begun);
        // Each has been renewed for the first time, and is watched from then on.
        sleep(ttl).await;
        let cost = received(&server, ttl * 2).await;
        assert!(guards.iter().all(|guard| guard.is_valid()));
        println!("{leases} leases of {ttl:?}, taken in {taken:.2?}: {cost} packets in two ttls");
        costs.push(cost);
        let begun = now();
        join_all(guards.into_iter().map(|guard| guard.release())).await.into_iter().for_each(|done| _ = done.unwrap());
        println!("given back in {:.2?}", now().since(begun));
    }
    // Besides one session's heartbeats, which renewals at many moments want more often.
    assert!(costs[1] < costs[0] + 60, "{costs:?}");
}

async fn a_hand_off_costs_the_same_however_many_wait() {
    let server = start(testbed::zookeeper_private).await;
    let path = fresh_path();
    let mut costs = Vec::new();
    for waiters in [10_usize, 100, 500] {
        let clients = join_all((0..5).map(|_| client(&server, &path))).await;
        let name = format!("queue-of-{waiters}");
        let ttl = Duration::from_secs(50);
        let first = clients[0].lock(name.as_str()).ttl(ttl).acquire().await.unwrap();
        let (told, mut granted) = tokio::sync::mpsc::unbounded_channel();
        let (server, told) = (&server, &told);
        let tasks: Vec<_> = (0..waiters)
            .map(|waiter| {
                let lock = clients[waiter % 5].lock(name.as_str()).ttl(ttl).fair();
                let told = told.clone();
                tokio::spawn(async move {
                    let guard = lock.acquire().await.unwrap();
                    told.send((now(), guard.token())).unwrap();
                    guard.release().await.unwrap();
                })
            })
            .collect();
        let operator = operator(server).await;
        let queue = format!("{path}/locks/{name}");
        until("all places", || async { operator.list_children(&queue).await.unwrap().len() == waiters + 1 }).await;
        // All of them watch.
        sleep(Duration::from_secs(1)).await;
        let (before, cpu_before, begun) = (packets(server.host_port()).await, cpu(server), now());
        first.release().await.unwrap();
        let mut last = None;
        for _ in 0..waiters {
            let (_, token) = tokio::time::timeout(LONG, granted.recv()).await.unwrap().unwrap();
            assert!(last.is_none_or(|last| token > last), "granted out of order");
            last = Some(token);
        }
        let took = now().since(begun);
        let each = |sum: f64| sum / waiters as f64;
        let sent = each((packets(server.host_port()).await - before - 1) as f64);
        let used = each((cpu(server) - cpu_before).as_secs_f64() * 1e6);
        println!(
            "{waiters} waiters of 5 clients: {sent:.2} packets, {used:.0} µs of the server's CPU and {:.2} ms for each hand-off",
            each(took.as_secs_f64() * 1e3)
        );
        costs.push(sent);
        join_all(tasks).await.into_iter().for_each(Result::unwrap);
    }
    assert!(costs[2] < costs[0] * 1.2 + 1.0, "{costs:?}");
}

/// The middle one.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn a_hand_off_takes_milliseconds() {
    const ROUNDS: usize = 200;
    let server = start(testbed::zookeeper_private).await;
    let path = fresh_path();
    let ours = [client(&server, &path).await, client(&server, &path).await];
    let lock = |round: usize| ours[round % 2].lock("ping").ttl(Duration::from_secs(20)).acquire();
    let (mut times, mut guard) = (Vec::new(), lock(0).await.unwrap());
    let operator = operator(&server).await;
    for round in 1..=ROUNDS {
        let next = tokio::spawn({
            let lock = ours[round % 2].lock("ping").ttl(Duration::from_secs(20));
            async move { (lock.acquire().await.unwrap(), now()) }
        });
        let queue = format!("{path}/locks/ping");
        while operator.list_children(&queue).await.unwrap().len() < 2 {}
        sleep(Duration::from_millis(3)).await;
        let begun = now();
        guard.release().await.unwrap();
        let (next, at) = next.await.unwrap();
        times.push(at.since(begun));
        guard = next;
    }
    let ours = median(times);

    let theirs = [connect(&server).await, connect(&server).await];
    operator.mkdir(&format!("{path}/raw"), &OPEN).await.unwrap();
    let raw = format!("{path}/raw");
    let take = |round: usize| {
        let (client, raw) = (theirs[round % 2].clone(), raw.clone());
        async move {
            let prefix = LockPrefix::new_curator(&raw, "lock-").unwrap();
            let held = client.lock(prefix, b"", Acls::anyone_all()).await.unwrap().into_owned();
            (held, now())
        }
    };
    let (mut times, (mut held, _)) = (Vec::new(), take(0).await);
    for round in 1..=ROUNDS {
        let next = tokio::spawn(take(round));
        while operator.list_children(&raw).await.unwrap().len() < 2 {}
        sleep(Duration::from_millis(3)).await;
        let begun = now();
        held.client().delete(held.lock_path(), None).await.unwrap();
        let (next, at) = next.await.unwrap();
        times.push(at.since(begun));
        held = next;
    }
    let theirs = median(times);
    println!("from the release to the other's grant, p50 of {ROUNDS}: {ours:.2?}; the driver's own lock: {theirs:.2?}");
    assert!(ours < Duration::from_millis(20).max(theirs * 3), "{ours:?}, theirs {theirs:?}");
}

async fn connect(server: &Server) -> Client {
    Client::connector().with_session_timeout(Duration::from_secs(20)).connect(server.host_port()).await.unwrap()
}

testbed::server_tests!(testbed::tests::private_zookeeper_can_be_had =>
    a_thousand_leases_cost_what_one_does,
    a_hand_off_costs_the_same_however_many_wait,
    a_hand_off_takes_milliseconds,
);
