//! A list in the memory of the test program itself, served to its child processes over loopback: what the workload is
//! tested on, with no store's code on the way but that of the core.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::FencedList;
use lock_core::{
    ErrorKind, Fence, FenceError, FencingToken, Lease, MemoryFences, OtherLock, Pass, Resource, Stale, StoreError,
};
use serde::{Deserialize, Serialize};

use crate::lines;

#[derive(Serialize, Deserialize)]
struct Asked {
    list: String,
    what: What,
}

#[derive(Serialize, Deserialize)]
enum What {
    Append(Fence, String),
    AppendUnfenced(String),
    /// Only the check.
    Raise(Fence),
    Entries,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Done,
    Stale(FencingToken),
    OtherLock(String),
    Failed(String),
    Entries(Vec<String>),
}

#[derive(Default)]
struct Kept {
    fences: MemoryFences,
    lists: Mutex<HashMap<String, Vec<String>>>,
}

/// Serves lists until this process ends; where, as `host:port`.
pub(crate) fn serve() -> io::Result<String> {
    let kept = Kept::default();
    lines::serve(move |asked| kept.answer(asked))
}

impl Kept {
    fn answer(&self, Asked { list, what }: Asked) -> Answer {
        let push = |entry| self.lists.lock().unwrap().entry(list.clone()).or_default().push(entry);
        let resource = Resource::new(&list).unwrap();
        let done = match what {
            What::Append(fence, entry) => self.fences.write(&resource, &fence, Pass::Again, || push(entry)),
            What::Raise(fence) => self.fences.write(&resource, &fence, Pass::Again, || ()),
            What::AppendUnfenced(entry) => {
                push(entry);
                Ok(())
            }
            What::Entries => {
                return Answer::Entries(self.lists.lock().unwrap().get(&list).cloned().unwrap_or_default());
            }
        };
        match done {
            Ok(()) => Answer::Done,
            Err(FenceError::Stale(stale)) => Answer::Stale(stale.highest),
            Err(FenceError::OtherLock(other)) => Answer::OtherLock(other.fenced_by.as_str().to_owned()),
            Err(error) => Answer::Failed(error.to_string()),
        }
    }
}

/// A client of a served list.
pub(crate) struct ServedList {
    server: lines::Client,
    name: String,
    checks_before: bool,
}

/// A list whose register is checked in the same step as the write.
pub(crate) async fn register_list(address: &str, name: &str) -> Arc<dyn FencedList> {
    Arc::new(ServedList::new(address, name, false))
}

/// The flaw that everybody makes first: the token is checked, and then the entry is written.
pub(crate) async fn checked_before_list(address: &str, name: &str) -> Arc<dyn FencedList> {
    Arc::new(ServedList::new(address, name, true))
}

impl ServedList {
    fn new(address: &str, name: &str, checks_before: bool) -> Self {
        Self { server: lines::Client::new(address), name: name.to_owned(), checks_before }
    }

    async fn ask(&self, what: What) -> Result<Answer, FenceError> {
        let failed = |error| StoreError::unknown(ErrorKind::Unreachable, "the list's server is gone").caused_by(error);
        Ok(self.server.ask(&Asked { list: self.name.clone(), what }).await.map_err(failed)?)
    }

    async fn fenced(&self, fence: Fence, what: What) -> Result<(), FenceError> {
        let resource = Resource::new(&self.name)?;
        let (lock, token) = (fence.lock().clone(), fence.token());
        match self.ask(what).await? {
            Answer::Done => Ok(()),
            Answer::Stale(highest) => Err(Stale { resource, lock, token, highest }.into()),
            Answer::OtherLock(fenced_by) => {
                Err(OtherLock { resource, fenced_by: lock_core::LockName::new(fenced_by)?, lock }.into())
            }
            Answer::Failed(error) => Err(StoreError::refused(ErrorKind::Other, error).into()),
            Answer::Entries(_) => Err(StoreError::unknown(ErrorKind::Corrupt, "an answer to another question").into()),
        }
    }
}

#[async_trait]
impl FencedList for ServedList {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        let fence = lease.fence()?;
        if self.checks_before {
            self.fenced(fence.clone(), What::Raise(fence)).await?;
            std::thread::sleep(Duration::from_millis(10));
            return self.append_unfenced(entry).await;
        }
        self.fenced(fence.clone(), What::Append(fence, entry.to_owned())).await
    }

    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        self.ask(What::AppendUnfenced(entry.to_owned())).await.map(drop)
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        match self.ask(What::Entries).await? {
            Answer::Entries(entries) => Ok(entries),
            _ => Err(StoreError::unknown(ErrorKind::Corrupt, "an answer to another question").into()),
        }
    }
}
