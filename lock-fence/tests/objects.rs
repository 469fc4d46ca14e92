//! Fenced objects, over the memory of `object_store`, which judges conditions as a bucket does.
#![cfg(feature = "object-store")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::sync::Arc;

use bytes::Bytes;
use lock_core::{Applied, ErrorKind, Fence, FenceError, FenceRegister, Pass, Resource};
use lock_fence::object::{Conditional, ConditionalObjects, FencedObjects};
use object_store::{ObjectStore, local::LocalFileSystem, memory::InMemory};

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn report() -> Resource {
    Resource::new("reports/2026 11.csv").unwrap()
}

fn fence(text: &str) -> Fence {
    text.parse().unwrap()
}

async fn held(objects: &FencedObjects<Arc<dyn ObjectStore>>) -> Option<Bytes> {
    objects.get(&report()).await.unwrap()
}

#[tokio::test]
async fn a_late_write_is_refused_and_changes_nothing() {
    let objects = FencedObjects::new(memory());
    objects.put(&report(), &fence("5@x"), Pass::Again, "a".into()).await.unwrap();
    objects.put(&report(), &fence("5@x"), Pass::Again, "b".into()).await.unwrap();
    objects.put(&report(), &fence("6@x"), Pass::Again, "c".into()).await.unwrap();
    let late = objects.put(&report(), &fence("5@x"), Pass::Again, "late".into()).await.unwrap_err();
    assert!(matches!(&late, FenceError::Stale(stale) if stale.highest.get() == 6), "{late}");
    let other = objects.put(&report(), &fence("9@y"), Pass::Again, "other".into()).await.unwrap_err();
    assert!(matches!(other, FenceError::OtherLock(_)), "{other}");
    let again = objects.put(&report(), &fence("6@x"), Pass::Once, "twice".into()).await.unwrap_err();
    assert!(matches!(again, FenceError::Stale(_)), "{again}");
    assert_eq!(held(&objects).await.unwrap(), "c");
    assert_eq!(objects.highest(&report()).await.unwrap(), Some(fence("6@x")));
}

#[tokio::test]
async fn who_raises_before_he_reads_is_not_written_behind() {
    let objects = FencedObjects::new(memory());
    objects.put(&report(), &fence("5@x"), Pass::Again, "a".into()).await.unwrap();
    objects.raise(&report(), &fence("6@x"), Pass::Again).await.unwrap();
    assert_eq!(held(&objects).await.unwrap(), "a");
    assert!(objects.put(&report(), &fence("5@x"), Pass::Again, "late".into()).await.is_err());
    assert_eq!(held(&objects).await.unwrap(), "a");
    assert!(objects.forget(&report()).await.unwrap() && !objects.forget(&report()).await.unwrap());
    objects.put(&report(), &fence("1@y"), Pass::Again, "b".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_none_is_lost_and_tokens_never_fall() {
    let objects = Arc::new(FencedObjects::new(memory()));
    let tasks = (0..64_u64).map(|task| {
        let objects = objects.clone();
        tokio::spawn(async move {
            let token = 1 + (task * 29) % 16;
            let line = format!("{token} {task}\n");
            let append = |before: Option<Bytes>| [before.unwrap_or_default().as_ref(), line.as_bytes()].concat().into();
            match objects.update(&report(), &fence(&format!("{token}@x")), Pass::Again, append).await {
                Ok(()) => Some(line.clone()),
                Err(error) if error.is_refusal() => None,
                Err(error) => panic!("{error}"),
            }
        })
    });
    let mut told = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        told.extend(task.await.unwrap());
    }
    let text = String::from_utf8(held(&objects).await.unwrap().to_vec()).unwrap();
    let tokens: Vec<u64> = text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(tokens.is_sorted(), "{tokens:?}");
    let mut lines: Vec<_> = text.lines().map(|line| format!("{line}\n")).collect();
    lines.sort();
    told.sort();
    assert_eq!(lines, told);
}

#[derive(Debug)]
struct ToldTwice(Arc<dyn ObjectStore>);

/// As a client of a bucket that sends again what was applied already: the second one is told as a conflict.
#[async_trait::async_trait]
impl ConditionalObjects for ToldTwice {
    async fn get(&self, key: &str) -> Result<Option<lock_fence::object::Found>, lock_core::StoreError> {
        ConditionalObjects::get(&self.0, key).await
    }
    async fn put_if(&self, key: &str, object: Conditional<'_>) -> Result<bool, lock_core::StoreError> {
        self.0.put_if(key, object).await?;
        Ok(false)
    }
}

#[tokio::test]
async fn a_write_that_was_sent_twice_is_done_once() {
    let objects = FencedObjects::new(ToldTwice(memory()));
    let append = |before: Option<Bytes>| [before.unwrap_or_default().as_ref(), b"a"].concat().into();
    objects.update(&report(), &fence("5@x"), Pass::Once, append).await.unwrap();
    assert_eq!(objects.get(&report()).await.unwrap().unwrap(), "a");
}

#[tokio::test]
async fn what_is_damaged_or_cannot_be_fenced_is_told() {
    let store = memory();
    let damaged = Conditional { bytes: "a".into(), fence: "-5@x", write: "", unchanged: None };
    assert!(store.put_if(report().as_str(), damaged).await.unwrap());
    let objects = FencedObjects::new(store);
    let error = objects.put(&report(), &fence("5@x"), Pass::Again, "b".into()).await.unwrap_err();
    assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::Corrupt), "{error}");
    assert_eq!((error.applied(), held(&objects).await.unwrap()), (Applied::No, "a".into()));

    let directory = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let local = FencedObjects::new(local);
    let error = local.put(&report(), &fence("6@x"), Pass::Again, "b".into()).await.unwrap_err();
    assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::Unsupported), "{error}");

    for bad in ["..", "a//b", "/a", "a/", "a\nb"] {
        let error =
            objects.put(&Resource::new(bad).unwrap(), &fence("5@x"), Pass::Again, "b".into()).await.unwrap_err();
        assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::InvalidName), "{bad}: {error}");
    }
}
