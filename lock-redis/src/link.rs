//! What requests are sent over: a server of our own connection, or the application's own connection manager or cluster
//! connection.

use std::{collections::HashMap, fmt, sync::Arc};

use lock_core::{Clock, ErrorKind, LockName, Moment, StoreError};
use redis::{
    Cmd, Value,
    aio::{ConnectionLike, ConnectionManager},
    cluster_async::ClusterConnection,
    cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr},
};

use crate::{error, keys::Keys, node::Node, scripts::Call};

/// The way to the store.
#[derive(Clone)]
pub(crate) enum Link {
    /// One server, or the primary that sentinels tell.
    Node(Node),
    /// One server, by the application's connection.
    Manager(ConnectionManager),
    /// A cluster: the driver finds the node that serves a key.
    Cluster(ClusterConnection),
}

/// A server that takes writes: the only one, or the primary that serves this slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Primary {
    Only,
    OfSlot(Slot),
}

impl Link {
    /// Whether keys are spread over several servers, and a script may be sent again by the driver, unseen.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// The number of the database that the application's connection is in.
    pub(crate) fn database(&self) -> i64 {
        match self {
            Self::Node(_) => 0,
            Self::Manager(manager) => manager.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }

    /// Runs a script, as [`Node::run`] does. In a cluster its keys are of one slot.
    pub(crate) async fn run(
        &self,
        call: &Arc<Call>,
        give_up: Moment,
        clock: &Arc<dyn Clock>,
    ) -> Result<Value, StoreError> {
        match self {
            Self::Node(node) => node.run_until(call, give_up).await,
            Self::Manager(manager) => in_a_task(clock, give_up, run_shared(manager.clone(), Arc::clone(call))).await,
            Self::Cluster(cluster) => {
                let done = in_a_task(clock, give_up, run_shared(cluster.clone(), Arc::clone(call))).await;
                done.map_err(error::after_unseen_attempts)
            }
        }
    }

    /// Runs a script that is sent once and whose caller waits for it: in no task of its own, which costs a good part of a
    /// quick script. Who drops the future doesn't know whether it was sent.
    pub(crate) async fn run_here(
        &self,
        call: &Call,
        give_up: Moment,
        clock: &Arc<dyn Clock>,
    ) -> Result<Value, StoreError> {
        match self {
            Self::Node(node) => node.run_here(call, give_up).await,
            Self::Manager(manager) => in_time(clock, give_up, run_on(manager.clone(), call)).await,
            Self::Cluster(cluster) => {
                let done = in_time(clock, give_up, run_on(cluster.clone(), call)).await;
                done.map_err(error::after_unseen_attempts)
            }
        }
    }

    /// Sends a command to one server.
    pub(crate) async fn ask(
        &self,
        primary: Primary,
        command: Cmd,
        give_up: Moment,
        clock: &Arc<dyn Clock>,
    ) -> Result<Value, StoreError> {
        match (self, primary) {
            (Self::Node(node), _) => node.ask_until(command, give_up).await,
            (Self::Manager(manager), _) => {
                let mut manager = manager.clone();
                in_a_task(clock, give_up, async move { command.query_async(&mut manager).await }).await
            }
            (Self::Cluster(cluster), primary) => {
                let mut cluster = cluster.clone();
                let to = match primary {
                    Primary::Only => SingleNodeRoutingInfo::RandomPrimary,
                    Primary::OfSlot(slot) => {
                        SingleNodeRoutingInfo::SpecificNode(Route::with_slot(slot, SlotAddr::Master))
                    }
                };
                let routed = async move { cluster.route_command(command, RoutingInfo::SingleNode(to)).await };
                in_a_task(clock, give_up, routed).await
            }
        }
    }

    /// The groups that can be sent in one script each: all together, or in a cluster those whose keys share a slot.
    pub(crate) fn groups<R>(&self, keys: &Keys, asked: &[&R], name: impl Fn(&R) -> &LockName) -> Vec<Vec<usize>> {
        if !self.is_cluster() {
            return vec![(0..asked.len()).collect()];
        }
        let mut by_slot = HashMap::<Slot, Vec<usize>>::new();
        for (at, request) in asked.iter().enumerate() {
            by_slot.entry(Slot::for_key(keys.record(name(request)))).or_default().push(at);
        }
        by_slot.into_values().collect()
    }

    /// Every server that takes writes.
    pub(crate) async fn primaries(&self, give_up: Moment, clock: &Arc<dyn Clock>) -> Result<Vec<Primary>, StoreError> {
        if !self.is_cluster() {
            return Ok(vec![Primary::Only]);
        }
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("SLOTS");
        first_slots(&self.ask(Primary::Only, slots, give_up, clock).await?)
    }
}

/// A slot of each primary, by the answer to `CLUSTER SLOTS`: `[[first, last, [host, port, id, …], …], …]`.
fn first_slots(answer: &Value) -> Result<Vec<Primary>, StoreError> {
    let unreadable = || StoreError::refused(ErrorKind::Corrupt, "the cluster's list of its slots can't be read");
    let Value::Array(ranges) = answer else { return Err(unreadable()) };
    let (mut seen, mut primaries) = (Vec::new(), Vec::new());
    for range in ranges {
        let Value::Array(range) = range else { return Err(unreadable()) };
        let [Value::Int(first), _, Value::Array(primary), ..] = range.as_slice() else { return Err(unreadable()) };
        if !seen.contains(primary) {
            seen.push(primary.clone());
            primaries.push(Primary::OfSlot(u16::try_from(*first).ok().and_then(Slot::new).ok_or_else(unreadable)?));
        }
    }
    if primaries.is_empty() {
        return Err(StoreError::refused(ErrorKind::NotReady, "no node of the cluster serves any slot yet"));
    }
    Ok(primaries)
}

async fn run_shared(connection: impl ConnectionLike, call: Arc<Call>) -> redis::RedisResult<Value> {
    run_on(connection, &call).await
}

/// `EVAL` if the server doesn't know it.
pub(crate) async fn run_on(mut connection: impl ConnectionLike, call: &Call) -> redis::RedisResult<Value> {
    match call.by_hash().query_async(&mut connection).await {
        Err(error) if error::script_is_unknown(&error) => call.by_text().query_async(&mut connection).await,
        answer => answer,
    }
}

async fn in_time(
    clock: &Arc<dyn Clock>,
    give_up: Moment,
    request: impl Future<Output = redis::RedisResult<Value>>,
) -> Result<Value, StoreError> {
    tokio::select! {
        answer = request => answer.map_err(error::of_answer),
        () = clock.sleep_until(give_up) => {
            Err(StoreError::unknown(ErrorKind::Timeout, "the server didn't answer in time"))
        }
    }
}

/// Whoever waits for it may be dropped.
async fn in_a_task(
    clock: &Arc<dyn Clock>,
    give_up: Moment,
    request: impl Future<Output = redis::RedisResult<Value>> + Send + 'static,
) -> Result<Value, StoreError> {
    let clock = Arc::clone(clock);
    let task = tokio::spawn(async move { in_time(&clock, give_up, request).await });
    task.await.unwrap_or_else(|error| {
        Err(StoreError::unknown(ErrorKind::Other, "the runtime ended the operation").caused_by(error))
    })
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string())
    }
}

impl fmt::Display for Link {
    /// Where it leads, for people; without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => f.write_str(node.address()),
            Self::Manager(_) => f.write_str("the application's connection"),
            Self::Cluster(_) => f.write_str("the cluster"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_decides_its_slot_and_each_primary_is_asked_once() {
        let keys = Keys::new("leasehold:").unwrap();
        // `CLUSTER KEYSLOT leasehold:{x}`
        assert_eq!(Slot::for_key(keys.record(&LockName::new("x").unwrap())), Slot::new(16287).unwrap());
        let node = |port| Value::Array(vec![Value::BulkString(b"h".to_vec()), Value::Int(port)]);
        let range = |first, port| Value::Array(vec![Value::Int(first), Value::Int(first + 9), node(port)]);
        let answer = Value::Array(vec![range(0, 1), range(10, 2), range(20, 1)]);
        let expected = [0, 10].map(|slot| Primary::OfSlot(Slot::new(slot).unwrap()));
        assert_eq!(first_slots(&answer).unwrap(), expected);
        assert!(first_slots(&Value::Array(vec![])).is_err());
        assert!(first_slots(&Value::Nil).is_err());
    }
}
