//! Lists in MongoDB, under the lock itself and under a register: a document each, appended to in a transaction.
#![allow(clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::FencedList;
use lock_core::{ErrorKind, FenceError, Lease, Pass, Resource, StoreError, Transactions};
use lock_mongo::{MongoFences, MongoTransactions};
use mongodb::{
    Client, ClientSession, Collection,
    bson::{Document, doc},
    error::{Error, TRANSIENT_TRANSACTION_ERROR},
};

/// Attempts at an append that another one is in the way of.
const ATTEMPTS: u32 = 100;

/// The list of this name, written only while the lock is held; the lock is kept where the URL says.
pub(crate) async fn guard_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let list = List::made(url, name).await;
    let transactions = MongoTransactions::new(list.client.clone());
    Arc::new(Guarded { list, transactions })
}

/// The list of this name, written under its highest fence.
pub(crate) async fn register_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let list = List::made(url, name).await;
    let fences = MongoFences::builder(&list.client).build().await.expect("a register");
    Arc::new(Registered { resource: Resource::new(name).expect("a resource"), list, fences })
}

struct List {
    client: Client,
    lists: Collection<Document>,
    name: String,
}

impl List {
    async fn made(url: &str, name: &str) -> Self {
        let client = Client::with_uri_str(url).await.expect("a client");
        let lists = client.default_database().expect("a database in the URL").collection("frozen_lists");
        let empty = doc! { "$setOnInsert": { "entries": [] } };
        lists.update_one(doc! { "_id": name }, empty).upsert(true).await.expect("a list");
        Self { client, lists, name: name.to_owned() }
    }

    async fn push(&self, session: &mut ClientSession, entry: &str) -> Result<(), FenceError> {
        let push = doc! { "$push": { "entries": entry } };
        let pushed = self.lists.update_one(doc! { "_id": &self.name }, push).session(session).await;
        pushed.map(drop).map_err(|error| undone(error).into())
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        let push = doc! { "$push": { "entries": entry } };
        let pushed = self.lists.update_one(doc! { "_id": &self.name }, push).await;
        pushed.map(drop).map_err(|error| unknown(error).into())
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        let found = self.lists.find_one(doc! { "_id": &self.name }).await.map_err(undone)?.expect("the list");
        let entries = found.get_array("entries").expect("entries");
        Ok(entries.iter().map(|entry| entry.as_str().expect("a text").to_owned()).collect())
    }
}

struct Guarded {
    list: List,
    transactions: MongoTransactions,
}

impl Guarded {
    async fn try_to_append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        let fence = lease.fence()?;
        let mut session = self.transactions.begin(&fence).await?;
        self.list.push(&mut session, entry).await?;
        self.transactions.commit(session, &fence).await
    }
}

#[async_trait]
impl FencedList for Guarded {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        for _ in 1..ATTEMPTS {
            match self.try_to_append(lease, entry).await {
                Err(error) if is_in_the_way(&error) => {}
                appended => return appended,
            }
        }
        self.try_to_append(lease, entry).await
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        self.list.append_unfenced(entry).await
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        self.list.entries().await
    }
}

struct Registered {
    list: List,
    fences: MongoFences,
    resource: Resource,
}

impl Registered {
    async fn try_to_append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        let mut session = self.list.client.start_session().await.map_err(undone)?;
        session.start_transaction().with_options(self.fences.options()).await.map_err(undone)?;
        self.fences.admit(&mut session, &self.resource, lease, Pass::Again).await?;
        self.list.push(&mut session, entry).await?;
        let committed = session.commit_transaction().await;
        committed.map_err(|error| {
            let is_undone = error.contains_label(TRANSIENT_TRANSACTION_ERROR);
            if is_undone { undone(error).into() } else { unknown(error).into() }
        })
    }
}

#[async_trait]
impl FencedList for Registered {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        for _ in 1..ATTEMPTS {
            match self.try_to_append(lease, entry).await {
                Err(error) if is_in_the_way(&error) => {}
                appended => return appended,
            }
        }
        self.try_to_append(lease, entry).await
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        self.list.append_unfenced(entry).await
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        self.list.entries().await
    }
}

fn is_in_the_way(error: &FenceError) -> bool {
    matches!(error, FenceError::Store(error) if error.kind() == ErrorKind::Contention)
}

/// Of a command within a transaction, which is undone with it.
fn undone(error: Error) -> StoreError {
    let is_transient = error.contains_label(TRANSIENT_TRANSACTION_ERROR);
    let kind = if is_transient { ErrorKind::Contention } else { ErrorKind::Other };
    StoreError::refused(kind, error.to_string()).caused_by(error)
}

fn unknown(error: Error) -> StoreError {
    StoreError::unknown(ErrorKind::Other, error.to_string()).caused_by(error)
}
