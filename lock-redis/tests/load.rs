//! What the server sees of clients that wait, hand over and hold many locks. On a server of the test's own, so that
//! its counters see nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, pass};
use lock_core::{Clock, Locks, SystemClock};
use lock_redis::redis::{self, aio::MultiplexedConnection};
use testbed::PrivateServer;

/// A server alone, and a look at its counters over one connection.
struct Alone {
    place: Place<PrivateServer>,
    operator: MultiplexedConnection,
}

impl Alone {
    async fn new() -> Self {
        Self::at(Place::alone().await).await
    }

    async fn at(place: Place<PrivateServer>) -> Self {
        let operator = common::operator(place.url()).await;
        Self { place, operator }
    }

    async fn client(&self) -> Locks {
        Locks::new(self.place.locks().await)
    }

    /// Commands that clients sent so far: without those that scripts called, and without this look.
    async fn commands(&self) -> u64 {
        const NOT_SENT: [&str; 7] = ["time", "hmget", "hset", "hdel", "pexpireat", "publish", "info"];
        let mut info = redis::cmd("INFO");
        let told: String = info.arg("commandstats").query_async(&mut self.operator.clone()).await.unwrap();
        let mut sum = 0;
        for line in told.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
            let (name, calls) = line.split_once(":calls=").unwrap();
            if !NOT_SENT.contains(&name) {
                sum += calls.split(',').next().unwrap().parse::<u64>().unwrap();
            }
        }
        sum
    }
}

async fn a_waiter_costs_the_server_at_most_three_commands() {
    let alone = Alone::new().await;
    let (holder, waiter) = (alone.client().await, alone.client().await);
    let held = holder.lock("x").ttl(Duration::from_secs(60)).acquire().await.unwrap();
    let before = alone.commands().await;
    let waiting = waiter.lock("x").ttl(Duration::from_secs(60)).wait_at_most(Duration::from_secs(10)).acquire().await;
    assert!(waiting.is_err(), "it is held all the time");
    // With the connection that listens, which logs in and subscribes; the password is this server's.
    let cost = alone.commands().await - before;
    println!("waiting 10 s for a lock with a ttl of 60 s: {cost} commands, one of them the login of a new connection");
    assert!(cost <= 4, "{cost} commands");
    let before = alone.commands().await;
    let waiting = waiter.lock("x").ttl(Duration::from_secs(60)).wait_at_most(Duration::from_secs(3)).acquire().await;
    assert!(waiting.is_err(), "it is held all the time");
    let cost = alone.commands().await - before;
    println!("the next waiter of the same process: {cost} commands");
    assert!(cost <= 3, "{cost} commands");
    drop(held);
}

async fn a_thousand_leases_are_renewed_by_a_handful_of_commands() {
    let alone = Alone::new().await;
    let locks = alone.client().await;
    let mut guards = Vec::new();
    let acquiring: Vec<_> = (0..1000)
        .map(|number| tokio::spawn(locks.lock(format!("lock-{number}")).ttl(Duration::from_secs(10)).acquire()))
        .collect();
    for task in acquiring {
        guards.push(task.await.unwrap().unwrap());
    }
    // Beyond the first renewals, which still have the rhythm of the grants.
    pass(Duration::from_secs(5)).await;
    let before = alone.commands().await;
    pass(Duration::from_secs(10)).await;
    let cost = alone.commands().await - before;
    println!("1,000 leases of 10 s: {cost} commands in 10 s");
    assert!(guards.iter().all(|guard| guard.is_valid()));
    assert!((1..=40).contains(&cost), "{cost} commands");
}

async fn a_released_lock_is_handed_to_a_waiter_at_once() {
    // The release and the next grant are on the disk before they are answered; and the same without a disk.
    hand_over("appendfsync always", Alone::new().await).await;
    hand_over("appendonly no", Alone::at(Place::with(&["--appendonly", "no"]).await).await).await;
}

async fn hand_over(settings: &str, alone: Alone) {
    let clients = [alone.client().await, alone.client().await];
    let ttl = Duration::from_secs(30);
    let mut held = clients[0].lock("x").ttl(ttl).acquire().await.unwrap();
    let (mut took, mut pairs) = (Vec::new(), Vec::new());
    for round in 1..=101 {
        // What a hand-off consists of, but for the event between: how quick the machine is just now.
        let begun = SystemClock.now();
        clients[0].lock("alone").ttl(ttl).acquire().await.unwrap().release().await.unwrap();
        pairs.push(SystemClock.now().since(begun));
        let before = alone.commands().await;
        let waiting = tokio::spawn(clients[round % 2].lock("x").ttl(ttl).acquire());
        // The waiter has asked twice and listens: it sleeps now.
        while alone.commands().await < before + 2 {
            pass(Duration::from_millis(2)).await;
        }
        pass(Duration::from_millis(20)).await;
        let released = SystemClock.now();
        held.release().await.unwrap();
        held = waiting.await.unwrap().unwrap();
        took.push(SystemClock.now().since(released));
    }
    took.sort();
    pairs.sort();
    let pair = pairs[pairs.len() / 2];
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "{settings}: hand-off over {} rounds: p50 {:?}, p90 {:?}, max {:?}; alone {pair:?}",
        took.len(),
        at(50),
        at(90),
        at(100)
    );
    assert!(at(50) < Duration::from_millis(10).max(pair * 5), "p50 {:?}, alone {pair:?}", at(50));
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    a_waiter_costs_the_server_at_most_three_commands,
    a_thousand_leases_are_renewed_by_a_handful_of_commands,
    a_released_lock_is_handed_to_a_waiter_at_once,
);
