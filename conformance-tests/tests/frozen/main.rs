//! Frozen processes write late, to lists in all stores: fenced, no token falls; unfenced, the fall is found.
//!
//! `LEASEHOLD_FROZEN_SECONDS=300` makes each run longer than the 20 seconds it takes otherwise, `LEASEHOLD_FROZEN_SEED=7`
//! repeats a run's chance.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

#[path = "../bucket/mod.rs"]
mod bucket;
mod etcd;
mod files;
mod lines;
mod memory;
mod mongo;
mod objects;
#[cfg(target_os = "linux")]
mod orphans;
#[path = "../place/mod.rs"]
mod place;
mod postgres;
mod redis;
mod s3;
mod service;
mod sqlite;
mod zookeeper;

use std::{process::ExitCode, sync::Arc, time::Duration};

use conformance_tests::{
    Failure, FencedList, FrozenWriters,
    frozen::{Scene, Seen, Site},
};
use futures_util::future::BoxFuture;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lock_core::LockProvider;
use lock_sqlite::SqliteLocks;
use place::{Place, folder, sqlite_file};
use serde::{Deserialize, Serialize};

macro_rules! row {
    ($store:ident: $place:expr) => {
        vec![row!(concat!(stringify!($store), "::register"), $place, None, $store::register_list, IN_A_FILE)]
    };
    ($store:ident: $place:expr, $locks:ty, $millis:expr) => {{
        let connect: Connect =
            |url| Box::pin(async move { Ok(Arc::new(<$locks>::connect(&url).await?) as Arc<dyn LockProvider>) });
        let ttl = Duration::from_millis($millis);
        vec![
            row!(concat!(stringify!($store), "::guard"), $place, Some(connect), $store::guard_list, ttl),
            row!(concat!(stringify!($store), "::register"), $place, None, $store::register_list, IN_A_FILE),
        ]
    }};
    ($name:expr, $place:expr, $locks:expr, $list:expr, $ttl:expr) => {
        Row {
            name: $name,
            place: || $place().map(Place::from).map_err(|missing| missing.to_string()),
            locks: $locks,
            list: |url, name| Box::pin(async move { $list(&url, &name).await }),
            ttl: $ttl,
        }
    };
}

/// The lists, a line for each store: the module that has its lists, and where it is; and if it keeps locks as well, its
/// provider and the shortest ttl, in milliseconds, that it keeps well.
///
/// A store that keeps locks has two lists: guarded by a lock of its own, and registered under a lock that is kept elsewhere.
fn rows() -> Vec<Row> {
    [
        row!(memory: memory::serve),
        row!(files: folder),
        row!(service: service::serve),
        row!(objects: objects::serve),
        row!(s3: testbed::s3),
        row!(sqlite: sqlite_file, lock_sqlite::SqliteLocks, 1_000),
        row!(postgres: testbed::postgres, lock_postgres::PostgresLocks, 1_000),
        row!(redis: testbed::redis, lock_redis::RedisLocks, 1_000),
        row!(mongo: testbed::mongo, lock_mongo::MongoLocks, 1_000),
        row!(etcd: testbed::etcd, lock_etcd::EtcdLocks, 2_000),
        row!(zookeeper: testbed::zookeeper, lock_zookeeper::ZooKeeperLocks, 4_000),
    ]
    .concat()
}

/// A list with the flaw that everybody makes first.
fn checked_before() -> Row {
    row!("memory::checked_before", memory::serve, None, memory::checked_before_list, IN_A_FILE)
}

/// How many lists are written to at once: each is six processes that think most of the time.
const AT_ONCE: usize = 4;

/// The ttl of locks that are kept in a file, which is what registers are tested with.
const IN_A_FILE: Duration = Duration::from_secs(1);

/// One list.
#[derive(Clone)]
struct Row {
    name: &'static str,
    place: fn() -> Result<Place, String>,
    locks: Option<Connect>,
    list: fn(String, String) -> BoxFuture<'static, Arc<dyn FencedList>>,
    ttl: Duration,
}

type Connect = fn(String) -> BoxFuture<'static, Result<Arc<dyn LockProvider>, Failure>>;

/// What the writers are told: where the list is, and where the lock.
#[derive(Serialize, Deserialize)]
struct Places {
    list: String,
    locks: String,
}

fn main() -> ExitCode {
    if let Some(code) = FrozenWriters::play(open) {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let trial = |row: Row| Trial::ignorable_test(row.name, move || fences(&row));
    let mut trials: Vec<Trial> = rows().into_iter().map(trial).collect();
    trials.push(Trial::test("memory::a_check_before_the_write_is_caught", a_check_before_the_write_is_caught));
    #[cfg(target_os = "linux")]
    trials.push(Trial::test("writers_end_with_their_program", orphans::writers_end_with_their_program));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// In a writer's process: connects to the lock's store and to the list.
async fn open(site: Site) -> Result<Scene, Failure> {
    let row = rows().into_iter().chain([checked_before()]).find(|row| row.name == site.list);
    let row = row.ok_or_else(|| Failure::new(format!("there is no list {}", site.list)))?;
    let places: Places = serde_json::from_str(&site.place)?;
    let locks: Arc<dyn LockProvider> = match row.locks {
        Some(connect) => connect(places.locks).await?,
        None => Arc::new(SqliteLocks::connect(&places.locks).await?),
    };
    Ok(Scene::shared(locks, (row.list)(places.list, site.name).await))
}

/// Fenced, no token falls; unfenced, the fall is found.
fn fences(row: &Row) -> Result<Completion, Failed> {
    let place = match (row.place)() {
        Ok(place) => place,
        Err(missing) if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) => return Err(missing.into()),
        Err(missing) => return Ok(Completion::ignored_with(missing)),
    };
    let fenced = run(row, &place, async |writers, list| writers.must_be_fenced(list).await)?;
    println!("{}: {fenced}", row.name);
    let control = run(row, &place, async |writers, list| writers.must_be_caught(list).await)?;
    println!("{}, unfenced: {control}", row.name);
    Ok(Completion::Completed)
}

fn a_check_before_the_write_is_caught() -> Result<(), Failed> {
    let row = checked_before();
    match run(&row, &(row.place)()?, async |writers, list| writers.must_be_fenced(list).await) {
        Err(failure) if failure.to_string().contains("a token falls") => Ok(()),
        other => Err(format!("it was to be found that a token falls: {other:?}").into()),
    }
}

/// A run over a fresh list.
fn run(
    row: &Row,
    place: &Place,
    ordeal: impl AsyncFnOnce(&FrozenWriters, &dyn FencedList) -> Result<Seen, Failure>,
) -> Result<Seen, Failure> {
    let of_its_own = sqlite_file()?;
    let locks = if row.locks.is_some() { &place.url } else { &of_its_own.url };
    let places = serde_json::to_string(&Places { list: place.url.clone(), locks: locks.clone() })?;
    let set = |variable: &str| std::env::var(variable).ok().map(|value| value.parse()).transpose();
    let length = Duration::from_secs(set("LEASEHOLD_FROZEN_SECONDS")?.unwrap_or(20));
    let mut writers = FrozenWriters::new(row.name, places, row.ttl).length(length);
    if let Some(seed) = set("LEASEHOLD_FROZEN_SEED")? {
        writers = writers.seed(seed);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let seen = runtime.block_on(async {
        let list = (row.list)(place.url.clone(), writers.name().to_owned()).await;
        ordeal(&writers, &*list).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    seen
}
