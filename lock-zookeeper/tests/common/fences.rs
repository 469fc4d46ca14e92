//! What is written under fences, and in which order.

use futures_util::future::try_join_all;
use lock_core::{ErrorKind, Fence, FenceError, FencingToken, LockName, Resource};
use lock_zookeeper::{
    ZooKeeperFences,
    zookeeper_client::{CheckWriter, Client, CreateMode, Error},
};
use testbed::Server;

use super::{OPEN, url};

pub(crate) fn fence(lock: &str, token: u64) -> Fence {
    Fence::new(LockName::new(lock).unwrap(), FencingToken::new(token)).unwrap()
}

pub(crate) fn resource(name: &str) -> Resource {
    Resource::new(name).unwrap()
}

pub(crate) async fn fences(server: &Server, path: &str) -> ZooKeeperFences {
    ZooKeeperFences::connect(&url(server, path)).await.unwrap()
}

/// A node that keeps what is written, in the order in which the servers accepted it.
pub(crate) struct Log {
    pub(crate) path: String,
    pub(crate) operator: Client,
}

impl Log {
    pub(crate) async fn new(operator: &Client, base: &str) -> Self {
        let path = format!("{base}/log");
        operator.mkdir(&path, &OPEN).await.unwrap();
        Self { path, operator: operator.clone() }
    }

    /// What adds an entry to a multi.
    pub(crate) fn entry<T: ToString>(&self, text: T) -> impl Fn(&mut CheckWriter<'_>) -> Result<(), Error> + use<T> {
        let (entry, text) = (format!("{}/e-", self.path), text.to_string());
        let options = CreateMode::PersistentSequential.with_acls(lock_zookeeper::zookeeper_client::Acls::anyone_all());
        move |multi| multi.add_create(&entry, text.as_bytes(), &options)
    }

    pub(crate) async fn entries(&self) -> Vec<String> {
        self.operator.sync(&self.path).await.unwrap();
        let mut names = self.operator.list_children(&self.path).await.unwrap();
        names.sort_unstable();
        let paths: Vec<_> = names.iter().map(|name| format!("{}/{name}", self.path)).collect();
        let read = try_join_all(paths.iter().map(|path| self.operator.get_data(path))).await.unwrap();
        read.into_iter().map(|(data, _)| String::from_utf8(data).unwrap()).collect()
    }
}

#[track_caller]
pub(crate) fn is_stale<T: std::fmt::Debug>(outcome: Result<T, FenceError>, token: u64, highest: u64) {
    let Err(FenceError::Stale(stale)) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((stale.token.get(), stale.highest.get()), (token, highest), "{stale}");
}

#[track_caller]
pub(crate) fn is_corrupt<T: std::fmt::Debug>(outcome: Result<T, FenceError>) {
    let Err(FenceError::Store(error)) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, lock_core::Applied::No), "{error}");
}
