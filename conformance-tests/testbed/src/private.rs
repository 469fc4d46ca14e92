//! Servers for one caller.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::clocks::{Clocks, LIBRARY};
use crate::container::{self, Settings, Whose};
use crate::kind::ServerKind;
use crate::shared::{make_ready, not_started, remember, upstream};
use crate::{Error, Missing, PrivateServer, Server, engine, ports};

/// A server of this kind for one caller.
pub(crate) fn private(kind: &'static ServerKind) -> Result<PrivateServer, Missing> {
    started(kind, None, &[], false)
}

/// The same with further arguments of the kind's command.
pub(crate) fn private_with(kind: &'static ServerKind, arguments: &[&str]) -> Result<PrivateServer, Missing> {
    started(kind, None, arguments, false)
}

/// The same, with wall clocks that can be set, unless its image is a given one that runs as it is.
pub(crate) fn private_clocked(kind: &'static ServerKind, arguments: &[&str]) -> Result<PrivateServer, Missing> {
    started(kind, None, arguments, !kind.image.is_given_to_run())
}

/// A server of this kind for one caller, before that one.
pub(crate) fn private_before(kind: &'static ServerKind, server: &Server) -> Result<PrivateServer, Missing> {
    started(kind, Some(upstream(kind, server)?), &[], false)
}

fn started(
    kind: &'static ServerKind,
    upstream: Option<u16>,
    arguments: &[&str],
    clocked: bool,
) -> Result<PrivateServer, Missing> {
    let image = image(kind)?;
    // Ports that are free when we look can be taken when the server does, so more than once.
    let mut last = None;
    for _ in 0..3 {
        match start(kind, &image, upstream, arguments, clocked) {
            Ok(server) => return Ok(server),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| Missing::new("no server was tried", "try again"), |error| not_started(kind, &error)))
}

/// The image of private servers of this kind, made if it isn't there, when they can be had. What was left behind by
/// processes that are gone is removed.
pub(crate) fn image(kind: &'static ServerKind) -> Result<String, Missing> {
    if kind.given_url().is_some() {
        // Not remembered: the shared server isn't missing.
        return Err(Missing::new(
            format!("no {} server of the test's own", kind.name),
            format!("unset {} and have Docker running", kind.url_variable()),
        ));
    }
    remember(kind, || {
        engine::ready()?;
        let image = kind.image.name()?;
        kind.image.provide(&image)?;
        container::remove_orphans();
        Ok(image)
    })
}

/// A name for a private container or network of this process, which nobody else's has.
pub(crate) fn name(kind: &ServerKind) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}-{}", kind.container(), std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn start(
    kind: &'static ServerKind,
    image: &str,
    upstream: Option<u16>,
    arguments: &[&str],
    clocked: bool,
) -> Result<PrivateServer, Error> {
    let name = name(kind);
    // Chosen here and not by Docker, which would choose anew at each start.
    let port = ports::free(kind.ports)?;
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let clocks = clocked.then(|| Clocks::create(&name, kind.members)).transpose()?;
    let settings = Settings { port, upstream, arguments, clocks, place: None };
    container::create(kind, &name, image, &settings, Whose::OfProcess(std::process::id()))?;
    // Removed again by its drop when it doesn't get ready.
    let server = PrivateServer(Server::in_container(kind, name, port).clocked(settings.clocks));
    make_ready(&server)?;
    if clocked {
        // Or its clock would quietly stay right.
        server.exec(&["test", "-e", LIBRARY])?;
    }
    Ok(server)
}
