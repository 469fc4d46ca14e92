//! The list in an object, a line for each entry, fenced by the object's own first line. The store of objects is that in memory
//! of `object_store`, which judges conditions as a bucket does; it is this program's, and served to its child processes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use conformance_tests::FencedList;
use lock_core::{ErrorKind, FenceError, Lease, Pass, Resource, StoreError};
use lock_fence::object::{ConditionalObjects, FencedObjects, Found};
use object_store::{Attributes, ObjectStore, UpdateVersion, memory::InMemory};
use serde::{Deserialize, Serialize};

use crate::lines;

/// How far away the bucket is: a freeze that falls on a write falls as well between what it finds and what it puts.
const ONE_WAY: Duration = Duration::from_millis(1);

#[derive(Serialize, Deserialize)]
struct Asked {
    key: String,
    /// What is to be put; or nothing, to get what is there.
    put: Option<Object>,
}

/// An object on its way, as it was found, or as it is to be put if it is in this state still.
#[derive(Serialize, Deserialize)]
struct Object {
    text: String,
    state: Option<State>,
}

/// What the store calls a state of an object.
#[derive(Serialize, Deserialize)]
struct State {
    e_tag: Option<String>,
    version: Option<String>,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Found(Option<Object>),
    Put(bool),
    Failed(String),
}

impl From<UpdateVersion> for State {
    fn from(UpdateVersion { e_tag, version }: UpdateVersion) -> Self {
        Self { e_tag, version }
    }
}

impl From<State> for UpdateVersion {
    fn from(State { e_tag, version }: State) -> Self {
        Self { e_tag, version }
    }
}

/// Serves objects until this process ends; where, as `host:port`.
pub(crate) fn serve() -> io::Result<String> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    lines::serve(move |asked| {
        std::thread::sleep(ONE_WAY);
        let answer = runtime.block_on(answer(&store, asked));
        std::thread::sleep(ONE_WAY);
        answer.unwrap_or_else(|error| Answer::Failed(error.to_string()))
    })
}

async fn answer(store: &Arc<dyn ObjectStore>, Asked { key, put }: Asked) -> Result<Answer, StoreError> {
    let Some(Object { text, state }) = put else {
        let object = |Found { bytes, version, .. }| Object {
            text: String::from_utf8(Vec::from(bytes)).unwrap(),
            state: Some(State::from(version)),
        };
        return Ok(Answer::Found(ConditionalObjects::get(store, &key).await?.map(object)));
    };
    let unchanged = state.map(found);
    Ok(Answer::Put(store.put_if(&key, text.into(), unchanged.as_ref()).await?))
}

/// An object that is in this state.
fn found(state: State) -> Found {
    Found { bytes: Bytes::new(), attributes: Attributes::new(), version: state.into() }
}

/// A client of the served store.
#[derive(Debug)]
struct Bucket {
    server: lines::Client,
    /// How many puts it has sent, if it is one that sends some of them again, as clients do that got no answer.
    sent: Option<AtomicU64>,
}

/// One put of so many is sent again after it was done, and told as a conflict then.
const AGAIN_ONE_OF: u64 = 8;

impl Bucket {
    async fn ask(&self, key: &str, put: Option<Object>) -> Result<Answer, StoreError> {
        let failed = |error| StoreError::unknown(ErrorKind::Unreachable, "the bucket is gone").caused_by(error);
        match self.server.ask(&Asked { key: key.to_owned(), put }).await.map_err(failed)? {
            Answer::Failed(error) => Err(StoreError::unknown(ErrorKind::Other, error)),
            answer => Ok(answer),
        }
    }
}

#[async_trait]
impl ConditionalObjects for Bucket {
    async fn get(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let Answer::Found(answered) = self.ask(key, None).await? else { return Err(strange()) };
        let Some(Object { text, state }) = answered else { return Ok(None) };
        Ok(Some(Found { bytes: text.into(), ..found(state.ok_or_else(strange)?) }))
    }

    async fn put_if(&self, key: &str, bytes: Bytes, unchanged: Option<&Found>) -> Result<bool, StoreError> {
        let again =
            self.sent.as_ref().is_some_and(|sent| sent.fetch_add(1, Relaxed) % AGAIN_ONE_OF == AGAIN_ONE_OF - 1);
        let mut done = false;
        for _ in 0..if again { 2 } else { 1 } {
            let state = unchanged.map(|found| State::from(found.version.clone()));
            let put = Object { text: text(&bytes)?, state };
            let Answer::Put(put) = self.ask(key, Some(put)).await? else { return Err(strange()) };
            done = put;
        }
        Ok(done)
    }
}

fn strange() -> StoreError {
    StoreError::unknown(ErrorKind::Corrupt, "an answer to another question")
}

fn text(bytes: &[u8]) -> Result<String, StoreError> {
    let failed = |error| StoreError::refused(ErrorKind::Corrupt, "the list is no text").caused_by(error);
    std::str::from_utf8(bytes).map(str::to_owned).map_err(failed)
}

/// The list in the object `name`.
pub(crate) async fn register_list(address: &str, name: &str) -> Arc<dyn FencedList> {
    let bucket = |sent| Bucket { server: lines::Client::new(address), sent };
    list(bucket(Some(AtomicU64::new(0))), bucket(None), name)
}

/// The list in the object `name` of the bucket that both are clients of: one to write by the fence, one past it.
pub(crate) fn list<S: ConditionalObjects>(fenced: S, past: S, name: &str) -> Arc<dyn FencedList> {
    Arc::new(List { objects: FencedObjects::new(fenced), bucket: past, list: Resource::new(name).unwrap() })
}

struct List<S> {
    objects: FencedObjects<S>,
    /// The same, past the fence.
    bucket: S,
    list: Resource,
}

fn appended(before: Option<Bytes>, entry: &str) -> Bytes {
    [&before.unwrap_or_default(), entry.as_bytes(), b"\n"].concat().into()
}

#[async_trait]
impl<S: ConditionalObjects> FencedList for List<S> {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        self.objects.update(&self.list, lease, Pass::Again, |before| appended(before, entry)).await
    }

    /// On condition as well, so that of the others' entries none is lost; but nobody's token is looked at.
    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        loop {
            let found = self.bucket.get(self.list.as_str()).await?;
            let before = found.as_ref().map(|found| found.bytes.clone());
            if self.bucket.put_if(self.list.as_str(), appended(before, entry), found.as_ref()).await? {
                return Ok(());
            }
        }
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        let bytes = self.objects.get(&self.list).await?.unwrap_or_default();
        Ok(text(&bytes)?.lines().map(str::to_owned).collect())
    }
}
