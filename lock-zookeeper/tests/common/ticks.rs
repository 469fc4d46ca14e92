//! What is asked and known of the ticks of the lock `x`.

use lock_core::{AcquireRequest, Acquired, LockProvider, Tick};
use lock_zookeeper::{
    ZooKeeperLocks,
    zookeeper_client::{Client, Error},
};

pub(crate) fn with(request: AcquireRequest, tick: Tick) -> AcquireRequest {
    AcquireRequest { tick: Some(tick), ..request }
}

pub(crate) async fn finished(locks: &ZooKeeperLocks, request: &AcquireRequest, last: Tick) {
    let answer = locks.acquire(request).await.unwrap();
    assert!(matches!(answer, Acquired::Finished(told) if told == last), "{answer:?}");
}

/// What is kept of the ticks of `x`, and how often it was written over.
pub(crate) async fn kept(operator: &Client, path: &str) -> (String, i32) {
    let (data, stat) = operator.get_data(&format!("{path}/ticks/x")).await.unwrap();
    (String::from_utf8(data).unwrap(), stat.version)
}

/// Who holds `x` or waits for it.
pub(crate) async fn entries(operator: &Client, path: &str) -> Vec<String> {
    match operator.list_children(&format!("{path}/locks/x")).await {
        // The servers remove a lock's own node some time after its last entry.
        Err(Error::NoNode) => Vec::new(),
        children => children.unwrap(),
    }
}

/// Deletes the lock's own node, if the servers haven't by then.
pub(crate) async fn forget(operator: &Client, path: &str) {
    let deleted = operator.delete(&format!("{path}/locks/x"), None).await;
    assert!(matches!(deleted, Ok(()) | Err(Error::NoNode)), "{deleted:?}");
}
