//! The list in a service of HTTP, which has nothing but the layer between its requests and a `Vec`. The service is this
//! program's, and its clients are the child processes.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use conformance_tests::FencedList;
use lock_core::{
    ErrorKind, FenceError, FencingToken, Lease, LockName, MemoryFences, OtherLock, Resource, Stale, StoreError,
};
use lock_fence::service::{FenceLayer, Refusal, header};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::IN_A_FILE;

#[derive(Clone, Default)]
struct Kept {
    lists: Arc<Mutex<HashMap<String, Vec<String>>>>,
    asked: Arc<AtomicU64>,
}

/// One request of so many is answered slowly.
const SLOW_ONE_OF: u64 = 64;

/// How long that takes: the lock of a client that is frozen meanwhile goes over, and the next one's request comes while
/// this one is being answered.
const SLOW: Duration = IN_A_FILE.saturating_mul(2);

/// Serves lists until this process ends; where, as `host:port`.
pub(crate) fn serve() -> io::Result<String> {
    let layer = FenceLayer::by(MemoryFences::new(), |request| {
        Resource::new(request.uri.path().split('/').nth(1).unwrap_or_default()).map_err(Refusal::Resource)
    });
    let app = Router::new()
        .route("/{list}", get(entries))
        .route("/{list}/fenced", post(append).layer(layer))
        .route("/{list}/unfenced", post(append))
        .with_state(Kept::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || runtime.block_on(axum::serve(listener, app).into_future()));
    Ok(address)
}

/// Thinks before it writes, some requests longer than others: without the layer they overtake each other in here.
async fn append(State(kept): State<Kept>, Path(list): Path<String>, entry: String) {
    let asked = kept.asked.fetch_add(1, Relaxed);
    let slow = asked % SLOW_ONE_OF == SLOW_ONE_OF - 1;
    tokio::time::sleep(if slow { SLOW } else { Duration::from_millis(asked % 8) }).await;
    kept.lists.lock().unwrap().entry(list).or_default().push(entry);
}

async fn entries(State(kept): State<Kept>, Path(list): Path<String>) -> String {
    kept.lists.lock().unwrap().get(&list).map(|entries| entries.join("\n")).unwrap_or_default()
}

/// The list `name` of the service.
pub(crate) async fn register_list(address: &str, name: &str) -> Arc<dyn FencedList> {
    Arc::new(List { address: address.to_owned(), name: name.to_owned() })
}

/// A client.
struct List {
    address: String,
    name: String,
}

/// What a request that was turned away is told.
#[derive(Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
enum Told {
    StaleFence { resource: String, lock: String, token: FencingToken, highest: FencingToken },
    OtherLock { resource: String, lock: String, fenced_by: String },
}

impl List {
    /// What a request was answered with: the status and the body.
    async fn ask(&self, method: &str, route: &str, headers: &str, body: &str) -> Result<(u16, String), FenceError> {
        let Self { address, name } = self;
        let failed = |error| StoreError::unknown(ErrorKind::Unreachable, "the service is gone").caused_by(error);
        let request = format!(
            "{method} /{name}{route} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(self.talk(&request).await.map_err(failed)?)
    }

    async fn talk(&self, request: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        whole(&text).ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("half an answer: {text:?}")))
    }

    async fn write(&self, route: &str, headers: &str, entry: &str) -> Result<(), FenceError> {
        match self.ask("POST", route, headers, entry).await? {
            (200, _) => Ok(()),
            (409, body) => Err(refusal(&body)?),
            other => Err(unforeseen(&other)),
        }
    }
}

/// The status and the body of an answer, if all of it is there.
fn whole(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length =
        lines.filter_map(|line| line.split_once(": ")).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    (length?.1.parse() == Ok(body.len())).then(|| (status, body.to_owned()))
}

fn refusal(body: &str) -> Result<FenceError, StoreError> {
    let strange = |error| StoreError::unknown(ErrorKind::Corrupt, "a refusal that says nothing").caused_by(error);
    Ok(match serde_json::from_str(body).map_err(strange)? {
        Told::StaleFence { resource, lock, token, highest } => {
            Stale { resource: Resource::new(resource)?, lock: LockName::new(lock)?, token, highest }.into()
        }
        Told::OtherLock { resource, lock, fenced_by } => {
            let (lock, fenced_by) = (LockName::new(lock)?, LockName::new(fenced_by)?);
            OtherLock { resource: Resource::new(resource)?, fenced_by, lock }.into()
        }
    })
}

fn unforeseen((status, body): &(u16, String)) -> FenceError {
    StoreError::unknown(ErrorKind::Other, format!("the service answers {status} {body:?}")).into()
}

#[async_trait]
impl FencedList for List {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        let (name, value) = header(lease)?;
        self.write("/fenced", &format!("{name}: {}\r\n", value.to_str().unwrap()), entry).await
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        self.write("/unfenced", "", entry).await
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        match self.ask("GET", "", "", "").await? {
            (200, body) => Ok(body.lines().map(str::to_owned).collect()),
            other => Err(unforeseen(&other)),
        }
    }
}
