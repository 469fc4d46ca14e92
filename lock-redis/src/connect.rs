//! The first contact: from what was given to a link, and to the place where waiters hear of released locks.

use std::{sync::Arc, time::Duration};

use lock_core::{ErrorKind, StoreError};
use redis::{
    ConnectionInfo,
    cluster::{ClusterClient, ClusterConfig},
    cluster_async::ClusterConnection,
};

use crate::{
    config::Limits,
    door::{Door, Place},
    error,
    link::Link,
    node::{Node, NodeConfig},
    source::Way,
    tls,
};

/// A way to the store that was tried.
pub(crate) struct Connected {
    pub(crate) link: Link,
    /// Where to listen; `None` where nothing tells.
    pub(crate) door: Option<Arc<Door>>,
    pub(crate) database: i64,
}

pub(crate) async fn connect(
    way: Way,
    listen_with: Option<ConnectionInfo>,
    limits: &Limits,
) -> Result<Connected, StoreError> {
    let door = |place| Arc::new(Door::new(place, limits.connect_timeout, Arc::clone(&limits.clock)));
    let elsewhere = listen_with.map(|info| door(Place::Server(Box::new(info))));
    Ok(match way {
        Way::Own(place) => {
            let database = place.database();
            let own = door(place);
            let node = Node::connect(NodeConfig {
                door: Arc::clone(&own),
                operation_timeout: limits.operation_timeout,
                clock: Arc::clone(&limits.clock),
            });
            Connected { link: Link::Node(node.await?), door: elsewhere.or(Some(own)), database }
        }
        Way::Nodes(nodes) => {
            let client = ClusterClient::builder(nodes.clone()).overall_response_timeout(None).build();
            let client = client.map_err(error::of_config)?;
            let cluster = of_cluster(&client, limits).await?;
            Connected { link: Link::Cluster(cluster), door: elsewhere.or(Some(door(Place::AnyOf(nodes)))), database: 0 }
        }
        Way::ClusterClient(client) => theirs(Link::Cluster(of_cluster(&client, limits).await?), elsewhere),
        Way::Cluster(cluster) => theirs(Link::Cluster(cluster), elsewhere),
        Way::Manager(manager) => theirs(Link::Manager(manager), elsewhere),
    })
}

fn theirs(link: Link, door: Option<Arc<Door>>) -> Connected {
    Connected { database: link.database(), link, door }
}

async fn of_cluster(client: &ClusterClient, limits: &Limits) -> Result<ClusterConnection, StoreError> {
    tls::prepare_any();
    // Our own time-outs come first: the driver's would only make it try again, unseen.
    let longer = limits.operation_timeout + Duration::from_secs(1);
    let config = ClusterConfig::new().set_connection_timeout(limits.connect_timeout).set_response_timeout(longer);
    let give_up = limits.clock.now() + limits.connect_timeout;
    tokio::select! {
        made = client.get_async_connection_with_config(config) => made.map_err(error::of_cluster),
        () = limits.clock.sleep_until(give_up) => Err(StoreError::refused(
            ErrorKind::Unreachable,
            format!("no node of the cluster answered within {:?}", limits.connect_timeout),
        )),
    }
}
