//! etcd: single servers, with authentication or without, and three members of one cluster.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::http::{Question, ask};
use crate::image::{Given, ImageKind};
use crate::kind::{Network, ServerKind};
use crate::{Error, Server};

static IMAGE: ImageKind = ImageKind {
    name: "etcd",
    arguments: &[("ETCD_USER", "leasehold"), ("ETCD_PASSWORD", "leasehold")],
    given: Given::IsBase,
    fetch: None,
};

pub(crate) static ALONE: ServerKind = ServerKind {
    name: "etcd",
    image: &IMAGE,
    inner_port: 2379,
    outer_port: Some(22379),
    // The second is for other members, of which there are none.
    ports: 2,
    members: 1,
    keeps_locks: true,
    network: Network::Host,
    env: &[],
    command: &["sh", "/usr/local/lib/testbed/start.sh"],
    clocked: None,
    options: &[],
    prepare: &[],
    url: |address| format!("etcd://{address}/"),
    probe,
    before: None,
};

pub(crate) static WITH_AUTH: ServerKind = ServerKind {
    name: "etcd-auth",
    outer_port: Some(22479),
    // What `ctl.sh` goes by.
    env: &[("AUTH", "1")],
    prepare: &[&["sh", "/usr/local/lib/testbed/auth.sh"]],
    url: |address| format!("etcd://leasehold:leasehold@{address}/"),
    ..ALONE
};

/// Three members in one container.
pub(crate) static CLUSTER: ServerKind = ServerKind {
    name: "etcd-cluster",
    outer_port: Some(22579),
    // Three for clients, three for one another.
    ports: 6,
    members: 3,
    keeps_locks: true,
    command: &["bash", "/usr/local/lib/testbed/three.sh"],
    ..ALONE
};

/// One member of a cluster whose members each have a container.
pub(crate) static MEMBER: ServerKind = ServerKind {
    name: "etcd-member",
    outer_port: None,
    ports: 1,
    network: Network::Own,
    command: &["sh", "/usr/local/lib/testbed/member.sh"],
    ..ALONE
};

/// How long a compaction may take.
const COMPACTS_WITHIN: Duration = Duration::from_secs(60);

/// What the administrator of an etcd of the testbed can do.
#[derive(Debug, Clone, Copy)]
pub struct Etcd<'a>(&'a Server);

impl<'a> Etcd<'a> {
    /// This server, or this member of a cluster.
    pub fn of(server: &'a Server) -> Self {
        Self(server)
    }

    /// Runs `etcdctl` at the server, as root where it asks for a user; the answer is what it wrote to stdout. Ended after
    /// 60 s.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] outside the testbed, else what the failed command said.
    pub fn etcdctl(&self, command: &[&str]) -> Result<String, Error> {
        self.0.exec(&[&["sh", "/usr/local/lib/testbed/ctl.sh"], command].concat())
    }

    /// Makes the cluster forget all revisions before the present one, which is the answer, and answers when it has. Nothing
    /// is left to do where that was done already.
    ///
    /// Asked over the network, as any client may where no user is asked for: a command that is begun in a container while that
    /// is paused stands still with it, and the engine then waits for it and can't unpause the container.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with what the server said, or that it didn't answer within 60 s.
    pub fn compact(&self) -> Result<u64, Error> {
        let failed = |stderr: String| Error::Failed { command: "compaction of etcd".to_owned(), stderr };
        let address = self.0.host_port().parse().map_err(|_| failed(format!("no address: {}", self.0.host_port())))?;
        let post = |path, body: &str| ask(address, COMPACTS_WITHIN, &Question { method: "POST", path, body });
        let status = post("/v3/maintenance/status", "{}").map_err(|error| failed(error.to_string()))?;
        let revision = number(&status, "revision").ok_or_else(|| failed(format!("no revision in {status}")))?;
        match post("/v3/kv/compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#)) {
            Err(error) if !error.to_string().contains("has been compacted") => Err(failed(error.to_string())),
            _ => Ok(revision),
        }
    }

    /// Makes the server give the room of what was forgotten back to its disk. It answers nobody meanwhile.
    ///
    /// # Errors
    ///
    /// As in [`Etcd::etcdctl`].
    pub fn defragment(&self) -> Result<(), Error> {
        self.etcdctl(&["defrag"]).map(drop)
    }
}

/// Asks whether the member at this address can read what a majority has; anybody may ask that.
fn probe(address: SocketAddr, limit: Duration) -> io::Result<()> {
    let answer = ask(address, limit, &Question { method: "GET", path: "/health", body: "" })?;
    if answer.contains("\"health\":\"true\"") { Ok(()) } else { Err(io::Error::other(answer)) }
}

/// The term in which the member at this address says that it leads, if it does.
pub(crate) fn leads(address: SocketAddr, limit: Duration) -> io::Result<Option<u64>> {
    let question = Question { method: "POST", path: "/v3/maintenance/status", body: "{}" };
    let answer = ask(address, limit, &question)?;
    let (leader, member) = (number(&answer, "leader"), number(&answer, "member_id"));
    Ok(if leader.is_some() && leader == member { number(&answer, "raftTerm") } else { None })
}

/// The number of this name in a JSON text; etcd puts numbers of 64 bits in quotes.
fn number(json: &str, name: &str) -> Option<u64> {
    let (_, rest) = json.split_once(&format!("\"{name}\":\""))?;
    rest.split_once('"')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_learn_of_every_member() {
        let server = Server::in_container(&CLUSTER, "a-container".to_owned(), 22579);
        assert_eq!(server.url(), "etcd://127.0.0.1:22579,127.0.0.1:22580,127.0.0.1:22581/");
    }

    #[test]
    fn numbers_are_found_by_their_names() {
        let json = r#"{"header":{"member_id":"11417610130673999598","raft_term":"2"},"leader":"7","raftTerm":"3"}"#;
        let found = ["member_id", "leader", "raftTerm", "revision"].map(|name| number(json, name));
        assert_eq!(found, [Some(11_417_610_130_673_999_598), Some(7), Some(3), None]);
    }
}
