//! Fenced objects in a bucket of a server that speaks the protocol of S3.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use lock_core::{Fence, FenceError, FenceRegister, Pass, Resource, StoreError};
use lock_fence::object::{ConditionalObjects, FencedObjects, Found};
use object_store::{
    ObjectStore, ObjectStoreExt,
    aws::{AmazonS3Builder, S3ConditionalPut},
    path::Path,
};
use testbed::Bucket;
use tokio::sync::Barrier;

testbed::server_tests!(testbed::s3 =>
    of_two_that_create_one_object_at_once_one_does,
    of_two_that_replace_one_state_at_once_one_does,
    a_check_before_the_write_is_caught,
    a_condition_that_does_not_hold_changes_nothing,
    a_late_write_is_refused_and_changes_nothing,
    of_many_at_once_none_is_lost_and_tokens_never_fall,
);

/// A client with connections of its own.
fn client() -> Arc<dyn ObjectStore> {
    // None speaks TLS, and none is built without. It may be set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bucket = Bucket::at(testbed::s3().unwrap().url()).unwrap();
    let built = AmazonS3Builder::new()
        .with_endpoint(bucket.endpoint)
        .with_allow_http(true)
        .with_bucket_name(bucket.name)
        .with_access_key_id(bucket.key)
        .with_secret_access_key(bucket.secret)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .build();
    Arc::new(built.unwrap())
}

/// A key that no other test and no other run uses.
#[allow(clippy::disallowed_methods, reason = "a name of its own, and no time")]
fn fresh(about: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("fenced-{about}-{}-{}", std::process::id(), now.as_nanos())
}

fn fence(text: &str) -> Fence {
    text.parse().unwrap()
}

/// How often two of them race.
const RACES: usize = 200;

/// Puts that each go out at the same moment, over a client each; those that were told that they had written.
async fn race<S: ConditionalObjects + Clone>(clients: &[S; 2], key: &str, unchanged: bool, round: usize) -> Vec<Bytes> {
    let start = Arc::new(Barrier::new(2));
    let racers = clients.clone().map(|store| {
        let (start, key) = (start.clone(), key.to_owned());
        tokio::spawn(async move {
            // The connection is there before the race.
            let found = store.get(&key).await.unwrap();
            assert_eq!(found.is_some(), unchanged, "{key}");
            let bytes = Bytes::from(format!("{round} of {:?}", tokio::task::id()));
            start.wait().await;
            store.put_if(&key, bytes.clone(), found.as_ref()).await.unwrap().then_some(bytes)
        })
    });
    let mut winners = Vec::new();
    for racer in racers {
        winners.extend(racer.await.unwrap());
    }
    winners
}

async fn held(store: &Arc<dyn ObjectStore>, key: &str) -> Bytes {
    ConditionalObjects::get(store, key).await.unwrap().unwrap().bytes
}

/// The bucket is shared and stays, so what a test wrote there goes when it has been looked at.
async fn clear(store: &Arc<dyn ObjectStore>, key: &str) {
    store.delete(&Path::from(key)).await.unwrap();
    assert!(ConditionalObjects::get(store, key).await.unwrap().is_none(), "{key} is still there");
}

async fn of_two_that_create_one_object_at_once_one_does() {
    let (clients, base) = ([client(), client()], fresh("created"));
    for round in 0..RACES {
        let key = format!("{base}-{round}");
        let winners = race(&clients, &key, false, round).await;
        assert_eq!(winners, [held(&clients[0], &key).await], "round {round}");
        clear(&clients[0], &key).await;
    }
}

async fn of_two_that_replace_one_state_at_once_one_does() {
    let (clients, key) = ([client(), client()], fresh("replaced"));
    assert!(clients[0].put_if(&key, "at first".into(), None).await.unwrap());
    for round in 0..RACES {
        let winners = race(&clients, &key, true, round).await;
        assert_eq!(winners, [held(&clients[0], &key).await], "round {round}");
    }
    clear(&clients[0], &key).await;
}

/// A client that looks and writes in two steps.
#[derive(Clone, Debug)]
struct LooksFirst(Arc<dyn ObjectStore>);

#[async_trait]
impl ConditionalObjects for LooksFirst {
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError> {
        ConditionalObjects::get(&self.0, key).await
    }
    async fn put_if(&self, key: &str, bytes: Bytes, unchanged: Option<&Found>) -> Result<bool, StoreError> {
        let version = |found: &Found| found.version.clone();
        let as_found = self.get(key).await?.as_ref().map(version) == unchanged.map(version);
        if as_found {
            self.0.put(&Path::from(key), bytes.into()).await.unwrap();
        }
        Ok(as_found)
    }
}

/// The races are ones: two steps instead of one show in them.
async fn a_check_before_the_write_is_caught() {
    let (clients, base) = ([LooksFirst(client()), LooksFirst(client())], fresh("looked"));
    for round in 0..RACES {
        let key = format!("{base}-{round}");
        let winners = race(&clients, &key, false, round).await;
        clear(&clients[0].0, &key).await;
        if winners.len() == 2 {
            return;
        }
    }
    panic!("two steps passed for one, {RACES} times");
}

async fn a_condition_that_does_not_hold_changes_nothing() {
    let (store, key) = (client(), fresh("condition"));
    assert!(store.put_if(&key, "a".into(), None).await.unwrap());
    let first = ConditionalObjects::get(&store, &key).await.unwrap().unwrap();
    assert!(!store.put_if(&key, "twice".into(), None).await.unwrap());
    assert!(store.put_if(&key, "b".into(), Some(&first)).await.unwrap());
    assert!(!store.put_if(&key, "late".into(), Some(&first)).await.unwrap());
    assert_eq!(held(&store, &key).await, "b");
    clear(&store, &key).await;
    let absent = fresh("absent");
    assert!(!store.put_if(&absent, "late".into(), Some(&first)).await.unwrap());
    assert!(ConditionalObjects::get(&store, &absent).await.unwrap().is_none());
}

async fn a_late_write_is_refused_and_changes_nothing() {
    let (store, report) = (client(), Resource::new(fresh("late")).unwrap());
    let objects = FencedObjects::new(store.clone());
    objects.put(&report, &fence("5@x"), Pass::Again, "a".into()).await.unwrap();
    objects.put(&report, &fence("5@x"), Pass::Again, "b".into()).await.unwrap();
    objects.raise(&report, &fence("6@x"), Pass::Again).await.unwrap();
    let late = objects.put(&report, &fence("5@x"), Pass::Again, "late".into()).await.unwrap_err();
    assert!(matches!(&late, FenceError::Stale(stale) if stale.highest.get() == 6), "{late}");
    assert_eq!(objects.get(&report).await.unwrap().unwrap(), "b");
    assert_eq!(objects.highest(&report).await.unwrap(), Some(fence("6@x")));
    assert!(objects.forget(&report).await.unwrap());
    objects.put(&report, &fence("1@y"), Pass::Once, "c".into()).await.unwrap();
    assert_eq!(objects.get(&report).await.unwrap().unwrap(), "c");
    clear(&store, report.as_str()).await;
}

async fn of_many_at_once_none_is_lost_and_tokens_never_fall() {
    let report = Resource::new(fresh("many")).unwrap();
    let tasks = (0..8_u64).map(|task| {
        let (objects, report) = (FencedObjects::new(client()), report.clone());
        tokio::spawn(async move {
            let mut told = BTreeMap::new();
            for round in 0..4 {
                let token = 1 + round * 4 + task % 4;
                let line = format!("{token} {task} {round}\n");
                let append =
                    |before: Option<Bytes>| [before.unwrap_or_default().as_ref(), line.as_bytes()].concat().into();
                match objects.update(&report, &fence(&format!("{token}@x")), Pass::Again, append).await {
                    Ok(()) => drop(told.insert(line.clone(), token)),
                    Err(error) => assert!(error.is_refusal(), "{error}"),
                }
            }
            told
        })
    });
    let mut told = BTreeMap::new();
    for task in tasks.collect::<Vec<_>>() {
        told.extend(task.await.unwrap());
    }
    let store = client();
    let text = FencedObjects::new(store.clone()).get(&report).await.unwrap().unwrap();
    clear(&store, report.as_str()).await;
    let lines: Vec<String> =
        String::from_utf8(text.to_vec()).unwrap().lines().map(|line| format!("{line}\n")).collect();
    let tokens: Vec<u64> = lines.iter().map(|line| told[line]).collect();
    assert!(tokens.is_sorted(), "{tokens:?}");
    assert_eq!(lines.len(), told.len(), "some that were told as written aren't there, or some are twice");
}
