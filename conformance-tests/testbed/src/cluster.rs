//! Servers that elect a leader among them, each in a container of its own, and what can be done to one of them.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::docker;
use crate::container::{self, Settings, Whose};
use crate::kind::ServerKind;
use crate::network::Network;
use crate::shared::{make_ready, not_started};
use crate::{Error, Missing, PrivateServer, Server, private};

const MEMBERS: u32 = 3;
const ACT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);
/// How long a member is given to say whether it leads.
const ASKED: Duration = Duration::from_millis(500);

/// The term in which the server at this address says that it leads, if it does. A later leader's is higher.
type Leads = fn(SocketAddr, Duration) -> io::Result<Option<u64>>;

/// Three servers of the caller's own that elect a leader among them, removed with their data on drop.
///
/// Members are counted from 0. Each has an address of its own at which clients on this machine reach it; so Docker has to
/// run on this machine, and on Linux. Faults act at once and answer when they have happened.
#[derive(Debug)]
pub struct Cluster {
    // Before the network, which can't be removed with containers in it.
    members: Vec<PrivateServer>,
    url: String,
    leads: Leads,
    _network: Network,
}

impl Cluster {
    /// Starts a cluster with members of this kind, unless a single server of that other kind is given in the environment:
    /// who has one elsewhere need not have Docker.
    pub(crate) fn start(alone: &'static ServerKind, kind: &'static ServerKind, leads: Leads) -> Result<Self, Missing> {
        let image = private::image(alone)?;
        let started = || {
            let network = Network::create(private::name(kind), kind.name)?;
            let members = thread::scope(|scope| {
                let starts: Vec<_> = (0..MEMBERS)
                    .map(|member| {
                        scope.spawn({
                            let (image, network) = (&image, &network);
                            move || start_member(kind, image, network, member)
                        })
                    })
                    .collect();
                starts.into_iter().map(|start| start.join().unwrap_or_else(|_| Err(died()))).collect::<Result<_, _>>()
            })?;
            Ok((network, members))
        };
        // As private servers: on a machine that has much to do, one may not be ready in time.
        let once_more = |_| started();
        let (network, members): (_, Vec<PrivateServer>) =
            started().or_else(once_more).or_else(once_more).map_err(|error| not_started(kind, &error))?;
        let addresses: Vec<&str> = members.iter().map(|member| member.host_port()).collect();
        Ok(Self { url: (kind.url)(&addresses.join(",")), members, leads, _network: network })
    }

    /// The URL with all members.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of one member alone.
    ///
    /// # Panics
    ///
    /// As all of these functions, where there is no such member.
    pub fn member_url(&self, member: usize) -> &str {
        self.members[member].url()
    }

    /// One member, for what can be done to any server. [`Server::await_ready`] of a member waits until it has a majority
    /// with it.
    pub fn member(&self, member: usize) -> &Server {
        &self.members[member]
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The member that leads, as far as members can be asked. Of two that say they do it is the one elected later: a
    /// leader that was cut off needs a while to notice. Takes up to 0.5 s for each member that doesn't answer.
    pub fn leader(&self) -> Option<usize> {
        let term = |member: &PrivateServer| {
            let address = member.host_port().to_socket_addrs().ok()?.next()?;
            (self.leads)(address, ASKED).ok().flatten()
        };
        let leaders = self.members.iter().enumerate().filter_map(|(member, server)| Some((term(server)?, member)));
        leaders.max().map(|(_, member)| member)
    }

    /// Waits until a member leads for which this holds, and answers with it.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] after `limit`.
    pub fn await_leader(&self, limit: Duration, condition: impl Fn(usize) -> bool) -> Result<usize, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let leader = self.leader();
            match leader {
                Some(leader) if condition(leader) => return Ok(leader),
                _ if Instant::now() >= deadline => {
                    return Err(Error::NotReady {
                        server: self.members[0].kind().name,
                        address: self.members.iter().map(|member| member.host_port()).collect::<Vec<_>>().join(","),
                        limit,
                        last: leader.map_or("no member leads".to_owned(), |leader| format!("member {leader} leads")),
                    });
                }
                _ => thread::sleep(POLL),
            }
        }
    }

    /// Waits until every member serves clients, each with a majority.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] after `limit`, of the first that doesn't.
    pub fn await_all(&self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        self.members
            .iter()
            .try_for_each(|member| member.await_ready(deadline.saturating_duration_since(Instant::now())))
    }

    /// Kills a member with SIGKILL. Its data stays.
    ///
    /// # Errors
    ///
    /// What the failed command said, for example that the member doesn't run.
    pub fn kill(&self, member: usize) -> Result<(), Error> {
        self.members[member].kill()
    }

    /// Starts a member that was killed, or ends one in order and starts it, with the data it had; what was cut is healed.
    /// Doesn't wait until it serves: see [`Server::await_ready`].
    ///
    /// # Errors
    ///
    /// As in [`Cluster::kill`].
    pub fn restart(&self, member: usize) -> Result<(), Error> {
        self.members[member].restart()
    }

    /// Freezes a member: its connections stay open, and it answers nothing. Of what is frozen nothing can be cut or healed.
    ///
    /// # Errors
    ///
    /// As in [`Cluster::kill`].
    pub fn freeze(&self, member: usize) -> Result<(), Error> {
        self.members[member].pause()
    }

    /// Lets a frozen member run on.
    ///
    /// # Errors
    ///
    /// As in [`Cluster::kill`].
    pub fn thaw(&self, member: usize) -> Result<(), Error> {
        self.members[member].unpause()
    }

    /// Drops all packets between a member and the others; clients reach it still. Until it is healed or restarted.
    ///
    /// # Errors
    ///
    /// As in [`Cluster::kill`].
    pub fn cut_off(&self, member: usize) -> Result<(), Error> {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != member);
        let hosts = others.filter_map(|(_, other)| other.host_port().rsplit_once(':')).map(|(host, _)| host);
        self.cut(member, &[&["from"], hosts.collect::<Vec<_>>().as_slice()].concat())
    }

    /// Drops all packets from a member and to it: neither the others nor clients reach it. Until it is healed or
    /// restarted.
    ///
    /// # Errors
    ///
    /// As in [`Cluster::kill`].
    pub fn isolate(&self, member: usize) -> Result<(), Error> {
        self.cut(member, &["all"])
    }

    /// Lets all packets of a member through again, whatever was cut.
    ///
    /// # Errors
    ///
    /// As in [`Cluster::kill`].
    pub fn heal(&self, member: usize) -> Result<(), Error> {
        self.cut(member, &["nothing"])
    }

    fn cut(&self, member: usize, what: &[&str]) -> Result<(), Error> {
        let container = self.members[member].container("cut off")?;
        // The servers run as users who may not do this.
        let command = ["exec", "--user=root", container, "sh", "-c", include_str!("../docker/cut.sh"), "cut.sh"];
        docker(&[&command, what].concat(), ACT).map(drop)
    }
}

fn start_member(
    kind: &'static ServerKind,
    image: &str,
    network: &Network,
    member: u32,
) -> Result<PrivateServer, Error> {
    let name = private::name(kind);
    let place = network.place(member);
    let host = place.address.to_string();
    let arguments =
        std::iter::once(member.to_string()).chain((0..MEMBERS).map(|other| network.place(other).address.to_string()));
    let settings =
        Settings { port: kind.inner_port, place: Some(place), arguments: arguments.collect(), ..Settings::default() };
    container::create(kind, &name, image, &settings, Whose::OfProcess(std::process::id()))?;
    // Removed again by its drop when it doesn't get ready.
    let server = PrivateServer(Server::in_place(kind, name, &host, kind.inner_port));
    make_ready(&server)?;
    Ok(server)
}

fn died() -> Error {
    Error::NotRun { command: "docker run".to_owned(), source: io::Error::other("the attempt panicked") }
}
