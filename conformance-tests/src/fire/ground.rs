//! The servers of a run, and what can be done to them.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use lock_core::LockProvider;

use super::{fault::Fault, scale::Scale};
use crate::{Failure, asker::Outcome};

/// How clients find their servers, of which each is told by its `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wired {
    /// By nothing that could be broken: a file, say.
    Nowhere,
    /// By the addresses that they are given: a place has one for each of these.
    Given(Vec<String>),
    /// By a sentinel of Redis, which tells them where these servers are: a place has the sentinel's address alone, and what
    /// the sentinel tells is put in terms of the wires. All are at 127.0.0.1.
    Told {
        /// Who tells.
        sentinel: String,
        /// Who is told of.
        servers: Vec<String>,
    },
    /// By the addresses that the servers themselves tell: a place has the address of a SOCKS5 proxy, which leads to these.
    Proxied(Vec<String>),
}

/// The servers that a run is over: its own, since it breaks them.
#[async_trait]
pub trait Ground: Send + Sync {
    /// How long things last on this store.
    fn scale(&self) -> Scale;

    /// How clients find their servers, so that they can be made to go there by wires of the run.
    fn wired(&self) -> Wired;

    /// What [`Site::place`](super::Site) says: where the servers are, by way of these addresses, as [`Wired`] tells for each
    /// kind; without any, where they are themselves.
    fn place(&self, by: &[SocketAddr]) -> String;

    /// What can be done to the servers.
    fn faults(&self) -> Vec<Fault>;

    /// An operator's client, past all wires.
    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure>;

    /// Returns once every server serves again, after the last fault ended.
    async fn healed(&self) -> Outcome;

    /// To how many servers each request of a client goes: more than one where a majority of servers that know nothing of each
    /// other has to agree. For law 11, which counts what waiting costs.
    fn asked_at_once(&self) -> u64 {
        1
    }

    /// Returns as soon as servers begin to do by themselves what a fault might, so that the history tells of it; never, where
    /// they do nothing that excuses anything.
    async fn by_itself(&self) -> Result<Fault, Failure> {
        std::future::pending().await
    }
}
