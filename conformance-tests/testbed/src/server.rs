//! A server that runs, and the faults one can do to it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Deref;
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::command::docker;
use crate::kind::ServerKind;

/// Longer than any of these commands takes on a busy machine: they act on one container.
const ACT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
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
    host_port: String,
    container: Option<String>,
}

impl Server {
    pub(crate) fn in_container(kind: &'static ServerKind, container: String, port: u16) -> Self {
        let host_port = format!("127.0.0.1:{port}");
        Self { kind, url: (kind.url)(&host_port), host_port, container: Some(container) }
    }

    pub(crate) fn outside(kind: &'static ServerKind, url: String) -> Self {
        Self { kind, host_port: host_port(&url, kind.inner_port), url, container: None }
    }

    /// The URL to connect to, with user and password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port`, for proxies that stand between a client and the server.
    pub fn host_port(&self) -> &str {
        &self.host_port
    }

    /// The port on 127.0.0.1 of a server in a container.
    pub(crate) fn port(&self) -> Option<u16> {
        self.container.as_ref()?;
        self.host_port.rsplit_once(':')?.1.parse().ok()
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

    /// Waits until the server serves clients. Works for servers outside the testbed too.
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
                    address: self.host_port.clone(),
                    limit,
                    last: self.last_words(&error),
                });
            }
            thread::sleep(POLL);
        }
    }

    fn probe(&self, limit: Duration) -> io::Result<()> {
        let addresses: Vec<SocketAddr> = self.host_port.to_socket_addrs()?.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses {
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
        let state =
            docker(&["inspect", "--format={{.State.Status}}", container], ACT).unwrap_or_else(|_| "gone".to_owned());
        format!("{error}; the container is {}, see docker logs {container}", state.trim())
    }

    fn act(&self, action: &str, command: &[&str]) -> Result<(), Error> {
        let container = self.container(action)?;
        docker(&[command, &[container]].concat(), ACT).map(drop)
    }

    fn container(&self, action: &str) -> Result<&str, Error> {
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
            let _ = docker(&["rm", "--force", "--volumes", container], ACT);
        }
    }
}

/// The `host:port` of a URL; the port is the server's usual one when it names none.
fn host_port(url: &str, usual: u16) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    // The colons inside the brackets of an IPv6 address are no port.
    let has_port =
        host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if has_port { host.to_owned() } else { format!("{}:{usual}", host.trim_end_matches(':')) }
}

/// The URL without its password, for people to read.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{tail}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_of_a_url() {
        for (url, expected) in [
            ("postgres://u:p@db.example:6000/x?y=1", "db.example:6000"),
            ("postgres://u:p@db.example/x", "db.example:5432"),
            ("postgres://db.example", "db.example:5432"),
            ("postgres://u:a@b@[::1]:6000/x", "[::1]:6000"),
            ("postgres://[::1]/x", "[::1]:5432"),
        ] {
            assert_eq!(host_port(url, 5432), expected, "{url}");
        }
    }

    #[test]
    fn the_password_is_hidden() {
        for (url, expected) in [
            ("postgres://u:secret@h:1/x", "postgres://u:***@h:1/x"),
            ("postgres://u:s@cret@h/x", "postgres://u:***@h/x"),
            ("postgres://h/x", "postgres://h/x"),
        ] {
            assert_eq!(without_password(url), expected, "{url}");
        }
    }

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
