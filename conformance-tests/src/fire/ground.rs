//! The servers of a run, and what can be done to them.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use lock_core::LockProvider;

use super::{fault::Fault, scale::Scale};
use crate::{Failure, asker::Outcome};

/// The servers that a run is over: its own, since it breaks them.
#[async_trait]
pub trait Ground: Send + Sync {
    /// How long things last on this store.
    fn scale(&self) -> Scale;

    /// `host:port` of each server that clients reach through wires of the run; none if they find their servers themselves.
    fn wired(&self) -> Vec<String>;

    /// What [`Site::place`](super::Site) says: where the servers are, by way of these addresses, one for each that is
    /// wired; without any, where they are themselves.
    fn place(&self, by: &[SocketAddr]) -> String;

    /// What can be done to the servers.
    fn faults(&self) -> Vec<Fault>;

    /// An operator's client, past all wires.
    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure>;

    /// Returns once every server serves again, after the last fault ended.
    async fn healed(&self) -> Outcome;
}
