//! What the testbed has to know about a kind of server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::image::ImageKind;
use crate::{etcd, mongo, pgbouncer, postgres, redis, s3, zookeeper};

/// A kind of server: everything that differs between PostgreSQL and the next store.
#[derive(Debug)]
pub(crate) struct ServerKind {
    /// Names the container and the environment variables.
    pub(crate) name: &'static str,
    /// What its containers are made from. Kinds may share one.
    pub(crate) image: &'static ImageKind,
    /// The port it usually listens on, which a URL need not name.
    pub(crate) inner_port: u16,
    /// The port of the shared server on 127.0.0.1: uncommon, and below the range from which
    /// systems take the ports of outgoing connections. `None` where no server is shared.
    pub(crate) outer_port: Option<u16>,
    /// How many ports it needs, one after the other.
    pub(crate) ports: u16,
    /// At how many of them clients find a member of it, each of which may be down.
    pub(crate) members: u16,
    /// Whether the project has locks in such a server.
    pub(crate) keeps_locks: bool,
    pub(crate) network: Network,
    /// Set in the container.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// What runs in the container; empty for what the image says. A container's own arguments follow it.
    pub(crate) command: &'static [&'static str],
    /// What stands before the command where the server's wall clock is to be set; `None` where it can't be.
    pub(crate) clocked: Option<&'static [&'static str]>,
    /// Further options of `docker run`.
    pub(crate) options: &'static [&'static str],
    /// Commands run in the container once it answers. They may run several times.
    pub(crate) prepare: &'static [&'static [&'static str]],
    /// The URL of a server at `host:port`, or at several with commas between them.
    pub(crate) url: fn(&str) -> String,
    /// Whether the member at this address serves clients; `Err` says what it does instead.
    pub(crate) probe: fn(SocketAddr, Duration) -> io::Result<()>,
    /// The kind of server that this one stands before and needs. It learns that one's port from its environment, as
    /// `UPSTREAM_PORT`, and has to be in the host's network to reach it.
    pub(crate) before: Option<&'static ServerKind>,
}

/// How clients reach a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// It has a network of its own, and [`ServerKind::inner_port`] is published on 127.0.0.1.
    Published,
    /// It runs in the host's network and listens on 127.0.0.1 at the port that its environment names, `PORT`. For servers
    /// that reach others: those are published there, under ports that stay over a restart.
    Host,
    /// It has an address of its own in its cluster's network, [`Settings::place`](crate::container::Settings), where the
    /// host's clients reach it at [`ServerKind::inner_port`]. It may be cut off there.
    Own,
}

/// Every kind of server there is.
pub(crate) const KINDS: &[&ServerKind] = &[
    &postgres::POSTGRES,
    &pgbouncer::PGBOUNCER,
    &redis::REDIS,
    &redis::SENTINEL,
    &mongo::REPLICA_SET,
    &mongo::STANDALONE,
    &etcd::ALONE,
    &etcd::WITH_AUTH,
    &etcd::CLUSTER,
    &etcd::MEMBER,
    &zookeeper::ALONE,
    &zookeeper::CLUSTER,
    &zookeeper::MEMBER,
    &s3::S3,
];

impl ServerKind {
    /// The variable with the URL of a server that runs already.
    pub(crate) fn url_variable(&self) -> String {
        variable(self.name)
    }

    /// The URL of a server that runs already, if one is given.
    pub(crate) fn given_url(&self) -> Option<String> {
        environment(&self.url_variable())
    }

    /// The port of the shared server on 127.0.0.1, if one is shared.
    pub(crate) fn shared_port(&self) -> Result<Option<u16>, crate::Missing> {
        let name = format!("{}_PORT", self.url_variable());
        let Some(text) = environment(&name) else {
            return Ok(self.outer_port);
        };
        match text.parse() {
            Ok(port) => Ok(self.outer_port.and(Some(port))),
            Err(_) => Err(crate::Missing::new(format!("{name} is {text:?}"), "set it to a port number, or unset it")),
        }
    }

    /// The name of the shared container, with which those of private ones begin.
    pub(crate) fn container(&self) -> String {
        format!("leasehold-testbed-{}", self.name)
    }
}

/// The variable of this name of a server or an image.
pub(crate) fn variable(name: &str) -> String {
    format!("LEASEHOLD_TEST_{}", name.to_uppercase().replace('-', "_"))
}

/// A variable that is set to nothing counts as not set: CI files do that.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_shared_servers_want_one_port() {
        let mut ports: Vec<u16> =
            KINDS.iter().flat_map(|kind| kind.outer_port.map(|first| first..first + kind.ports)).flatten().collect();
        let all = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), all);
    }

    #[test]
    fn a_name_of_two_words_makes_a_variable() {
        assert_eq!(mongo::STANDALONE.url_variable(), "LEASEHOLD_TEST_MONGO_STANDALONE");
    }
}
