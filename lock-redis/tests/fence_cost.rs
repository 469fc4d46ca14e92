//! What the check costs: a script behind it against the same script alone, in one run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Place, name, take};
use lock_core::{Clock, Fence, Pass, Resource, SystemClock};
use lock_redis::{
    FencedScript, HeldScript, RedisFences,
    redis::{self, Client, aio::ConnectionManager},
};
use tokio::task::JoinSet;

const SCRIPT: &str = "redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) return redis.call('HGET', KEYS[1], ARGV[1])";

/// One script, in each of the ways in which it can be run.
struct Runs {
    manager: ConnectionManager,
    alone: redis::Script,
    fenced: FencedScript,
    held: HeldScript,
    accounts: Resource,
    by: Fence,
}

impl Runs {
    const WAYS: usize = 3;
    const BATCHES: usize = 7;

    async fn once(&self, way: usize, key: &str) {
        let _: u64 = match way {
            0 => self.alone.key(key).arg("7").arg(1).invoke_async(&mut self.manager.clone()).await.unwrap(),
            1 => self.fenced.key(key).arg("7").arg(1).run(&self.accounts, &self.by, Pass::Again).await.unwrap(),
            _ => self.held.key(key).arg("7").arg(1).run(&self.by).await.unwrap(),
        };
    }

    /// This many at once, each in a task.
    async fn at_once(self: &Arc<Self>, way: usize, tasks: usize) {
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            let runs = Arc::clone(self);
            running.spawn(async move { runs.once(way, "many").await });
        }
        running.join_all().await;
    }

    /// What each way takes in the quietest of several batches: what else runs here disturbs all for a while.
    async fn in_quiet(self: &Arc<Self>, rounds: usize, tasks: usize) -> [Duration; Self::WAYS] {
        let mut batches = Vec::new();
        for _ in 0..Self::BATCHES {
            batches.push(self.medians(rounds, tasks).await);
        }
        batches.into_iter().min_by_key(|took| took.iter().sum::<Duration>()).unwrap()
    }

    /// Each way in turn, and the middle of what each took.
    async fn medians(self: &Arc<Self>, rounds: usize, tasks: usize) -> [Duration; Self::WAYS] {
        let mut took: [Vec<Duration>; Self::WAYS] = std::array::from_fn(|_| Vec::new());
        for round in 0..rounds {
            for turn in 0..Self::WAYS {
                // Nobody is always the first.
                let way = (turn + round) % Self::WAYS;
                let begun = SystemClock.now();
                if tasks == 1 {
                    self.once(way, "one").await;
                } else {
                    self.at_once(way, tasks).await;
                }
                took[way].push(SystemClock.now().since(begun));
            }
        }
        took.map(|mut all| {
            all.sort_unstable();
            all[all.len() / 2]
        })
    }
}

/// On a server that writes nothing to its disk: there the check is the largest part of the whole.
async fn a_check_costs_less_than_a_fifth_of_a_quick_script() {
    let place = Place::with(&["--appendonly", "no"]).await;
    let fences = RedisFences::builder(place.url()).prefix(&place.prefix).build().await.unwrap();
    let locks = place.locks().await;
    let (_, grant) = take(&locks, "accounts").await;
    let runs = Arc::new(Runs {
        manager: ConnectionManager::new(Client::open(place.url()).unwrap()).await.unwrap(),
        alone: redis::Script::new(SCRIPT),
        fenced: fences.script(SCRIPT),
        held: locks.script(SCRIPT),
        accounts: Resource::new("accounts").unwrap(),
        by: Fence::new(name("accounts"), grant.token).unwrap(),
    });
    for (rounds, tasks) in [(1000, 1), (60, 64)] {
        let runs = Arc::clone(&runs);
        // As applications run: in a task.
        let medians = tokio::spawn(async move { runs.in_quiet(rounds, tasks).await });
        let [alone, register, record] = medians.await.unwrap();
        let ratio = |of: Duration| of.as_secs_f64() / alone.as_secs_f64();
        let (register_costs, record_costs) = (ratio(register), ratio(record));
        println!(
            "{tasks} at once: alone {alone:?}, behind a register {register:?} ({register_costs:.2} x), behind the lock's \
             record {record:?} ({record_costs:.2} x)"
        );
        assert!(register_costs.max(record_costs) < most(tasks), "{register_costs:.2} x and {record_costs:.2} x");
    }
}

/// What it may cost at most. Unoptimised, our side of a call weighs several times as much as the server's. Many at once are
/// bound by the server's time alone, of which a script of two commands takes little; all that run here share two cores.
const fn most(tasks: usize) -> f64 {
    match (tasks, cfg!(debug_assertions)) {
        (1, false) => 1.2,
        (1, true) => 1.6,
        _ => 3.0,
    }
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    a_check_costs_less_than_a_fifth_of_a_quick_script,
);
