//! The servers that the machine's tests share, and what was found missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::container::{self, Settings, Whose};
use crate::kind::ServerKind;
use crate::{Error, Missing, Server, engine, lock};

pub(crate) const READY: Duration = Duration::from_secs(60);
pub(crate) const GLANCE: Duration = Duration::from_millis(500);
const OUTSIDE_READY: Duration = Duration::from_secs(10);

/// What was found missing, per kind: a hundred tests shall not each wait for a registry
/// that doesn't answer. Each is held during an attempt, so that the threads of one process make one.
static FOUND_MISSING: Mutex<BTreeMap<&'static str, Arc<Mutex<Option<Missing>>>>> = Mutex::new(BTreeMap::new());

/// The shared server of this kind, brought up if it isn't.
pub(crate) fn shared(kind: &'static ServerKind) -> Result<Server, Missing> {
    if let Some(url) = kind.given_url() {
        return remember(kind, || outside(kind, url));
    }
    let port = kind
        .shared_port()?
        .ok_or_else(|| Missing::new(format!("no {} server is shared", kind.name), "start one for the test alone"))?;
    let upstream = kind.before.map(|before| upstream(kind, &shared(before)?)).transpose()?;
    let settings = Settings { port, upstream, ..Settings::default() };
    let image = kind.image.name()?;
    let server = Server::in_container(kind, kind.container(), port);
    // Most calls find it running; they needn't wait for each other.
    let runs = container::inspect(&kind.container())
        .is_some_and(|found| found.state == "running" && found.spec == container::spec(kind, &image, &settings));
    if !(runs && server.await_ready(GLANCE).is_ok()) {
        remember(kind, || bring_up(kind, &server, &image, &settings))?;
    }
    Ok(server)
}

/// The port by which a server of this kind, before that one, reaches it.
pub(crate) fn upstream(kind: &ServerKind, server: &Server) -> Result<u16, Missing> {
    server.port().ok_or_else(|| {
        let outside = server.kind().url_variable();
        Missing::new(
            format!("no {} of the testbed's can reach a server outside of it", kind.name),
            format!("point {} at one that does, or unset {outside}", kind.url_variable()),
        )
    })
}

/// Makes an attempt, unless one of this kind has failed before.
pub(crate) fn remember<T>(
    kind: &'static ServerKind,
    attempt: impl FnOnce() -> Result<T, Missing>,
) -> Result<T, Missing> {
    let found = {
        let mut all = FOUND_MISSING.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(kind.name).or_default())
    };
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(missing) = found.as_ref() {
        return Err(missing.clone());
    }
    attempt().inspect_err(|missing| *found = Some(missing.clone()))
}

fn outside(kind: &'static ServerKind, url: String) -> Result<Server, Missing> {
    let server = Server::outside(kind, url);
    match server.await_ready(OUTSIDE_READY) {
        Ok(()) => Ok(server),
        Err(error) => Err(Missing::new(
            error.to_string(),
            format!("start it, or unset {} to use a container", kind.url_variable()),
        )),
    }
}

fn bring_up(kind: &'static ServerKind, server: &Server, image: &str, settings: &Settings) -> Result<(), Missing> {
    engine::ready()?;
    kind.image.provide(image)?;
    let _lock = lock::machine(kind.name);
    let name = kind.container();
    let make = || container::create(kind, &name, image, settings, Whose::Everybodys);
    // Asked again under the lock: another process may have been quicker.
    let done = match container::inspect(&name) {
        Some(found) if found.spec == container::spec(kind, image, settings) => match found.state.as_str() {
            "running" => Ok(()),
            "paused" => server.unpause(),
            _ => server.start(),
        },
        Some(_) => container::remove(&name).and_then(|()| make()),
        None => make(),
    };
    done.and_then(|()| make_ready(server)).map_err(|error| not_started(kind, &error))
}

/// Waits for a server that was started, and prepares it.
pub(crate) fn make_ready(server: &Server) -> Result<(), Error> {
    server.await_start(READY)?;
    server.kind().prepare.iter().try_for_each(|command| server.exec(command).map(drop))
}

pub(crate) fn not_started(kind: &ServerKind, error: &Error) -> Missing {
    let what = format!("the {} container doesn't start ({})", kind.name, error.last_line());
    if is_taken_port(error) {
        return Missing::new(what, format!("set {}_PORT to a free port", kind.url_variable()));
    }
    Missing::new(what, "try cargo xtask testbed down, then up")
}

/// Whether somebody else listens on the port: said by Docker of a published one, by the server of one of the host's.
fn is_taken_port(error: &Error) -> bool {
    let text = error.to_string().to_lowercase();
    text.contains("port is already allocated") || text.contains("address already in use")
}
