//! What a fenced write costs more than a plain one. In a program of its own: nothing else runs beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

#[path = "fence/app.rs"]
#[allow(dead_code, reason = "it uses a part of it")]
mod app;
mod common;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use app::{append, fence, immediate, pool, resource};
use common::{ask, take};
use lock_core::{Clock, FenceRegister, Pass, SystemClock, Transactions};
use lock_sqlite::{
    SqliteFences, SqliteLocks, SqliteTransactions,
    sqlx::{self, SqliteConnection, SqlitePool},
};

const ROUNDS: u32 = 100;

/// What else the machine does mostly makes the difference look larger; a fence that does cost more does so in all of these.
/// So the one where it looks least counts.
const BATCHES: u32 = 8;

const TTL: Duration = Duration::from_secs(3600);

/// Keeps the cores awake while it lives, and gives way to whoever has work.
///
/// Each message to SQLite's thread wakes two threads, and to wake a core from its sleep takes as long as a small statement: on a
/// machine that has nothing else to do that would be most of what is compared.
struct Awake(Arc<AtomicBool>);

impl Awake {
    fn all() -> Self {
        let asleep = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let asleep = Arc::clone(&asleep);
            std::thread::spawn(move || {
                // Of this thread alone.
                rustix::process::setpriority_process(None, 19).unwrap();
                while !asleep.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(asleep)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn update(connection: &mut SqliteConnection) {
    let done = sqlx::query("UPDATE entries SET entry = entry || 'x' WHERE position = 1").execute(connection).await;
    assert_eq!(done.unwrap().rows_affected(), 1);
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// Durable commits on a disk, one kind after the other in each round, so that all meet with the same machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_write_costs_less_than_a_third_more() {
    // Beside the build, since /tmp may be memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("app.db");
    let (pool, lease) = prepare(&path).await;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&pool).await.unwrap();
    assert_eq!(synchronous, 2, "FULL");
    let guard = SqliteTransactions::new(pool.clone());
    let fences = SqliteFences::new(pool.clone()).await.unwrap();
    let (same, rising) = (resource("same"), resource("rising"));
    fences.raise(&same, &lease, Pass::Again).await.unwrap();

    let _awake = Awake::all();
    let mut least = [f64::MAX; 4];
    for batch in 0..BATCHES {
        let mut times: [Vec<Duration>; 5] = Default::default();
        for round in 0..ROUNDS {
            for (kind, times) in times.iter_mut().enumerate() {
                let begun = SystemClock.now();
                let mut transaction = match kind {
                    4 => guard.begin(&lease).await.unwrap(),
                    _ => immediate(&pool).await,
                };
                match kind {
                    1 => guard.hold(&mut transaction, &lease).await.unwrap(),
                    2 => fences.admit(&mut transaction, &same, &lease, Pass::Again).await.unwrap(),
                    3 => {
                        let higher = fence("x", u64::from(batch * ROUNDS + round) + 1);
                        fences.admit(&mut transaction, &rising, &higher, Pass::Again).await.unwrap();
                    }
                    _ => {}
                }
                update(&mut transaction).await;
                match kind {
                    4 => guard.commit(transaction, &lease).await.unwrap(),
                    _ => transaction.commit().await.unwrap(),
                }
                times.push(SystemClock.now().since(begun));
            }
        }
        let [plain, fenced @ ..] = times.map(median);
        let ratios = fenced.map(|time| time / plain);
        println!(
            "batch {batch}: BEGIN IMMEDIATE; UPDATE; COMMIT, median of {ROUNDS}: plain {plain:.0} us; guarded {:.2}x; \
             admitted {:.2}x; admitted and raised {:.2}x; guarded from begin to commit {:.2}x",
            ratios[0], ratios[1], ratios[2], ratios[3]
        );
        least = std::array::from_fn(|kind| least[kind].min(ratios[kind]));
    }
    let [guarded, admitted, raised, whole] = least;
    println!(
        "least: guarded {guarded:.2}x; admitted {admitted:.2}x; admitted and raised {raised:.2}x; whole {whole:.2}x"
    );
    // Raised is once per grant, and the whole looks twice.
    for (kind, ratio, most) in
        [("guarded", guarded, 1.3), ("admitted", admitted, 1.3), ("raised", raised, 1.5), ("whole", whole, 1.5)]
    {
        assert!(ratio < most, "{kind}: {ratio:.2}x of a plain write, at its least");
    }
}

/// A file with one entry and a lock that is held; and its fence.
async fn prepare(path: &Path) -> (SqlitePool, lock_core::Fence) {
    let locks = SqliteLocks::builder(path).build().await.unwrap();
    let grant = take(&locks, &ask("x", TTL)).await;
    let pool = pool(path).await;
    append(&mut pool.acquire().await.unwrap(), "x").await.unwrap();
    (pool, fence("x", grant.token.get()))
}
