//! Lists in ZooKeeper: the children of a node, which the servers number in the order of their making.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::FencedList;
use lock_core::{ErrorKind, FenceError, Lease, Pass, Resource, StoreError};
use lock_zookeeper::{
    ZooKeeperFences, ZooKeeperLocks,
    zookeeper_client::{Acls, CheckWriter, Client, CreateMode, CreateOptions, Error},
};

const NODE: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());
const ENTRY: CreateOptions<'static> = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());

/// A list that asks whether the lease holds its lock.
pub(crate) async fn guard_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let list = List::new(url, name).await;
    Arc::new(Guarded { locks: ZooKeeperLocks::connect(url).await.unwrap(), list })
}

/// A list that asks for the highest fence it has seen.
pub(crate) async fn register_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let list = List::new(url, name).await;
    Arc::new(Registered { url: url.to_owned(), resource: Resource::new(name).unwrap(), list })
}

struct List {
    hosts: String,
    path: String,
}

impl List {
    async fn new(url: &str, name: &str) -> Self {
        let rest = url.strip_prefix("zookeeper://").unwrap();
        let hosts = rest.split(['/', '?']).next().unwrap().to_owned();
        let list = Self { hosts, path: format!("/frozen-{name}") };
        list.client().await.unwrap().mkdir(&list.path, &NODE).await.unwrap();
        list
    }

    /// A session of its own for each thing that is done: that of a process that stood still is over.
    async fn client(&self) -> Result<Client, FenceError> {
        let connector = Client::connector().with_session_timeout(Duration::from_secs(10));
        connector.connect(&self.hosts).await.map_err(store)
    }

    fn entry_path(&self) -> String {
        format!("{}/e-", self.path)
    }

    fn add(&self, entry: &str) -> impl Fn(&mut CheckWriter<'_>) -> Result<(), Error> {
        move |multi| multi.add_create(&self.entry_path(), entry.as_bytes(), &ENTRY)
    }

    async fn append(&self, entry: &str) -> Result<(), FenceError> {
        let client = self.client().await?;
        client.create(&self.entry_path(), entry.as_bytes(), &ENTRY).await.map(drop).map_err(store)
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        let client = self.client().await?;
        client.sync(&self.path).await.map_err(store)?;
        let mut names = client.list_children(&self.path).await.map_err(store)?;
        // Ten digits with leading zeros.
        names.sort_unstable();
        let mut entries = Vec::new();
        for name in names {
            let (entry, _) = client.get_data(&format!("{}/{name}", self.path)).await.map_err(store)?;
            entries.push(String::from_utf8(entry).unwrap());
        }
        Ok(entries)
    }
}

fn store(error: Error) -> FenceError {
    StoreError::unknown(ErrorKind::Unreachable, "the list's own client").caused_by(error).into()
}

struct Guarded {
    locks: ZooKeeperLocks,
    list: List,
}

#[async_trait]
impl FencedList for Guarded {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        let client = self.list.client().await?;
        self.locks.write_over(&client, lease, self.list.add(entry)).await.map(drop)
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        self.list.append(entry).await
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        self.list.entries().await
    }
}

struct Registered {
    url: String,
    resource: Resource,
    list: List,
}

#[async_trait]
impl FencedList for Registered {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        let fences = ZooKeeperFences::connect(&self.url).await?;
        fences.write(&self.resource, lease, Pass::Again, self.list.add(entry)).await.map(drop)
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        self.list.append(entry).await
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        self.list.entries().await
    }
}
