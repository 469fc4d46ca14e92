//! What the testbed has to know about a kind of server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// A kind of server: everything that differs between PostgreSQL and the next store.
#[derive(Debug)]
pub(crate) struct ServerKind {
    /// Names the folder below `docker/`, the container and the environment variables.
    pub(crate) name: &'static str,
    /// The port it listens on inside its container.
    pub(crate) inner_port: u16,
    /// The port of the shared server on 127.0.0.1: uncommon, and below the range from which
    /// systems take the ports of outgoing connections.
    pub(crate) outer_port: u16,
    /// Set in the container and, as build arguments, in the build of our own image.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// What runs in the container; empty for what the image says.
    pub(crate) command: &'static [&'static str],
    /// Further options of `docker run`.
    pub(crate) options: &'static [&'static str],
    /// Commands run in the container once it answers. They may run several times.
    pub(crate) prepare: &'static [&'static [&'static str]],
    /// The URL of a server at `host:port`.
    pub(crate) url: fn(&str) -> String,
    /// Whether the server at this address serves clients; `Err` says what it does instead.
    pub(crate) probe: fn(SocketAddr, Duration) -> io::Result<()>,
    /// The kind of server that this one stands before and needs. Such a one runs in the host's network, where the
    /// testbed publishes its servers under ports that stay over a restart, and learns both ports from its environment:
    /// `PORT` and `UPSTREAM_PORT`.
    pub(crate) before: Option<&'static ServerKind>,
}

/// Every kind of server there is.
pub(crate) const KINDS: &[&ServerKind] = &[&crate::postgres::POSTGRES, &crate::pgbouncer::PGBOUNCER];

impl ServerKind {
    /// The variable with the URL of a server that runs already.
    pub(crate) fn url_variable(&self) -> String {
        format!("LEASEHOLD_TEST_{}", self.name.to_uppercase())
    }

    fn setting(&self, suffix: &str) -> Option<String> {
        environment(&format!("{}_{suffix}", self.url_variable()))
    }

    /// The URL of a server that runs already, if one is given.
    pub(crate) fn given_url(&self) -> Option<String> {
        environment(&self.url_variable())
    }

    /// The image to use in place of our own, if one is given.
    pub(crate) fn given_image(&self) -> Option<String> {
        self.setting("IMAGE")
    }

    /// The port of the shared server on 127.0.0.1.
    pub(crate) fn port(&self) -> Result<u16, crate::Missing> {
        let Some(text) = self.setting("PORT") else {
            return Ok(self.outer_port);
        };
        text.parse().map_err(|_| {
            crate::Missing::new(
                format!("{}_PORT is {text:?}", self.url_variable()),
                "set it to a port number, or unset it",
            )
        })
    }

    /// The name of the shared container.
    pub(crate) fn container(&self) -> String {
        format!("leasehold-testbed-{}", self.name)
    }
}

/// A variable that is set to nothing counts as not set: CI files do that.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
