//! What every fence register keeps, over all of them; and over registers that are wrong in one way each, in which it is
//! found.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod flawed;

use std::{
    any::Any,
    io,
    process::ExitCode,
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use conformance_tests::{
    Failure, Lacking,
    registers::{REGISTER_PROPERTIES, RegisterProperty, Registers},
};
use flawed::CATCHES;
use futures_util::future::BoxFuture;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lock_core::{FenceRegister, MemoryFences, Observer};
use object_store::{ObjectStore, memory::InMemory};

macro_rules! row {
    ($store:ident: $place:expr, $connect:expr) => {
        row!($store: $place, $connect, |register, observer| Ok(Arc::new(register.observer(observer))))
    };
    // One that tells nobody what it refuses.
    ($store:ident: $place:expr, $connect:expr, untold) => {
        row!($store: $place, $connect, |_register, _observer| {
            Err(Lacking::new("it tells nobody what it refuses").into())
        })
    };
    ($store:ident: $place:expr, $connect:expr, |$register:ident, $observer:ident| $observed:expr) => {
        Row {
            store: stringify!($store),
            place: || $place().map(Place::from).map_err(|missing| missing.to_string()),
            connect: |url, observer| {
                Box::pin(async move {
                    let $register = $connect(url).await?;
                    let register: Register = match observer {
                        None => Ok(Arc::new($register)),
                        Some($observer) => $observed,
                    };
                    register
                })
            },
        }
    };
}

/// The registers, a line for each: its store, where that is, and how a client of the register is made from that.
fn rows() -> Vec<Row> {
    vec![
        row!(memory: nowhere, async |_| Ok::<_, Failure>(MEMORY.clone())),
        row!(sqlite: tempfile::tempdir, async |url: String| lock_sqlite::SqliteFences::connect(&url).await),
        row!(postgres: testbed::postgres, async |url: String| lock_postgres::PostgresFences::connect(&url).await, untold),
        row!(redis: testbed::redis, async |url: String| lock_redis::RedisFences::connect(&url).await),
        row!(mongo: testbed::mongo, async |url: String| lock_mongo::MongoFences::connect(&url).await),
        row!(etcd: testbed::etcd, async |url: String| lock_etcd::EtcdFences::connect(&url).await),
        row!(zookeeper: testbed::zookeeper, async |url: String| lock_zookeeper::ZooKeeperFences::connect(&url).await),
        row!(objects: nowhere, async |_| Ok::<_, Failure>(lock_fence::object::FencedObjects::new(OBJECTS.clone())), untold),
        row!(files: folder, async |url: String| lock_fence::files::FileFences::open(url).await, untold),
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
    place: fn() -> Result<Place, String>,
    connect: fn(String, Option<Arc<dyn Observer>>) -> BoxFuture<'static, Register>,
}

type Register = Result<Arc<dyn FenceRegister>, Failure>;

/// Where a store is, and what keeps it there.
struct Place {
    url: String,
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

impl From<testbed::Server> for Place {
    fn from(server: testbed::Server) -> Self {
        Self { url: server.url().to_owned(), _kept: Some(Box::new(server)) }
    }
}

impl From<tempfile::TempDir> for Place {
    fn from(folder: tempfile::TempDir) -> Self {
        Self { url: folder.path().join("kept").display().to_string(), _kept: Some(Box::new(folder)) }
    }
}

/// A fresh folder.
fn folder() -> io::Result<Place> {
    let place: Place = tempfile::tempdir()?.into();
    std::fs::create_dir(&place.url)?;
    Ok(place)
}

/// For what is in this process's memory.
fn nowhere() -> Result<Place, String> {
    Ok(Place { url: String::new(), _kept: None })
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
