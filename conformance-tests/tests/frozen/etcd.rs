//! Lists in etcd: each entry is a key, in the order in which the store created them.
#![allow(clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::FencedList;
use lock_core::{ErrorKind, FenceError, Lease, OsEntropy, OwnerId, Pass, Resource, StoreError};
use lock_etcd::{
    EtcdFences, EtcdLocks,
    etcd_client::{Client, Error, GetOptions, SortOrder, SortTarget, TxnOp},
};

/// Checked by the lock's own key, in the cluster where the lock is: `url` is what the locks are connected by.
pub(crate) async fn guard_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    list(Check::Hold(EtcdLocks::connect(url).await.expect("locks in etcd")), url, name).await
}

/// Checked by a register next to the entries, for locks of any store.
pub(crate) async fn register_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let fences = EtcdFences::connect(url).await.expect("a register in etcd");
    let resource = Resource::new(format!("list/{name}")).expect("a name for the list");
    list(Check::Register(fences, resource), url, name).await
}

async fn list(check: Check, url: &str, name: &str) -> Arc<dyn FencedList> {
    let hosts = url.trim_start_matches("etcd://").split(['/', '?']).next().unwrap_or_default();
    let client = Client::connect(hosts.split(',').collect::<Vec<_>>(), None).await.expect("a client of etcd");
    Arc::new(List { check, client, prefix: format!("list/{name}/") })
}

enum Check {
    Hold(EtcdLocks),
    Register(EtcdFences, Resource),
}

struct List {
    check: Check,
    client: Client,
    prefix: String,
}

impl List {
    /// A key that nobody else has.
    fn key(&self) -> String {
        format!("{}{}", self.prefix, OwnerId::random(&OsEntropy))
    }
}

fn failed(error: Error) -> FenceError {
    StoreError::unknown(ErrorKind::Other, error.to_string()).caused_by(error).into()
}

#[async_trait]
impl FencedList for List {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        let put = [TxnOp::put(self.key(), entry, None)];
        match &self.check {
            Check::Hold(locks) => locks.write(lease, put).await,
            Check::Register(fences, resource) => fences.write(resource, lease, Pass::Again, put).await,
        }
        .map(drop)
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        self.client.kv_client().put(self.key(), entry, None).await.map(drop).map_err(failed)
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
        let found = self.client.kv_client().get(self.prefix.as_str(), Some(options)).await.map_err(failed)?;
        Ok(found.kvs().iter().map(|kv| String::from_utf8_lossy(kv.value()).into_owned()).collect())
    }
}
