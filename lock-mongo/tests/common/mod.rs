//! A collection for one test: the testbed's replica set, and a database of the test's own.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

pub(crate) mod cut;
pub(crate) mod guarded;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lock_core::{
    AcquireRequest, Acquired, Clock, Grant, LockName, LockProvider, OsEntropy, OwnerId, ReleaseRequest, RenewRequest,
    SystemClock,
};
use lock_mongo::{Builder, MongoLocks};
use mongodb::{
    Client, Collection, Database,
    bson::{Document, doc},
};
use testbed::Server;

pub(crate) const PASSWORD: &str = "s3cret-word";
pub(crate) const COLLECTION: &str = "leasehold_locks";

/// What one test works on. [`Place::clear`] removes it.
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) database: Database,
    pub(crate) url: String,
    users: Vec<String>,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let server = tokio::task::spawn_blocking(testbed::mongo).await.unwrap().unwrap_or_else(|missing| {
            panic!("no MongoDB for this test: {missing}");
        });
        Self::at(&server).await
    }

    pub(crate) async fn standalone() -> Self {
        let server = tokio::task::spawn_blocking(testbed::mongo_standalone).await.unwrap();
        Self::at(&server.unwrap_or_else(|missing| panic!("no MongoDB for this test: {missing}"))).await
    }

    pub(crate) async fn at(server: &Server) -> Self {
        let client = Client::with_uri_str(server.url()).await.unwrap();
        let name = format!("test_{}", unique());
        let url = server.url().replacen("/leasehold?", &format!("/{name}?"), 1);
        Self { database: client.database(&name), client, url, users: Vec::new() }
    }

    pub(crate) fn records(&self) -> Collection<Document> {
        self.database.collection(COLLECTION)
    }

    pub(crate) async fn record(&self, name: &str) -> Option<Document> {
        self.records().find_one(doc! { "_id": name }).await.unwrap()
    }

    pub(crate) fn builder(&self) -> Builder {
        MongoLocks::builder(self.url.as_str())
    }

    pub(crate) async fn locks(&self) -> MongoLocks {
        self.builder().build().await.unwrap()
    }

    /// A user with these privileges on the collection, and the URL to log in with.
    pub(crate) async fn user(&mut self, actions: &[&str]) -> String {
        let user = format!("user_{}", unique());
        let privileges = doc! {
            "resource": { "db": self.database.name(), "collection": COLLECTION },
            "actions": actions,
        };
        let run = |command| self.database.run_command(command);
        run(doc! { "createRole": &user, "privileges": [privileges], "roles": [] }).await.unwrap();
        run(doc! { "createUser": &user, "pwd": PASSWORD, "roles": [&user] }).await.unwrap();
        self.users.push(user.clone());
        let (_, rest) = self.url.split_once('@').unwrap();
        format!(
            "mongodb://{user}:{PASSWORD}@{}",
            rest.replace("authSource=admin", "x=y").replace("&x=y", "").replace("x=y", "")
        )
    }

    pub(crate) async fn clear(self) {
        for user in &self.users {
            self.database.run_command(doc! { "dropUser": user }).await.unwrap();
            self.database.run_command(doc! { "dropRole": user }).await.unwrap();
        }
        self.database.drop().await.unwrap();
    }
}

pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}_{}_{}", SystemClock.wall_micros(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn name(name: &str) -> LockName {
    LockName::new(name).unwrap()
}

pub(crate) fn ask(lock: &str, ttl: Duration) -> AcquireRequest {
    AcquireRequest::new(name(lock), OwnerId::random(&OsEntropy), ttl)
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) async fn pass(by: Duration) {
    SystemClock.sleep_until(SystemClock.now() + by).await;
}

pub(crate) fn granted(acquired: Acquired) -> Grant {
    match acquired {
        Acquired::Granted(grant) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

/// A grant of a free lock, and the request it came from.
pub(crate) async fn take(locks: &MongoLocks, lock: &str) -> (AcquireRequest, Grant) {
    let request = ask(lock, seconds(30));
    let grant = granted(locks.acquire(&request).await.unwrap());
    (request, grant)
}

pub(crate) fn give_back(request: &AcquireRequest, grant: Grant) -> ReleaseRequest {
    ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token))
}

pub(crate) fn again(request: &AcquireRequest, grant: Grant) -> RenewRequest {
    RenewRequest::new(request.name.clone(), request.owner, grant.token, request.ttl)
}
