//! Transactions under a lock.

use std::time::Duration;

use lock_core::{AcquireRequest, ErrorKind, Fence, FenceError, Grant, LockProvider};
use lock_mongo::{MongoLocks, MongoTransactions};
use mongodb::{
    ClientSession, Collection,
    bson::{Document, doc},
};

use super::{Place, ask, granted};

pub(crate) fn fence(request: &AcquireRequest, grant: Grant) -> Fence {
    Fence::new(request.name.clone(), grant.token).unwrap()
}

pub(crate) fn transactions(place: &Place) -> MongoTransactions {
    MongoTransactions::new(place.client.clone()).database(place.database.name())
}

pub(crate) async fn data(place: &Place) -> Collection<Document> {
    place.database.create_collection("data").await.unwrap();
    place.database.collection("data")
}

pub(crate) async fn count(data: &Collection<Document>) -> u64 {
    data.count_documents(doc! {}).await.unwrap()
}

pub(crate) async fn begun(place: &Place, transactions: &MongoTransactions) -> ClientSession {
    let mut session = place.client.start_session().await.unwrap();
    session.start_transaction().with_options(transactions.options()).await.unwrap();
    session
}

/// A grant that nobody renews.
pub(crate) async fn take_for(locks: &MongoLocks, lock: &str, ttl: Duration) -> (AcquireRequest, Grant) {
    let request = ask(lock, ttl);
    let grant = granted(locks.acquire(&request).await.unwrap());
    (request, grant)
}

pub(crate) fn kind(error: &FenceError) -> Option<ErrorKind> {
    if let FenceError::Store(error) = error { Some(error.kind()) } else { None }
}
