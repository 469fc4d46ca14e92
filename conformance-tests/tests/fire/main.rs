//! Every store under fire: clients in processes of their own, servers of the run's own, faults by a seed; and the laws over
//! all that happened.
//!
//! `cargo test -p conformance-tests --features fire --test fire` burns each store for some 15 s, always with the same seed.
//! `LEASEHOLD_FIRE_SECONDS=120` is longer, `LEASEHOLD_FIRE_SEED=7` draws another chance (`any` a new one in each run),
//! `LEASEHOLD_FIRE_FAULTS=frozen,cut` makes only these faults (`help` lists them), `LEASEHOLD_FIRE_CLIENTS=9` starts so many,
//! `LEASEHOLD_FIRE_FOLDER=/tmp/x` keeps all histories there, `LEASEHOLD_FIRE_JUDGE=/tmp/x/postgres` judges one once more.
//! `cargo xtask fire` sets them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod clocks;
mod clusters;
mod elsewhere;
mod etcd;
#[path = "../frozen/etcd.rs"]
mod etcd_lists;
mod mongo;
#[path = "../frozen/mongo.rs"]
mod mongo_lists;
mod postgres;
#[path = "../frozen/postgres.rs"]
mod postgres_lists;
mod redis;
#[path = "../frozen/redis.rs"]
mod redis_lists;
mod redis_sentinel;
mod redlock;
mod servers;
mod sqlite;
#[path = "../frozen/sqlite.rs"]
mod sqlite_lists;
mod zookeeper;
#[path = "../frozen/zookeeper.rs"]
mod zookeeper_lists;

use std::{fmt::Display, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use conformance_tests::{
    Failure,
    fire::{Burnt, Fire, Ground, NotCommitted, Scene, Site},
};
use futures_util::future::BoxFuture;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lock_core::{ErrorKind, FenceError, LockError, StoreError, TransactionError};

macro_rules! stores {
    ($($name:literal => $module:ident :: $start:ident;)+) => {
        /// All stores, under the names by which they are chosen.
        const STORES: &[Store] = &[$(Store {
            name: $name,
            start: $module::$start,
            open: |site| Box::pin($module::open(site)),
        }),+];
    };
}

stores! {
    "sqlite" => sqlite::start;
    "postgres" => postgres::start;
    "redis" => redis::start;
    "redis-sentinel" => redis_sentinel::start;
    "redlock" => redlock::start;
    "mongo" => mongo::start;
    "etcd" => etcd::start;
    "etcd-three" => etcd::start_three;
    "zookeeper" => zookeeper::start;
    "zookeeper-three" => zookeeper::start_three;
}

struct Store {
    name: &'static str,
    /// Starts servers of the run's own. Blocks.
    start: fn() -> Result<Arc<dyn Ground>, Failure>,
    open: fn(Site) -> BoxFuture<'static, Result<Scene, Failure>>,
}

/// How many stores burn at once, whatever the cores: clients mostly wait.
const AT_ONCE: usize = 4;

/// How long each store burns, unless it is said.
const SECONDS: u64 = 15;

/// By which seed, unless it is said: a test is the same each time, as far as the machine lets it be.
const SEED: u64 = 7;

fn main() -> ExitCode {
    if let Some(code) = Fire::play(open) {
        return code;
    }
    if let Some(folder) = std::env::var_os("LEASEHOLD_FIRE_JUDGE").filter(|folder| !folder.is_empty()) {
        return judge_again(&PathBuf::from(folder));
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let trial = |store: &'static Store| Trial::ignorable_test(store.name, move || test(store));
    libtest_mimic::run(&arguments, STORES.iter().map(trial).collect()).exit_code()
}

/// A history that was kept is judged once more.
fn judge_again(folder: &std::path::Path) -> ExitCode {
    match Burnt::again(folder) {
        Ok(burnt) => {
            println!("{burnt}\n{}", burnt.laws);
            if burnt.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("{}: {failure}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// In a client's process, or for the last look.
async fn open(site: Site) -> Result<Scene, Failure> {
    let store = STORES.iter().find(|store| store.name == site.store);
    let store = store.ok_or_else(|| Failure::new(format!("there is no store {}", site.store)))?;
    (store.open)(site).await
}

fn test(store: &'static Store) -> Result<Completion, Failed> {
    let ground = match (store.start)() {
        Ok(ground) => ground,
        Err(missing) if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) => {
            return Err(missing.to_string().into());
        }
        Err(missing) => return Ok(Completion::ignored_with(missing.to_string())),
    };
    let wish = Wish::from_environment()?;
    if wish.faults.as_deref() == Some(&["help".to_owned()]) {
        for (lane, name, about) in Fire::menu(&*ground) {
            println!("{}: {name} ({}): {about}", store.name, format!("{lane:?}").to_lowercase());
        }
        return Ok(Completion::Completed);
    }
    let burnt = burn(store, &*ground, &wish)?;
    println!("{burnt}\n{}", burnt.laws);
    if burnt.is_clean() {
        return Ok(Completion::Completed);
    }
    Err(format!("{}; the history is in {}", burnt.broken.join("; "), burnt.folder.display()).into())
}

fn burn(store: &'static Store, ground: &dyn Ground, wish: &Wish) -> Result<Burnt, Failure> {
    let kept = tempfile::Builder::new().prefix(&format!("fire-{}-", store.name)).tempdir()?;
    let folder = match &wish.folder {
        Some(folder) => folder.join(store.name),
        None => kept.path().to_owned(),
    };
    if folder.exists() && wish.folder.is_some() {
        std::fs::remove_dir_all(&folder)?;
    }
    let mut fire = Fire::new(store.name, &folder).length(wish.length).kept(wish.kept);
    if let Some(seed) = wish.seed {
        fire = fire.seed(seed);
    }
    if let Some(clients) = wish.clients {
        fire = fire.clients(clients);
    }
    if let Some(faults) = &wish.faults {
        fire = fire.faults(faults.clone());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let burnt = runtime.block_on(fire.burn(ground, open));
    runtime.shutdown_timeout(Duration::from_secs(5));
    if !matches!(&burnt, Ok(burnt) if burnt.is_clean()) {
        // For people to look at.
        _ = kept.keep();
    }
    burnt.map_err(|failure| Failure::new(format!("{failure}; what there is of the history is in {}", folder.display())))
}

/// What the environment asks for.
struct Wish {
    length: Duration,
    kept: usize,
    /// `None`: a new one.
    seed: Option<u64>,
    clients: Option<usize>,
    faults: Option<Vec<String>>,
    folder: Option<PathBuf>,
}

impl Wish {
    fn from_environment() -> Result<Self, Failure> {
        let text = |name: &str| std::env::var(format!("LEASEHOLD_FIRE_{name}")).ok().filter(|text| !text.is_empty());
        let number = |name: &str| -> Result<Option<u64>, Failure> {
            let wrong = |text: &str| Failure::new(format!("LEASEHOLD_FIRE_{name} is no number: {text:?}"));
            text(name).map(|text| text.parse().map_err(|_| wrong(&text))).transpose()
        };
        Ok(Self {
            length: Duration::from_secs(number("SECONDS")?.unwrap_or(SECONDS)),
            kept: usize::try_from(number("KEPT")?.unwrap_or(100))?,
            seed: if text("SEED").as_deref() == Some("any") { None } else { Some(number("SEED")?.unwrap_or(SEED)) },
            clients: number("CLIENTS")?.map(usize::try_from).transpose()?,
            faults: text("FAULTS").map(|text| text.split(',').map(|name| name.trim().to_owned()).collect()),
            folder: text("FOLDER").map(PathBuf::from),
        })
    }
}

/// What opens a list panics where it can't; here servers may be down, and it is tried again.
async fn opened<T: Send + 'static>(open: impl Future<Output = T> + Send + 'static) -> Result<T, Failure> {
    Ok(tokio::spawn(open).await?)
}

fn not_written(error: impl std::error::Error + Send + Sync + 'static) -> FenceError {
    StoreError::refused(ErrorKind::Other, "the set can't be used").caused_by(error).into()
}

/// What a transaction's failure says.
fn not_committed<E: Display>(error: TransactionError<E>) -> NotCommitted {
    NotCommitted {
        applied: error.applied(),
        busy: matches!(&error, TransactionError::Lock(LockError::Busy(_))),
        refused: matches!(&error, TransactionError::Fence(error) if error.is_refusal()),
        text: error.to_string(),
    }
}
