//! Lists in Redis: behind the record of the lock, and behind a register.

use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::FencedList;
use lock_core::{ErrorKind, FenceError, Lease, Operation, Pass, Resource, StoreError};
use lock_redis::{
    FencedScript, HeldScript, RedisFences, RedisLocks,
    redis::{self, Client, aio::ConnectionManager},
};

const APPEND: &str = "return redis.call('RPUSH', KEYS[1], ARGV[1])";

/// What checks an append.
enum Check {
    /// The record of the lock, in the same Redis.
    Lock(HeldScript),
    Register(FencedScript, Resource),
}

struct List {
    check: Check,
    key: String,
    plain: ConnectionManager,
}

/// Appends while the lease holds its lock, by the lock's record: `url` is the store of the locks.
pub(crate) async fn guard_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let locks = RedisLocks::connect(url).await.expect("the Redis that keeps the locks");
    list(Check::Lock(locks.script(APPEND)), url, name).await
}

/// Appends what a register lets pass.
pub(crate) async fn register_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let fences = RedisFences::connect(url).await.expect("a Redis for the register");
    let resource = Resource::new(name).expect("the name of a resource");
    list(Check::Register(fences.script(APPEND), resource), url, name).await
}

async fn list(check: Check, url: &str, name: &str) -> Arc<dyn FencedList> {
    // The driver doesn't know our parameter.
    let url = url.split('?').next().unwrap_or(url);
    let client = Client::open(url).expect("the URL of one server");
    let plain = ConnectionManager::new(client).await.expect("a connection past the check");
    Arc::new(List { check, key: format!("{name}:list"), plain })
}

#[async_trait]
impl FencedList for List {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        match &self.check {
            Check::Lock(append) => append.key(&self.key).arg(entry).run::<()>(lease).await,
            Check::Register(append, resource) => {
                append.key(&self.key).arg(entry).run::<()>(resource, lease, Pass::Again).await
            }
        }
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        let mut append = redis::cmd("RPUSH");
        append.arg(&self.key).arg(entry);
        append.query_async::<()>(&mut self.plain.clone()).await.map_err(failed)
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        let mut range = redis::cmd("LRANGE");
        range.arg(&self.key).arg(0).arg(-1);
        range.query_async(&mut self.plain.clone()).await.map_err(failed)
    }
}

fn failed(error: redis::RedisError) -> FenceError {
    StoreError::unknown(ErrorKind::Other, error.to_string()).at("redis", Operation::Fence, None).into()
}
