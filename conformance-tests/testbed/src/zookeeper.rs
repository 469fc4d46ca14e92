//! ZooKeeper: single servers, and three of one ensemble.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::image::{Given, ImageKind};
use crate::kind::{Network, ServerKind};
use crate::zk_cli::{PROGRAM, ZkCli};
use crate::{Error, Server, zk_session};

static IMAGE: ImageKind = ImageKind { name: "zookeeper", arguments: &[], given: Given::IsBase, fetch: None };

pub(crate) static ALONE: ServerKind = ServerKind {
    name: "zookeeper",
    image: &IMAGE,
    inner_port: 2181,
    outer_port: Some(22181),
    ports: 1,
    members: 1,
    keeps_locks: true,
    network: Network::Host,
    env: &[],
    command: &["sh", "/usr/local/lib/testbed/start.sh"],
    clocked: None,
    options: &[],
    prepare: &[],
    url: |address| format!("zookeeper://{address}"),
    probe,
    before: None,
};

/// Three servers in one container.
pub(crate) static CLUSTER: ServerKind = ServerKind {
    name: "zookeeper-cluster",
    outer_port: Some(22281),
    // Three for clients, three to follow the leader, three to elect it.
    ports: 9,
    members: 3,
    keeps_locks: true,
    command: &["bash", "/usr/local/lib/testbed/three.sh"],
    ..ALONE
};

/// One of three servers that each have a container.
pub(crate) static MEMBER: ServerKind = ServerKind {
    name: "zookeeper-member",
    outer_port: None,
    network: Network::Own,
    command: &["sh", "/usr/local/lib/testbed/member.sh"],
    ..ALONE
};

/// What ZooKeeper's own programs can do at a server of the testbed.
#[derive(Debug, Clone, Copy)]
pub struct ZooKeeper<'a>(&'a Server);

impl<'a> ZooKeeper<'a> {
    /// How long a server is given to answer.
    const ASKED: Duration = Duration::from_secs(5);
    /// Of a session for one command.
    const SESSION: &'static str = "10000";

    /// This server, or this one of an ensemble.
    pub fn of(server: &'a Server) -> Self {
        Self(server)
    }

    /// Runs one command of `zkCli.sh`, such as `&["create", "/a", "data"]`; the answer is all it wrote. Ended after 60 s.
    /// The program doesn't close its session, which is over 10 s later: for ephemeral nodes see [`ZooKeeper::session`].
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] outside the testbed. What ZooKeeper refuses is in the answer: it isn't always in the
    /// program's exit status.
    pub fn zk_cli(&self, command: &[&str]) -> Result<String, Error> {
        let script = r#"sh "$@" || true"#;
        self.0.exec(&[&["sh", "-c", script, "sh", PROGRAM, Self::SESSION], command].concat())
    }

    /// Opens a session of `zkCli.sh`, which lives until the answer is dropped. Its time-out is what the server makes of
    /// this one.
    ///
    /// # Errors
    ///
    /// As in [`ZooKeeper::zk_cli`].
    pub fn session(&self, time_out: Duration) -> Result<ZkCli, Error> {
        ZkCli::open(self.0, time_out)
    }

    /// Asks with one of the words of four letters, such as `mntr`, `srvr` or `cons`. Works for servers outside the testbed
    /// that allow it. The first server's where there are several.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] where it isn't answered within 5 s.
    pub fn four_letters(&self, word: &str) -> Result<String, Error> {
        self.ask(|address| four_letters(address, Self::ASKED, word))
    }

    /// Ends the session of this id, whosever it is, and answers when it is gone with its ephemeral nodes. Its client learns
    /// that it has expired. Works for servers outside the testbed too, as long as they are ZooKeeper's own.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] where there is no such session, or it isn't closed within 5 s.
    pub fn expire(&self, session: i64) -> Result<(), Error> {
        self.ask(|address| zk_session::close(address, Self::ASKED, session))
    }

    fn ask<T>(&self, question: impl Fn(SocketAddr) -> io::Result<T>) -> Result<T, Error> {
        let first = self.0.host_port().to_socket_addrs().and_then(|mut addresses| {
            addresses.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
        });
        first.and_then(question).map_err(|error| Error::NotReady {
            server: self.0.kind().name,
            address: self.0.host_port().to_owned(),
            limit: Self::ASKED,
            last: error.to_string(),
        })
    }
}

fn four_letters(address: SocketAddr, limit: Duration, word: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// More than any answer to a word of four letters, in bytes.
const MOST: u64 = 4 << 20;

/// Asks whether the server at this address serves, which it does alone or with a majority.
fn probe(address: SocketAddr, limit: Duration) -> io::Result<()> {
    judge(&four_letters(address, limit, "srvr")?).map(drop)
}

/// The epoch in which the server at this address says that it leads, if it does.
pub(crate) fn leads(address: SocketAddr, limit: Duration) -> io::Result<Option<u64>> {
    judge(&four_letters(address, limit, "srvr")?)
}

fn judge(answer: &str) -> io::Result<Option<u64>> {
    let line = |name| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match line("Mode:") {
        Some("leader") => Ok(line("Zxid: 0x").and_then(|id| u64::from_str_radix(id, 16).ok()).map(|id| id >> 32)),
        Some(_) => Ok(None),
        None if answer.starts_with("This ZooKeeper instance is not currently serving") => {
            Err(io::Error::other(answer.trim().to_owned()))
        }
        None => Err(io::Error::other("what answers there isn't ZooKeeper, or doesn't allow srvr")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_has_an_epoch() {
        let answer = |mode| format!("Zookeeper version: 3.8.0\nZxid: 0x500000002\nMode: {mode}\nNode count: 5\n");
        assert_eq!(judge(&answer("leader")).ok(), Some(Some(5)));
        for mode in ["follower", "standalone"] {
            assert_eq!(judge(&answer(mode)).ok(), Some(None), "{mode}");
        }
    }

    #[test]
    fn who_has_no_majority_does_not_serve() {
        let error = judge("This ZooKeeper instance is not currently serving requests\n");
        assert!(error.is_err_and(|error| error.to_string().ends_with("serving requests")));
        assert!(judge("").is_err());
        assert!(judge("+PONG\r\n").is_err());
    }
}
