//! Fenced objects, over the memory of `object_store`, which judges conditions as a bucket does.
#![cfg(feature = "object-store")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use lock_core::{Applied, ErrorKind, Fence, FenceError, FenceRegister, Pass, Resource, StoreError};
use lock_fence::object::{ConditionalObjects, FencedObjects, Found};
use object_store::{
    Attribute, Attributes, ObjectStore, PutOptions, UpdateVersion, local::LocalFileSystem, memory::InMemory, path::Path,
};

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

/// A store that calls states by a hash of their bytes and nothing else, as S3 does.
#[derive(Debug, Default)]
struct Hashed(Mutex<HashMap<String, Bytes>>);

fn hashed(bytes: &Bytes) -> UpdateVersion {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    UpdateVersion { e_tag: Some(hasher.finish().to_string()), version: None }
}

#[async_trait::async_trait]
impl ConditionalObjects for Hashed {
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let found = self.0.lock().unwrap().get(key).cloned();
        Ok(found.map(|bytes| Found { version: hashed(&bytes), bytes, attributes: Attributes::new() }))
    }
    async fn put_if(&self, key: &str, bytes: Bytes, unchanged: Option<&Found>) -> Result<bool, StoreError> {
        let mut all = self.0.lock().unwrap();
        let as_found = all.get(key).map(hashed) == unchanged.map(|found| found.version.clone());
        if as_found {
            all.insert(key.to_owned(), bytes);
        }
        Ok(as_found)
    }
}

/// Waits for it in the midst of what can't: between what a write has found and what it puts.
fn between<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_holds_the_same_is_another_once_a_newer_fence_was_there() {
    let objects = FencedObjects::new(Hashed::default());
    let (old, new) = (fence("5@x"), fence("6@x"));
    objects.put(&report(), &old, Pass::Again, "a".into()).await.unwrap();
    for step in ["raise", "write", "forget"] {
        let (calls, report) = (Mutex::new(0), report());
        let late = |_: Option<Bytes>| {
            between(async {
                match step {
                    "raise" => objects.raise(&report, &new, Pass::Again).await.unwrap(),
                    "write" => objects.put(&report, &fence("7@x"), Pass::Again, "a".into()).await.unwrap(),
                    _ => assert!(objects.forget(&report).await.unwrap()),
                }
            });
            "late".into()
        };
        let holder = if step == "raise" {
            &old
        } else if step == "write" {
            &new
        } else {
            &fence("7@x")
        };
        let outcome = objects.update(&report, holder, Pass::Again, |before| {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            if *calls == 1 { late(before) } else { "judged anew".into() }
        });
        let outcome = outcome.await;
        if step == "forget" {
            outcome.unwrap();
            assert_eq!(*calls.lock().unwrap(), 2, "the late one passed");
        } else {
            assert!(matches!(outcome, Err(FenceError::Stale(_))), "{step}: {outcome:?}");
            assert_eq!(objects.get(&report).await.unwrap().unwrap(), "a", "{step}");
        }
    }
}

/// As a client of a bucket that sends again what was applied already: the second one is told as a conflict. So many others
/// write in between.
#[derive(Debug)]
struct ToldTwice(Arc<dyn ObjectStore>, u64);

#[async_trait::async_trait]
impl ConditionalObjects for ToldTwice {
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError> {
        ConditionalObjects::get(&self.0, key).await
    }
    async fn put_if(&self, key: &str, bytes: Bytes, unchanged: Option<&Found>) -> Result<bool, StoreError> {
        self.0.put_if(key, bytes, unchanged).await?;
        for other in 1..=self.1 {
            let append = |before: Option<Bytes>| [before.unwrap_or_default().as_ref(), b"b"].concat().into();
            let others = FencedObjects::new(self.0.clone());
            others.update(&report(), &fence(&format!("{}@x", 5 + other)), Pass::Once, append).await.unwrap();
        }
        Ok(false)
    }
}

#[tokio::test]
async fn a_write_that_was_sent_twice_is_done_once_and_never_told_as_refused() {
    let append = |before: Option<Bytes>| [before.unwrap_or_default().as_ref(), b"a"].concat().into();
    for others in [0, 1, 15, 16, 40] {
        let objects = FencedObjects::new(ToldTwice(memory(), others));
        let outcome = objects.update(&report(), &fence("5@x"), Pass::Once, append).await;
        let text = objects.get(&report()).await.unwrap().unwrap();
        assert_eq!(text, format!("a{}", "b".repeat(usize::try_from(others).unwrap())));
        match outcome {
            Ok(()) => assert!(others < 16, "{others}: seen, though it isn't remembered"),
            Err(error) => assert!(others >= 16 && error.applied() == Applied::Maybe, "{others}: {error}"),
        }
    }
}

/// Somebody else always comes first.
#[tokio::test]
async fn others_that_come_first_are_tried_against_and_told_in_the_end() {
    #[derive(Debug)]
    struct Busy(Arc<dyn ObjectStore>);

    #[async_trait::async_trait]
    impl ConditionalObjects for Busy {
        async fn get(&self, key: &str) -> Result<Option<Found>, StoreError> {
            ConditionalObjects::get(&self.0, key).await
        }
        async fn put_if(&self, _: &str, _: Bytes, _: Option<&Found>) -> Result<bool, StoreError> {
            FencedObjects::new(self.0.clone())
                .put(&report(), &fence("5@x"), Pass::Again, "other".into())
                .await
                .unwrap();
            Ok(false)
        }
    }
    let objects = FencedObjects::new(Busy(memory()));
    let error = objects.put(&report(), &fence("5@x"), Pass::Again, "own".into()).await.unwrap_err();
    let FenceError::Store(told) = &error else { panic!("{error}") };
    assert_eq!((told.kind(), told.applied()), (ErrorKind::Contention, Applied::No), "{told}");
    assert_eq!(objects.get(&report()).await.unwrap().unwrap(), "other");
}

#[tokio::test]
async fn what_else_is_kept_of_an_object_stays_and_its_first_line_is_the_fence() {
    let (store, key) = (memory(), Path::parse(report().as_str()).unwrap());
    let attributes: Attributes = [(Attribute::ContentType, "text/csv")].into_iter().collect();
    let options = PutOptions { attributes, ..PutOptions::default() };
    store.put_opts(&key, "plain".into(), options).await.unwrap();
    let objects = FencedObjects::new(store.clone());
    assert_eq!((held(&objects).await.unwrap(), objects.highest(&report()).await.unwrap()), ("plain".into(), None));
    objects.raise(&report(), &fence("5@x"), Pass::Again).await.unwrap();
    assert_eq!(held(&objects).await.unwrap(), "plain");
    objects.put(&report(), &fence("5@x"), Pass::Again, "a".into()).await.unwrap();
    let got = store.get_opts(&key, object_store::GetOptions::default()).await.unwrap();
    assert_eq!(got.attributes.get(&Attribute::ContentType).unwrap().as_ref(), "text/csv");
    let text = String::from_utf8(got.bytes().await.unwrap().to_vec()).unwrap();
    assert!(text.starts_with("leasehold-fence 1 5@x ") && text.ends_with("\na"), "{text}");
}

#[tokio::test]
async fn what_is_damaged_or_cannot_be_fenced_is_told() {
    let store = memory();
    let damaged = "leasehold-fence 1 -5@x 00000000000000000000000000000000\na";
    assert!(store.put_if(report().as_str(), damaged.into(), None).await.unwrap());
    let objects = FencedObjects::new(store.clone());
    let error = objects.put(&report(), &fence("5@x"), Pass::Again, "b".into()).await.unwrap_err();
    assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::Corrupt), "{error}");
    assert_eq!(error.applied(), Applied::No);
    assert_eq!(ConditionalObjects::get(&store, report().as_str()).await.unwrap().unwrap().bytes, damaged);

    let directory = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let local = FencedObjects::new(local);
    local.put(&report(), &fence("6@x"), Pass::Again, "a".into()).await.unwrap();
    let error = local.put(&report(), &fence("6@x"), Pass::Again, "b".into()).await.unwrap_err();
    assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::Unsupported), "{error}");
    assert_eq!(held(&local).await.unwrap(), "a");
}

#[tokio::test]
async fn a_store_that_is_away_is_told_as_such_and_whether_it_may_have_written() {
    #[derive(Debug)]
    struct Away {
        reads: Mutex<usize>,
    }

    #[async_trait::async_trait]
    impl ConditionalObjects for Away {
        async fn get(&self, _: &str) -> Result<Option<Found>, StoreError> {
            let mut reads = self.reads.lock().unwrap();
            let Some(left) = reads.checked_sub(1) else {
                return Err(StoreError::unknown(ErrorKind::Unreachable, "away"));
            };
            *reads = left;
            Ok(None)
        }
        async fn put_if(&self, _: &str, _: Bytes, _: Option<&Found>) -> Result<bool, StoreError> {
            Ok(false)
        }
    }
    for (reads, applied) in [(0, Applied::No), (1, Applied::Maybe)] {
        let objects = FencedObjects::new(Away { reads: Mutex::new(reads) });
        let error = objects.put(&report(), &fence("5@x"), Pass::Again, "a".into()).await.unwrap_err();
        let FenceError::Store(error) = error else { panic!("{error}") };
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Unreachable, applied), "{reads}: {error}");
    }
}

#[tokio::test]
async fn every_name_has_an_object_of_its_own() {
    let objects = FencedObjects::new(memory());
    let names = ["..", ".", "a//b", "a/b", "/a", "a/", "a", "a\nb", "%2Fa", "a%2Fb", "A", "%", "\\"];
    for (name, token) in names.iter().zip(1..) {
        let (resource, fence) = (Resource::new(name).unwrap(), fence(&format!("{token}@x")));
        assert_eq!(objects.highest(&resource).await.unwrap(), None, "{name}");
        objects.put(&resource, &fence, Pass::Again, (*name).into()).await.unwrap();
    }
    for name in names {
        assert_eq!(objects.get(&Resource::new(name).unwrap()).await.unwrap().unwrap(), name);
    }
}
