//! A server that runs, and the faults one can do to it.

use std::io;
use std::net::ToSocketAddrs;
use std::ops::Deref;
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::address::host_ports;
use crate::clocks::Clocks;
use crate::command::{docker, run};
use crate::container;
use crate::kind::ServerKind;

/// Longer than any of these commands takes on a busy machine: they act on one container.
const ACT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);
/// How often a server that starts is looked at from outside, should it have ended.
const LOOK: Duration = Duration::from_secs(1);
/// One attempt to reach the server. A paused server takes the connection and says nothing.
const ATTEMPT: Duration = Duration::from_millis(500);

/// A server that tests can connect to.
///
/// Faults act at once and answer when they have happened. On a server outside the testbed
/// they answer [`Error::Unsupported`] and do nothing.
#[derive(Debug)]
pub struct Server {
    kind: &'static ServerKind,
    url: String,
    /// Of each member; a server that is one process is one.
    host_ports: Vec<String>,
    container: Option<String>,
    clocks: Option<Clocks>,
}

impl Server {
    pub(crate) fn in_container(kind: &'static ServerKind, container: String, port: u16) -> Self {
        let host_ports: Vec<String> = (0..kind.members).map(|member| format!("127.0.0.1:{}", port + member)).collect();
        Self { kind, url: (kind.url)(&host_ports.join(",")), host_ports, container: Some(container), clocks: None }
    }

    /// The same, with clocks that can be set.
    pub(crate) fn clocked(self, clocks: Option<Clocks>) -> Self {
        Self { clocks, ..self }
    }

    /// A server of one process, at an address of its own.
    pub(crate) fn in_place(kind: &'static ServerKind, container: String, host: &str, port: u16) -> Self {
        let host_port = format!("{host}:{port}");
        Self {
            kind,
            url: (kind.url)(&host_port),
            host_ports: vec![host_port],
            container: Some(container),
            clocks: None,
        }
    }

    pub(crate) fn outside(kind: &'static ServerKind, url: String) -> Self {
        Self { kind, host_ports: host_ports(&url, kind.inner_port), url, container: None, clocks: None }
    }

    pub(crate) fn kind(&self) -> &'static ServerKind {
        self.kind
    }

    /// The URL to connect to, with user and password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port`, for proxies that stand between a client and the server. The first one's where the server has several
    /// members.
    pub fn host_port(&self) -> &str {
        self.host_ports.first().map_or("", String::as_str)
    }

    /// `host:port` of each member; of a server that is one process, the only one.
    pub fn host_ports(&self) -> &[String] {
        &self.host_ports
    }

    /// The first port on 127.0.0.1 of a server in a container.
    pub(crate) fn port(&self) -> Option<u16> {
        self.container.as_ref()?;
        self.host_port().rsplit_once(':')?.1.parse().ok()
    }

    /// Freezes the server: connections stay open, and nothing answers.
    ///
    /// # Errors
    ///
    /// As every fault: [`Error::Unsupported`] outside the testbed, else what the failed
    /// command said, for example that the container is paused already.
    pub fn pause(&self) -> Result<(), Error> {
        self.act("pause", &["pause"])
    }

    /// Lets a paused server run on.
    ///
    /// # Errors
    ///
    /// As in [`Server::pause`].
    pub fn unpause(&self) -> Result<(), Error> {
        self.act("unpause", &["unpause"])
    }

    /// Kills the server with SIGKILL, as a crash of its machine's power would: it writes
    /// nothing more. Its data stays.
    ///
    /// # Errors
    ///
    /// As in [`Server::pause`].
    pub fn kill(&self) -> Result<(), Error> {
        self.act("kill", &["kill", "--signal=KILL"])
    }

    /// Starts a server that was killed, with the data it had. Doesn't wait until it serves:
    /// see [`Server::await_ready`].
    ///
    /// # Errors
    ///
    /// As in [`Server::pause`].
    pub fn start(&self) -> Result<(), Error> {
        self.act("start", &["start"])
    }

    /// Shuts the server down in order (killed after 10 s) and starts it with the data it
    /// had. Doesn't wait until it serves: see [`Server::await_ready`].
    ///
    /// # Errors
    ///
    /// As in [`Server::pause`].
    pub fn restart(&self) -> Result<(), Error> {
        self.act("restart", &["restart", "--time=10"])
    }

    /// How many wall clocks the server has that can be set: one for each member, or none.
    pub fn clocks(&self) -> usize {
        self.clocks.as_ref().map_or(0, Clocks::members)
    }

    /// Sets the wall clock of a member, counted from 0, so many microseconds ahead of this machine's; behind, if negative.
    /// From then on it runs as fast as this machine's. Takes effect at once, also for a server that is paused or down; its
    /// monotonic clocks stay true.
    ///
    /// # Errors
    ///
    /// [`Error::NotRun`] where it has no such clock that can be set, see [`Server::clocks`], or its file can't be written.
    pub fn set_clock(&self, member: usize, ahead_micros: i64) -> Result<(), Error> {
        match self.clocks.as_ref().filter(|clocks| member < clocks.members()) {
            Some(clocks) => clocks.set(member, ahead_micros),
            None => Err(Error::NotRun {
                command: format!("set clock {member} of the {} server", self.kind.name),
                source: io::Error::new(io::ErrorKind::Unsupported, "it has no such clock that can be set"),
            }),
        }
    }

    /// Runs a command in the container, as the image's user; the answer is what it wrote
    /// to stdout. Ended after 60 s.
    ///
    /// # Errors
    ///
    /// As in [`Server::pause`].
    pub fn exec(&self, command: &[&str]) -> Result<String, Error> {
        let container = self.container("exec in")?;
        let args = [&["exec", container], command].concat();
        docker(&args, ACT)
    }

    /// Waits until the server serves clients: for writing too, where it has several members. Works for servers outside
    /// the testbed too.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] after `limit`, with what the last attempt ran into.
    pub fn await_ready(&self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // A connect needs a time-out above zero, and even no time is worth one look.
            let attempt = left.clamp(POLL, ATTEMPT);
            let Err(error) = self.probe(attempt) else {
                return Ok(());
            };
            if Instant::now() >= deadline {
                return Err(Error::NotReady {
                    server: self.kind.name,
                    address: self.host_ports.join(","),
                    limit,
                    last: self.last_words(&error),
                });
            }
            thread::sleep(POLL);
        }
    }

    /// As [`Server::await_ready`], but doesn't wait for a container that has ended.
    pub(crate) fn await_start(&self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Err(error) = self.await_ready(left.min(LOOK)) else {
                return Ok(());
            };
            if Instant::now() >= deadline || self.state() == "exited" {
                return Err(error);
            }
        }
    }

    /// Whether any member serves.
    fn probe(&self, limit: Duration) -> io::Result<()> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for host_port in &self.host_ports {
            match self.probe_member(host_port, limit) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(crate) fn probe_member(&self, host_port: &str, limit: Duration) -> io::Result<()> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in host_port.to_socket_addrs()? {
            match (self.kind.probe)(address, limit) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Why the server isn't there: a container that ended tells it in its log.
    fn last_words(&self, error: &io::Error) -> String {
        let Some(container) = &self.container else {
            return error.to_string();
        };
        let state = self.state();
        let log = if state == "exited" { log_end(container) } else { String::new() };
        format!("{error}; the container is {state}, see docker logs {container} {log}")
    }

    /// The state of the container in Docker's words.
    fn state(&self) -> String {
        let found = self.container.as_deref().and_then(container::inspect);
        found.map_or_else(|| "gone".to_owned(), |found| found.state)
    }

    fn act(&self, action: &str, command: &[&str]) -> Result<(), Error> {
        let container = self.container(action)?;
        docker(&[command, &[container]].concat(), ACT).map(drop)
    }

    pub(crate) fn container(&self, action: &str) -> Result<&str, Error> {
        self.container.as_deref().ok_or_else(|| Error::Unsupported {
            action: action.to_owned(),
            server: self.kind.name,
            variable: self.kind.url_variable(),
        })
    }
}

/// A server of the caller's own, removed with its data on drop.
#[derive(Debug)]
pub struct PrivateServer(pub(crate) Server);

impl Deref for PrivateServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if let Some(container) = &self.0.container {
            // What stays behind is removed by the next private server or by `down`.
            let _ = container::remove(container);
        }
    }
}

fn log_end(container: &str) -> String {
    // Some servers write it to stderr.
    run("sh", &["-c", r#"docker logs --tail=3 "$0" 2>&1"#, container], ACT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_outside_the_testbed_cannot_be_faulted() {
        let server = Server::outside(&crate::postgres::POSTGRES, "postgres://u:p@h/x".into());
        let error = server.pause().map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("can't pause the postgres server: LEASEHOLD_TEST_POSTGRES points at one outside \
                 the testbed; unset it to use a container"
                .to_owned())
        );
    }
}
