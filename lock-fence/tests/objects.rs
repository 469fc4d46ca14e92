//! Fenced objects, over the memory of `object_store`, which judges conditions as a bucket does.
#![cfg(feature = "object-store")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use lock_core::{Applied, ErrorKind, Fence, FenceError, FenceRegister, Pass, Resource, StoreError};
use lock_fence::object::{ConditionalObjects, FencedObjects, Found};
use object_store::{ObjectStore, UpdateVersion, local::LocalFileSystem, memory::InMemory};

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

/// What others do while a write is under way.
#[derive(Clone, Copy, Debug)]
enum Other {
    /// Under this fence.
    Raises(&'static str),
    Puts(&'static str, &'static str),
    Appends(&'static str, &'static str),
}

/// A bucket as S3 is one: a state of an object is told by its content alone.
#[derive(Debug, Default)]
struct Bucket {
    objects: Arc<Mutex<HashMap<String, Bytes>>>,
    /// What others do before each put of this client comes.
    before: Mutex<VecDeque<Vec<Other>>>,
    /// For a client that sends a put again which was applied already: what others do between the two. The second one is
    /// told as a conflict.
    between: Mutex<VecDeque<Vec<Other>>>,
}

impl Bucket {
    fn of(objects: &Bucket) -> Self {
        Self { objects: objects.objects.clone(), ..Self::default() }
    }

    fn tag(bytes: &Bytes) -> UpdateVersion {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        UpdateVersion { e_tag: Some(hasher.finish().to_string()), version: None }
    }

    fn put(&self, key: &str, bytes: &Bytes, unchanged: Option<&UpdateVersion>) -> bool {
        let mut objects = self.objects.lock().unwrap();
        let same = objects.get(key).map(Self::tag).as_ref() == unchanged;
        if same {
            objects.insert(key.to_owned(), bytes.clone());
        }
        same
    }

    async fn meanwhile(&self, others: Vec<Other>) {
        let objects = FencedObjects::new(Self::of(self));
        for other in others {
            match other {
                Other::Raises(by) => objects.raise(&report(), &fence(by), Pass::Again).await.unwrap(),
                Other::Puts(by, text) => {
                    objects.put(&report(), &fence(by), Pass::Again, text.into()).await.unwrap();
                }
                Other::Appends(by, text) => {
                    objects.update(&report(), &fence(by), Pass::Again, append(text)).await.unwrap();
                }
            }
        }
    }
}

#[async_trait]
impl ConditionalObjects for Bucket {
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let bytes = self.objects.lock().unwrap().get(key).cloned();
        Ok(bytes.map(|bytes| Found { version: Self::tag(&bytes), bytes }))
    }

    async fn put_if(&self, key: &str, bytes: Bytes, unchanged: Option<&UpdateVersion>) -> Result<bool, StoreError> {
        let before = self.before.lock().unwrap().pop_front();
        self.meanwhile(before.unwrap_or_default()).await;
        let mut put = self.put(key, &bytes, unchanged);
        let between = self.between.lock().unwrap().pop_front();
        if let Some(between) = between {
            self.meanwhile(between).await;
            put = self.put(key, &bytes, unchanged);
        }
        Ok(put)
    }
}

fn append(text: &'static str) -> impl Fn(Option<Bytes>) -> Bytes + Send + Sync {
    move |before| [&before.unwrap_or_default(), text.as_bytes()].concat().into()
}

/// An object that holds "a" under 5@x, in the hands of a client.
async fn bucket(before: &[&[Other]], between: &[&[Other]]) -> (FencedObjects<Bucket>, FencedObjects<Bucket>) {
    let others = |times: &[&[Other]]| Mutex::new(times.iter().map(|others| others.to_vec()).collect());
    let bucket = Bucket { before: others(before), between: others(between), ..Bucket::default() };
    let past = FencedObjects::new(Bucket::of(&bucket));
    past.put(&report(), &fence("5@x"), Pass::Again, "a".into()).await.unwrap();
    (FencedObjects::new(bucket), past)
}

/// What others leave may look like what the late one found: a raise keeps the content, and content may come back.
#[tokio::test]
async fn a_late_write_is_refused_though_it_finds_the_content_unchanged() {
    let back = [Other::Puts("6@x", "b"), Other::Puts("6@x", "a")];
    for others in [&[Other::Raises("6@x")][..], &[Other::Puts("6@x", "a")], &back] {
        let (objects, past) = bucket(&[others], &[]).await;
        let late = objects.put(&report(), &fence("5@x"), Pass::Again, "late".into()).await.unwrap_err();
        assert!(matches!(late, FenceError::Stale(_)), "{others:?}: {late}");
        assert_eq!(past.get(&report()).await.unwrap().unwrap(), "a", "{others:?}");
        assert_eq!(past.highest(&report()).await.unwrap(), Some(fence("6@x")), "{others:?}");
    }
}

#[tokio::test]
async fn a_write_that_others_came_before_is_made_anew_of_theirs() {
    let (objects, past) = bucket(&[&[Other::Appends("5@x", "b")], &[Other::Appends("5@x", "c")]], &[]).await;
    objects.update(&report(), &fence("5@x"), Pass::Again, append("d")).await.unwrap();
    assert_eq!(past.get(&report()).await.unwrap().unwrap(), "abcd");
}

#[tokio::test]
async fn a_write_that_was_sent_twice_is_done_once_and_told_as_done() {
    for others in [&[][..], &[Other::Appends("5@x", "c")], &[Other::Appends("6@x", "c"), Other::Appends("7@x", "d")]] {
        let (objects, past) = bucket(&[], &[others]).await;
        objects.update(&report(), &fence("5@x"), Pass::Again, append("b")).await.unwrap();
        let held = past.get(&report()).await.unwrap().unwrap();
        assert_eq!(held, &b"abcd"[..2 + others.len()], "{others:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_told_any_more_is_told_as_in_doubt() {
    let many = [Other::Appends("6@x", "c"); 40];
    for (before, between) in [(&[][..], &[&many[..]][..]), (&[&many[..]], &[])] {
        let (objects, past) = bucket(before, between).await;
        let error = objects.update(&report(), &fence("5@x"), Pass::Again, append("b")).await.unwrap_err();
        assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::Contention), "{error}");
        assert_eq!(error.applied(), Applied::Maybe);
        let held = past.get(&report()).await.unwrap().unwrap();
        assert_eq!(held.iter().filter(|byte| **byte == b'b').count(), between.len());
    }
}

#[tokio::test]
async fn an_object_that_nobody_fenced_yet_is_taken_over_with_its_content() {
    let bucket = Bucket::default();
    assert!(bucket.put(report().as_str(), &"a".into(), None));
    let objects = FencedObjects::new(bucket);
    assert_eq!(objects.highest(&report()).await.unwrap(), None);
    objects.update(&report(), &fence("5@x"), Pass::Again, append("b")).await.unwrap();
    assert_eq!(objects.get(&report()).await.unwrap().unwrap(), "ab");
}

#[tokio::test]
async fn what_is_damaged_or_cannot_be_fenced_is_told() {
    let store = memory();
    let damaged = "leasehold-fence -5@x 0123456789abcdef\na";
    assert!(store.put_if(report().as_str(), damaged.into(), None).await.unwrap());
    let objects = FencedObjects::new(store);
    let error = objects.put(&report(), &fence("5@x"), Pass::Again, "b".into()).await.unwrap_err();
    assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::Corrupt), "{error}");
    assert_eq!((error.applied(), held(&objects).await.unwrap()), (Applied::No, "a".into()));

    let directory = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let local = FencedObjects::new(local);
    // Files it can make on condition, but not replace.
    local.put(&report(), &fence("5@x"), Pass::Again, "a".into()).await.unwrap();
    let error = local.put(&report(), &fence("6@x"), Pass::Again, "b".into()).await.unwrap_err();
    assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::Unsupported), "{error}");
    assert_eq!((error.applied(), local.get(&report()).await.unwrap().unwrap()), (Applied::No, "a".into()));

    for bad in ["..", "a//b", "/a", "a/", "a\nb"] {
        let error =
            objects.put(&Resource::new(bad).unwrap(), &fence("5@x"), Pass::Again, "b".into()).await.unwrap_err();
        assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::InvalidName), "{bad}: {error}");
    }
}
