//! What the servers see of clients that wait, hand over and hold many locks. On servers of the test's own, so that their
//! counters see nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{COLLECTION, Place, pass, seconds};
use lock_core::{Clock, Locks, SystemClock};
use mongodb::bson::doc;
use testbed::PrivateServer;

/// Servers alone, and a look at their counters.
struct Alone {
    place: Place,
    _server: PrivateServer,
}

impl Alone {
    async fn new() -> Self {
        let server = tokio::task::spawn_blocking(testbed::mongo_private).await.unwrap().unwrap_or_else(|missing| {
            panic!("no MongoDB for this test: {missing}");
        });
        Self { place: Place::at(&server).await, _server: server }
    }

    async fn client(&self) -> Locks {
        Locks::new(self.place.locks().await)
    }

    /// Commands of those kinds that the primary was sent, whatever they were about: a few of them are its own.
    async fn commands(&self) -> i64 {
        let status = self.place.client.database("admin").run_command(doc! { "serverStatus": 1 }).await.unwrap();
        let commands = status.get_document("metrics").unwrap().get_document("commands").unwrap();
        let total = |kind| commands.get_document(kind).unwrap().get_i64("total").unwrap();
        ["findAndModify", "update", "find", "aggregate", "insert", "delete"].into_iter().map(total).sum()
    }

    /// What was done with the locks' collection, by the primary's count: each statement of a command by itself, and
    /// nothing that the server does about others. A change stream's `getMore` that waits is not among them: there is one
    /// when it opens, and one each 30 s without an event.
    async fn statements(&self) -> i64 {
        let usage = self.place.client.database("admin").run_command(doc! { "top": 1 }).await.unwrap();
        let collection = format!("{}.{COLLECTION}", self.place.database.name());
        let Ok(usage) = usage.get_document("totals").unwrap().get_document(&collection) else { return 0 };
        let count = |kind| {
            let count = usage.get_document(kind).unwrap().get("count").unwrap();
            count.as_i64().or(count.as_i32().map(i64::from)).unwrap()
        };
        ["queries", "insert", "update", "remove", "commands"].into_iter().map(count).sum()
    }
}

async fn a_waiter_costs_the_server_at_most_three_commands() {
    let alone = Alone::new().await;
    let (holder, waiter) = (alone.client().await, alone.client().await);
    let held = holder.lock("x").ttl(seconds(60)).acquire().await.unwrap();
    let before = alone.statements().await;
    let waiting = waiter.lock("x").ttl(seconds(60)).wait_at_most(seconds(10)).acquire().await;
    assert!(waiting.is_err(), "it is held all the time");
    let cost = alone.statements().await - before;
    println!("waiting 10 s for a lock with a ttl of 60 s: {cost} commands, and a getMore that waits");
    assert!((2..=3).contains(&cost), "{cost} commands");
    drop(held);
    holder.settled().await;
}

async fn a_thousand_leases_are_renewed_by_a_handful_of_commands() {
    let alone = Alone::new().await;
    let locks = alone.client().await;
    let mut guards = Vec::new();
    let acquiring: Vec<_> =
        (0..1000).map(|number| tokio::spawn(locks.lock(format!("lock-{number}")).ttl(seconds(10)).acquire())).collect();
    for task in acquiring {
        guards.push(task.await.unwrap().unwrap());
    }
    // Beyond the first renewals, which still have the rhythm of the grants.
    pass(seconds(5)).await;
    let before = alone.commands().await;
    pass(seconds(10)).await;
    let cost = alone.commands().await - before;
    println!("1,000 leases of 10 s: {cost} commands in 10 s");
    assert!(guards.iter().all(|guard| guard.is_valid()));
    assert!((1..=40).contains(&cost), "{cost} commands");
    drop(guards);
    locks.settled().await;
}

async fn a_released_lock_is_handed_to_a_waiter_at_once() {
    let alone = Alone::new().await;
    let clients = [alone.client().await, alone.client().await];
    let ttl = seconds(30);
    let mut held = clients[0].lock("x").ttl(ttl).acquire().await.unwrap();
    let (mut took, mut pairs) = (Vec::new(), Vec::new());
    for round in 1..=101 {
        // What a hand-off consists of, but for the event between: how quick the machine is just now.
        let begun = SystemClock.now();
        clients[0].lock("alone").ttl(ttl).acquire().await.unwrap().release().await.unwrap();
        pairs.push(SystemClock.now().since(begun));
        let before = alone.statements().await;
        let waiting = tokio::spawn(clients[round % 2].lock("x").ttl(ttl).acquire());
        // The waiter has asked twice and listens: it sleeps now.
        while alone.statements().await < before + 2 {
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
        "hand-off over {} rounds: p50 {:?}, p90 {:?}, max {:?}; alone {pair:?}",
        took.len(),
        at(50),
        at(90),
        at(100)
    );
    held.release().await.unwrap();
    // Two commits by a majority, one after the other: 14 ms where nothing else runs. Polling would be far beyond this.
    assert!(at(50) < Duration::from_millis(60).max(pair * 5), "p50 {:?}, alone {pair:?}", at(50));
}

testbed::server_tests!(testbed::tests::private_mongo_can_be_had =>
    a_waiter_costs_the_server_at_most_three_commands,
    a_thousand_leases_are_renewed_by_a_handful_of_commands,
    a_released_lock_is_handed_to_a_waiter_at_once,
);
