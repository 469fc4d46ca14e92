//! What the server sees of clients that wait, hand over and hold many locks. On a server of the test's own, so that
//! its counters see nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use lock_core::{Clock, Locks, SystemClock};
use lock_postgres::PostgresLocks;
use sqlx::PgPool;

/// A server alone, and a look at its counters.
struct Alone {
    server: testbed::PrivateServer,
    admin: PgPool,
}

impl Alone {
    async fn new() -> Self {
        let server = tokio::task::spawn_blocking(testbed::postgres_private).await.unwrap().unwrap_or_else(|missing| {
            panic!("no PostgreSQL for this test: {missing}");
        });
        let admin = PgPool::connect(server.url()).await.unwrap();
        Self { server, admin }
    }

    async fn client(&self) -> Locks {
        Locks::new(PostgresLocks::connect(self.server.url()).await.unwrap())
    }

    /// Statements executed so far, those of looking aside.
    /// Once nobody is in the midst of one: a statement is counted when it has ended, a little after its rows were sent.
    async fn statements(&self) -> i64 {
        let busy = "SELECT count(*) FROM pg_stat_activity \
                    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle'";
        while sqlx::query_scalar::<_, i64>(busy).fetch_one(&self.admin).await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_%'";
        sqlx::query_scalar(sql).fetch_one(&self.admin).await.unwrap()
    }
}

async fn pass(by: Duration) {
    SystemClock.sleep_until(SystemClock.now() + by).await;
}

async fn a_waiter_costs_the_server_at_most_three_statements() {
    let alone = Alone::new().await;
    let (holder, waiter) = (alone.client().await, alone.client().await);
    let held = holder.lock("x").ttl(Duration::from_secs(60)).acquire().await.unwrap();
    let before = alone.statements().await;
    let waiting = waiter.lock("x").ttl(Duration::from_secs(60)).wait_at_most(Duration::from_secs(10)).acquire().await;
    assert!(waiting.is_err(), "it is held all the time");
    let cost = alone.statements().await - before;
    println!("waiting 10 s for a lock with a ttl of 60 s: {cost} statements");
    assert!(cost <= 3, "{cost} statements");
    drop(held);
}

async fn a_thousand_leases_are_renewed_by_a_handful_of_statements() {
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
    let before = alone.statements().await;
    pass(Duration::from_secs(10)).await;
    let cost = alone.statements().await - before;
    println!("1,000 leases of 10 s: {cost} statements in 10 s");
    assert!(guards.iter().all(|guard| guard.is_valid()));
    assert!((1..=40).contains(&cost), "{cost} statements");
}

async fn a_released_lock_is_handed_to_a_waiter_at_once() {
    let alone = Alone::new().await;
    let clients = [alone.client().await, alone.client().await];
    let ttl = Duration::from_secs(30);
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
    assert!(at(50) < Duration::from_millis(10).max(pair * 5), "p50 {:?}, alone {pair:?}", at(50));
}

testbed::server_tests!(testbed::tests::private_postgres_can_be_had =>
    a_waiter_costs_the_server_at_most_three_statements,
    a_thousand_leases_are_renewed_by_a_handful_of_statements,
    a_released_lock_is_handed_to_a_waiter_at_once,
);
