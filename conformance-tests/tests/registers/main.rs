//! What every fence register keeps, over all of them; and over registers that are wrong in one way each, in which it is
//! found.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

#[path = "../bucket/mod.rs"]
mod bucket;
mod flawed;
#[path = "../place/mod.rs"]
mod place;

use std::{
    io,
    process::ExitCode,
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use conformance_tests::{
    Failure,
    registers::{REGISTER_PROPERTIES, RegisterProperty, Registers},
};
use flawed::CATCHES;
use futures_util::future::BoxFuture;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lock_core::{FenceRegister, MemoryFences, Observer};
use object_store::{ObjectStore, memory::InMemory};
use place::{Place, folder, sqlite_file};

macro_rules! row {
    ($store:ident: $whose:ident $place:expr, $connect:expr) => {
        Row {
            store: stringify!($store),
            is_shared: $whose,
            place: || $place().map(Place::from).map_err(|missing| missing.to_string()),
            connect: |url, observer| {
                Box::pin(async move {
                    let register = $connect(url).await?;
                    let register: Arc<dyn FenceRegister> = match observer {
                        None => Arc::new(register),
                        Some(observer) => Arc::new(register.observer(observer)),
                    };
                    Ok(register)
                })
            },
        }
    };
}

/// Whose the place is: the test's own, or one where other runs may be now.
const OWN: bool = false;
const SHARED: bool = true;

/// The registers, a line for each: its store, where that is and whose, and how a client of the register is made from that.
fn rows() -> Vec<Row> {
    vec![
        row!(memory: OWN nowhere, async |_| Ok::<_, Failure>(MEMORY.clone())),
        row!(sqlite: OWN sqlite_file, async |url: String| lock_sqlite::SqliteFences::connect(&url).await),
        row!(postgres: SHARED testbed::postgres, async |url: String| lock_postgres::PostgresFences::connect(&url).await),
        row!(redis: SHARED testbed::redis, async |url: String| lock_redis::RedisFences::connect(&url).await),
        row!(mongo: SHARED testbed::mongo, async |url: String| lock_mongo::MongoFences::connect(&url).await),
        row!(etcd: SHARED testbed::etcd, async |url: String| lock_etcd::EtcdFences::connect(&url).await),
        row!(zookeeper: SHARED testbed::zookeeper, async |url: String| lock_zookeeper::ZooKeeperFences::connect(&url).await),
        row!(objects: OWN nowhere, async |_| Ok::<_, Failure>(lock_fence::object::FencedObjects::new(OBJECTS.clone()))),
        row!(s3: SHARED testbed::s3, async |url: String| bucket::client(&url).map(lock_fence::object::FencedObjects::new)),
        row!(files: OWN folder, async |url: String| lock_fence::files::FileFences::open(url).await),
    ]
}

/// The one that all clients of the memory's register see.
static MEMORY: LazyLock<MemoryFences> = LazyLock::new(MemoryFences::new);

/// The bucket that all clients of the objects' register see.
static OBJECTS: LazyLock<Arc<dyn ObjectStore>> = LazyLock::new(|| Arc::new(InMemory::new()));

/// One store's registers.
#[derive(Clone, Copy)]
struct Row {
    store: &'static str,
    is_shared: bool,
    place: fn() -> Result<Place, String>,
    connect: fn(String, Option<Arc<dyn Observer>>) -> BoxFuture<'static, Register>,
}

type Register = Result<Arc<dyn FenceRegister>, Failure>;

/// For what is in this process's memory.
fn nowhere() -> io::Result<String> {
    Ok(String::new())
}

struct Store {
    row: Row,
    place: Place,
}

#[async_trait]
impl Registers for Store {
    async fn register(&self) -> Register {
        (self.row.connect)(self.place.url.clone(), None).await
    }

    async fn observed(&self, observer: Arc<dyn Observer>) -> Register {
        (self.row.connect)(self.place.url.clone(), Some(observer)).await
    }

    fn is_shared(&self) -> bool {
        self.row.is_shared
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4);
    let of_row = |row: Row| {
        REGISTER_PROPERTIES.iter().map(move |property| {
            let name = format!("{}::{}", row.store, property.name);
            Trial::ignorable_test(name, move || keeps(row, property))
        })
    };
    let flawed = CATCHES.iter().flat_map(|&(flaw, properties)| {
        properties.iter().map(move |&name| {
            Trial::test(format!("{name}::catches::{flaw:?}"), move || Ok(on_runtime(flawed::catches(name, flaw))??))
        })
    });
    libtest_mimic::run(&arguments, rows().into_iter().flat_map(of_row).chain(flawed).collect()).exit_code()
}

fn keeps(row: Row, property: &'static RegisterProperty) -> Result<Completion, Failed> {
    match (row.place)() {
        Ok(place) => match on_runtime(async { property.test(&Store { row, place }).await })? {
            Err(Failure::Lacking(lacking)) => return Ok(Completion::ignored_with(lacking.to_string())),
            kept => kept?,
        },
        Err(missing) if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) => return Err(missing.into()),
        Err(missing) => return Ok(Completion::ignored_with(missing)),
    }
    Ok(Completion::Completed)
}

fn on_runtime<T>(test: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(test))
}
