//! All servers at once: brought up, listed, taken down.

use std::thread;

use crate::address::without_password;
use crate::container::{self, inspect};
use crate::kind::{KINDS, ServerKind};
use crate::shared::{GLANCE, shared};
use crate::{Error, Missing, Server, engine, lock, network};

/// One line of [`status`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The container, or the kind of server where it runs outside the testbed.
    pub server: String,
    /// The image of the container.
    pub image: String,
    /// The state in Docker's words, with `, ready` where it serves clients.
    pub state: String,
    /// The URL, its password hidden.
    pub url: String,
}

/// Brings up the shared server of every kind, all at once; tells of each whether it is there.
pub fn up() -> Vec<(&'static str, Result<Server, Missing>)> {
    up_where(|_| true)
}

/// The same for those that keep locks and whose name is wanted; no other is started.
pub fn up_with_locks(wanted: impl Fn(&str) -> bool) -> Vec<(&'static str, Result<Server, Missing>)> {
    up_where(|kind| kind.keeps_locks && wanted(kind.name))
}

fn up_where(wanted: impl Fn(&ServerKind) -> bool) -> Vec<(&'static str, Result<Server, Missing>)> {
    let kinds = KINDS.iter().filter(|kind| kind.outer_port.is_some() && wanted(kind));
    thread::scope(|scope| {
        let attempts: Vec<_> = kinds.map(|kind| (kind.name, scope.spawn(|| shared(kind)))).collect();
        attempts.into_iter().map(|(name, attempt)| (name, attempt.join().unwrap_or_else(|_| Err(died())))).collect()
    })
}

fn died() -> Missing {
    Missing::new("the attempt to start the server panicked", "see what it wrote to stderr")
}

/// Removes every container of the testbed with its data, private ones too; the images stay.
/// The answer is the names of the containers removed.
///
/// # Errors
///
/// What the failed `docker` command said.
pub fn down() -> Result<Vec<String>, Error> {
    let _locks: Vec<_> = KINDS.iter().map(|kind| lock::machine(kind.name)).collect();
    let names: Vec<String> = container::list()?.into_iter().map(|listed| listed.name).collect();
    for name in &names {
        container::remove(name)?;
    }
    network::remove_where(|_| true);
    Ok(names)
}

/// Says of every kind of server, and of every private container, whether it runs.
///
/// # Errors
///
/// [`Missing`] when Docker isn't there or doesn't answer, unless every server runs outside
/// the testbed. Unlike the other functions it doesn't start the engine's containers.
pub fn status() -> Result<Vec<Status>, Missing> {
    let mut rows = Vec::new();
    for kind in KINDS {
        match (kind.given_url(), kind.shared_port()?) {
            (Some(url), _) => rows.push(status_outside(kind, url)),
            (None, Some(port)) => {
                engine::ready()?;
                let server = Server::in_container(kind, kind.container(), port);
                rows.push(status_of(server, kind.container()));
            }
            (None, None) => {}
        }
    }
    for listed in container::list().unwrap_or_default() {
        let kind = KINDS.iter().find(|kind| kind.name == listed.kind);
        if let (Some(kind), Some(port), Some(_)) = (kind, listed.port, listed.owner) {
            let server = private_of(kind, &listed.name, &listed.host, port);
            rows.push(status_of(server, listed.name));
        }
    }
    Ok(rows)
}

fn status_outside(kind: &'static ServerKind, url: String) -> Status {
    let server = Server::outside(kind, url);
    let state = match server.await_ready(GLANCE) {
        Ok(()) => "outside the testbed, ready".to_owned(),
        Err(_) => "outside the testbed, doesn't answer".to_owned(),
    };
    Status { server: kind.name.to_owned(), image: "-".to_owned(), state, url: without_password(server.url()) }
}

fn private_of(kind: &'static ServerKind, name: &str, host: &str, port: u16) -> Server {
    match host {
        container::LOOPBACK => Server::in_container(kind, name.to_owned(), port),
        own => Server::in_place(kind, name.to_owned(), own, port),
    }
}

fn status_of(server: Server, name: String) -> Status {
    let found = inspect(&name);
    let state = match &found {
        None => "not there".to_owned(),
        Some(found) if found.state == "running" && server.await_ready(GLANCE).is_ok() => "running, ready".to_owned(),
        Some(found) => found.state.clone(),
    };
    Status {
        server: name,
        image: found.map_or_else(|| "-".to_owned(), |found| found.image),
        state,
        url: without_password(server.url()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn what_keeps_no_locks_or_is_not_wanted_is_not_started() {
        let asked = RefCell::new(Vec::new());
        let none = |name: &str| {
            asked.borrow_mut().push(name.to_owned());
            false
        };
        assert!(up_with_locks(none).is_empty());
        let asked = asked.into_inner();
        assert!(asked.iter().any(|name| name == "postgres") && asked.iter().all(|name| name != "s3"), "{asked:?}");
    }
}
