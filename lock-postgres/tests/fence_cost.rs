//! What the fence costs: a fenced transaction beside the same one without, one after the other in one run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, ask, fence_of, granted, seconds};
use lock_core::{Clock, LockProvider, Pass, Resource, SystemClock, Transactions as _};
use lock_postgres::{PostgresFences, sqlx};

const ROUNDS: usize = 120;

/// A machine that is busy with other things blurs the difference: so the least of these counts, which is a weak measure, and
/// all are printed.
const BATCHES: usize = 8;

async fn a_fenced_transaction_costs_little_more_than_a_plain_one() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect(&place.url).await.unwrap();
    let fences = PostgresFences::builder(pool.clone()).schema(&place.schema).build().await.unwrap();
    let transactions = locks.transactions(pool.clone());
    place.sql("CREATE TABLE {s}.accounts (id int PRIMARY KEY, balance bigint) WITH (fillfactor = 50)").await;
    place.sql("INSERT INTO {s}.accounts SELECT n, 0 FROM generate_series(1, 100) n").await;
    let update = format!("UPDATE \"{}\".accounts SET balance = balance + 1 WHERE id = 42", place.schema);
    let write = async |tx: &mut sqlx::Transaction<'static, sqlx::Postgres>| {
        sqlx::query(sqlx::AssertSqlSafe(update.clone())).execute(&mut **tx).await.unwrap();
    };
    // Longer than all of this takes, on any machine.
    let request = ask("accounts", seconds(3600));
    let grant = granted(locks.acquire(&request).await.unwrap());
    let (fence, resource) = (fence_of(&request, grant), Resource::new("accounts").unwrap());

    let plain = async || {
        let mut tx = pool.begin().await.unwrap();
        write(&mut tx).await;
        tx.commit().await.unwrap();
    };
    let with_a_round_trip = async || {
        let mut tx = pool.begin().await.unwrap();
        sqlx::raw_sql("SELECT 1").fetch_all(&mut *tx).await.unwrap();
        write(&mut tx).await;
        tx.commit().await.unwrap();
    };
    let guarded = async || {
        let mut tx = transactions.begin(&fence).await.unwrap();
        write(&mut tx).await;
        tx.commit().await.unwrap();
    };
    let held = async || {
        let mut tx = pool.begin().await.unwrap();
        transactions.hold(&mut tx, &fence).await.unwrap();
        write(&mut tx).await;
        tx.commit().await.unwrap();
    };
    let admitted = async || {
        let mut tx = pool.begin().await.unwrap();
        fences.admit(&mut tx, &resource, &fence, Pass::Again).await.unwrap();
        write(&mut tx).await;
        tx.commit().await.unwrap();
    };
    let under_the_lock = async || {
        let mut tx = transactions.begin(&fence).await.unwrap();
        write(&mut tx).await;
        transactions.commit(tx, &fence).await.unwrap();
    };
    let mut least = [f64::MAX; 5];
    for batch in 1..=BATCHES {
        let mut took: [Vec<Duration>; 6] = Default::default();
        for _ in 0..ROUNDS {
            took[0].push(timed(&pool, &plain).await);
            took[1].push(timed(&pool, &with_a_round_trip).await);
            took[2].push(timed(&pool, &guarded).await);
            took[3].push(timed(&pool, &held).await);
            took[4].push(timed(&pool, &admitted).await);
            took[5].push(timed(&pool, &under_the_lock).await);
        }
        let [base, others @ ..] = took.map(|mut took| {
            took.sort();
            took[took.len() / 2]
        });
        let ratios = others.map(|median| median.as_secs_f64() / base.as_secs_f64());
        println!(
            "batch {batch}: BEGIN, UPDATE, COMMIT {base:?}; with SELECT 1 {:.2}x, begun under the lock {:.2}x, \
             with hold {:.2}x, with admit {:.2}x, begun and committed under the lock {:.2}x",
            ratios[0], ratios[1], ratios[2], ratios[3], ratios[4]
        );
        least = std::array::from_fn(|n| least[n].min(ratios[n]));
    }
    let [_, guarded, held, admitted, under_the_lock] = least;
    println!("least: {least:.2?}");
    // The guard is in messages that are sent anyway.
    assert!(guarded < 1.3, "begun under the lock {guarded:.2}x");
    // A round trip and a look more: the quicker the disk answers the commit, the more that is in proportion.
    assert!(held < 1.5 && admitted < 1.4, "with hold {held:.2}x, with admit {admitted:.2}x");
    // It looks twice.
    assert!(under_the_lock < 1.7, "{under_the_lock:.2}x");
    pool.close().await;
    drop(locks);
    place.clear().await;
}

/// From when the connection rests: what the one before left to be done isn't laid to its door.
async fn timed(pool: &sqlx::PgPool, work: &impl AsyncFn()) -> Duration {
    drop(pool.acquire().await.unwrap());
    let start = SystemClock.now();
    work().await;
    SystemClock.now().since(start)
}

testbed::server_tests!(testbed::postgres => a_fenced_transaction_costs_little_more_than_a_plain_one);
