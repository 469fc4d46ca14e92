//! Redis: single servers, replicas, clusters, and the sentinel that watches a primary.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

use crate::image::{Given, ImageKind};
use crate::kind::{Network, ServerKind};
use crate::private::{private_before, private_clocked, private_with};
use crate::shared::{not_started, upstream};
use crate::{Missing, PrivateServer, Server};

static IMAGE: ImageKind =
    ImageKind { name: "redis", arguments: &[("REDIS_PASSWORD", "leasehold")], given: Given::IsBase, fetch: None };

/// Debian's Redis allocates by jemalloc, which asks for the time before `libfaketime` can tell it, and then neither goes on;
/// so the C library's own allocator comes first.
const PRELOADED: &[&str] = &["env", "LD_PRELOAD=libc_malloc_debug.so.0:/usr/local/lib/testbed/faketime.so"];

pub(crate) static REDIS: ServerKind = ServerKind {
    name: "redis",
    image: &IMAGE,
    inner_port: 6379,
    outer_port: Some(25379),
    // The second is the bus of a cluster's node.
    ports: 2,
    members: 1,
    keeps_locks: true,
    network: Network::Host,
    env: &[],
    command: &["sh", "/usr/local/lib/testbed/start.sh"],
    clocked: Some(PRELOADED),
    options: &[],
    prepare: &[],
    url: |address| format!("redis://:leasehold@{address}/0"),
    probe,
    before: None,
};

pub(crate) static SENTINEL: ServerKind = ServerKind {
    name: "redis-sentinel",
    image: &IMAGE,
    inner_port: 26379,
    outer_port: None,
    ports: 1,
    members: 1,
    keeps_locks: false,
    network: Network::Host,
    env: &[],
    command: &["sh", "/usr/local/lib/testbed/sentinel.sh"],
    clocked: None,
    options: &[],
    prepare: &[&["sh", "/usr/local/lib/testbed/linked.sh", "sentinel"]],
    // It asks for no password.
    url: |address| format!("redis://{address}"),
    probe,
    before: Some(&REDIS),
};

/// A replica of this server, once it has its data.
pub(crate) fn replica_of(primary: &Server) -> Result<PrivateServer, Missing> {
    let port = upstream(&REDIS, primary)?.to_string();
    let arguments = ["--replicaof", "127.0.0.1", &port];
    let replica =
        if primary.clocks() > 0 { private_clocked(&REDIS, &arguments) } else { private_with(&REDIS, &arguments) }?;
    replica
        .exec(&["sh", "/usr/local/lib/testbed/linked.sh", "replica"])
        .map_err(|error| not_started(&REDIS, &error))?;
    Ok(replica)
}

pub(crate) fn sentinel_of(primary: &Server) -> Result<PrivateServer, Missing> {
    private_before(&SENTINEL, primary)
}

/// A Redis Cluster of the caller's own: three primaries without replicas, each with a third of the slots.
///
/// As a slice it is its nodes, each of which can be faulted; one that was killed comes back into the cluster when it is
/// started. Within two seconds or so of a node's failure the others refuse every key, until it is back.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<PrivateServer>,
}

impl RedisCluster {
    const NODES: usize = 3;

    pub(crate) fn start() -> Result<Self, Missing> {
        let nodes: Vec<PrivateServer> =
            (0..Self::NODES).map(|_| private_with(&REDIS, &["--cluster-enabled", "yes"])).collect::<Result<_, _>>()?;
        let ports: Vec<String> = nodes.iter().filter_map(|node| node.port()).map(|port| port.to_string()).collect();
        let mut join = vec!["sh", "/usr/local/lib/testbed/join.sh"];
        join.extend(ports.iter().map(String::as_str));
        nodes[0].exec(&join).map_err(|error| not_started(&REDIS, &error))?;
        Ok(Self { nodes })
    }

    /// The URL of one node, from which clients learn of the others.
    pub fn url(&self) -> &str {
        self.nodes[0].url()
    }

    /// The URL of each node.
    pub fn urls(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| node.url()).collect()
    }
}

impl Deref for RedisCluster {
    type Target = [PrivateServer];

    fn deref(&self) -> &[PrivateServer] {
        &self.nodes
    }
}

/// Asks as a client with our password would. A server with another password refuses us: it serves.
fn probe(address: SocketAddr, limit: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(b"AUTH leasehold\r\nPING\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 512];
    while answer.len() < MOST && lines(&answer).count() < 2 {
        match stream.read(&mut chunk)? {
            0 => break,
            length => answer.extend_from_slice(&chunk[..length]),
        }
    }
    judge(&answer)
}

/// More than two lines of an answer of Redis.
const MOST: usize = 4096;

/// The lines that have ended.
fn lines(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    answer.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\r\n"))
}

/// The second line answers the PING.
fn judge(answer: &[u8]) -> io::Result<()> {
    match lines(answer).nth(1) {
        Some(b"+PONG") => Ok(()),
        Some(line) if line.starts_with(b"-NOAUTH") => Ok(()),
        Some(line) if line.starts_with(b"-") => Err(io::Error::other(String::from_utf8_lossy(line).into_owned())),
        Some(_) => Err(io::Error::other("what answers there isn't Redis")),
        None => Err(io::Error::other("the connection was closed unanswered")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_answers_or_refuses_us_serves() {
        for answer in [
            "+OK\r\n+PONG\r\n",
            "-ERR AUTH <password> called without any password configured for the default user\r\n+PONG\r\n",
            "-WRONGPASS invalid username-password pair\r\n-NOAUTH Authentication required.\r\n",
        ] {
            assert!(judge(answer.as_bytes()).is_ok(), "{answer}");
        }
    }

    #[test]
    fn a_server_that_loads_its_data_does_not_serve_yet() {
        let error = judge(b"+OK\r\n-LOADING Redis is loading the dataset in memory\r\n");
        assert!(error.is_err_and(|error| error.to_string().starts_with("-LOADING")));
    }

    #[test]
    fn silence_and_strangers_are_not_ready() {
        for answer in ["", "+OK\r\n", "+OK\r\n+PON", "HTTP/1.1 400 Bad Request\r\nServer: x\r\n"] {
            assert!(judge(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
