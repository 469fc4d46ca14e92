//! The containers: brought up, listed, taken down.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::command::docker;
use crate::kind::{KINDS, ServerKind};
use crate::server::without_password;
use crate::{Error, Missing, PrivateServer, Server, engine, image};

/// On every container of the testbed; its value is the kind of server.
const LABEL: &str = "leasehold.testbed";
/// On shared containers: a fingerprint of what they were started with.
const SPEC: &str = "leasehold.testbed.spec";
/// The port of the server on 127.0.0.1.
const PORT: &str = "leasehold.testbed.port";
/// On private containers: the process they belong to.
const OWNER: &str = "leasehold.testbed.owner";

const LOOKUP: Duration = Duration::from_secs(20);
const ACT: Duration = Duration::from_secs(60);
const READY: Duration = Duration::from_secs(60);
const OUTSIDE_READY: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(500);

/// What was found missing, per kind: a hundred tests shall not each wait for a registry
/// that doesn't answer. Held during an attempt, so that the threads of one process make one.
static FOUND_MISSING: Mutex<BTreeMap<&'static str, Missing>> = Mutex::new(BTreeMap::new());

/// Where a container is on 127.0.0.1, and what it stands before if it does.
#[derive(Debug, Clone, Copy)]
struct Ports {
    own: u16,
    upstream: Option<u16>,
}

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

/// Brings up the shared server of every kind; tells of each whether it is there.
pub fn up() -> Vec<(&'static str, Result<Server, Missing>)> {
    KINDS.iter().map(|kind| (kind.name, shared(kind))).collect()
}

/// Removes every container of the testbed with its data, private ones too; the images stay.
/// The answer is the names of the containers removed.
///
/// # Errors
///
/// What the failed `docker` command said.
pub fn down() -> Result<Vec<String>, Error> {
    let _lock = lock_machine();
    let names: Vec<String> = list(LABEL)?.into_iter().map(|(name, _)| name).collect();
    for name in &names {
        remove(name)?;
    }
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
        rows.push(match kind.given_url() {
            Some(url) => status_outside(kind, url),
            None => {
                engine::ready()?;
                status_of(kind, kind.container(), kind.port()?)
            }
        });
    }
    for (name, kind_name) in list(OWNER).unwrap_or_default() {
        if let Some(kind) = KINDS.iter().find(|kind| kind.name == kind_name) {
            let port = port_of(&name).unwrap_or_default();
            rows.push(status_of(kind, name, port));
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

fn status_of(kind: &'static ServerKind, name: String, port: u16) -> Status {
    let found = inspect(&name);
    let server = Server::in_container(kind, name.clone(), port);
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

/// The shared server of this kind, brought up if it isn't.
pub(crate) fn shared(kind: &'static ServerKind) -> Result<Server, Missing> {
    if let Some(url) = kind.given_url() {
        return remember(kind, || outside(kind, url));
    }
    let ports = Ports { own: kind.port()?, upstream: kind.before.map(|kind| upstream(&shared(kind)?)).transpose()? };
    let image = image::name(kind)?;
    let server = Server::in_container(kind, kind.container(), ports.own);
    // Most calls find it running; they needn't wait for each other.
    let runs = inspect(&kind.container())
        .is_some_and(|found| found.state == "running" && found.spec == spec(kind, &image, ports));
    if !(runs && server.await_ready(GLANCE).is_ok()) {
        remember(kind, || bring_up(kind, &server, &image, ports))?;
    }
    Ok(server)
}

/// A server of this kind for one caller.
pub(crate) fn private(kind: &'static ServerKind) -> Result<PrivateServer, Missing> {
    private_with(kind, None)
}

/// A server of this kind for one caller, before that one.
pub(crate) fn private_before(kind: &'static ServerKind, server: &Server) -> Result<PrivateServer, Missing> {
    private_with(kind, Some(upstream(server)?))
}

fn private_with(kind: &'static ServerKind, upstream: Option<u16>) -> Result<PrivateServer, Missing> {
    if kind.given_url().is_some() {
        // Not remembered: the shared server isn't missing.
        return Err(Missing::new(
            format!("no {} server of the test's own", kind.name),
            format!("unset {} and have Docker running", kind.url_variable()),
        ));
    }
    let image = remember(kind, || {
        engine::ready()?;
        let image = image::name(kind)?;
        let _lock = lock_machine();
        image::provide(kind, &image)?;
        remove_orphans();
        Ok(image)
    })?;
    let server = start_private(kind, &image, upstream)?;
    make_ready(kind, &server)?;
    Ok(server)
}

/// The port by which a server that stands before this one reaches it.
fn upstream(server: &Server) -> Result<u16, Missing> {
    server.port().ok_or_else(|| {
        Missing::new(
            "nothing of the testbed's can stand before a server outside of it",
            "point LEASEHOLD_TEST_PGBOUNCER at a PgBouncer before yours, or unset LEASEHOLD_TEST_POSTGRES",
        )
    })
}

fn remember<T>(kind: &'static ServerKind, attempt: impl FnOnce() -> Result<T, Missing>) -> Result<T, Missing> {
    let mut found_missing = FOUND_MISSING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(missing) = found_missing.get(kind.name) {
        return Err(missing.clone());
    }
    attempt().inspect_err(|missing| {
        found_missing.insert(kind.name, missing.clone());
    })
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

fn bring_up(kind: &'static ServerKind, server: &Server, image: &str, ports: Ports) -> Result<(), Missing> {
    engine::ready()?;
    let _lock = lock_machine();
    image::provide(kind, image)?;
    let name = kind.container();
    let spec = spec(kind, image, ports);
    // Asked again under the lock: another process may have been quicker.
    let done = match inspect(&name) {
        Some(found) if found.spec == spec => match found.state.as_str() {
            "running" => Ok(()),
            "paused" => server.unpause(),
            _ => server.start(),
        },
        Some(_) => remove(&name).and_then(|()| create(kind, &name, image, ports, (SPEC, &spec))),
        None => create(kind, &name, image, ports, (SPEC, &spec)),
    };
    done.map_err(|error| not_started(kind, &error))?;
    make_ready(kind, server)
}

fn make_ready(kind: &ServerKind, server: &Server) -> Result<(), Missing> {
    server
        .await_ready(READY)
        .and_then(|()| kind.prepare.iter().try_for_each(|command| server.exec(command).map(drop)))
        .map_err(|error| not_started(kind, &error))
}

fn not_started(kind: &ServerKind, error: &Error) -> Missing {
    let what = format!("the {} container doesn't start ({})", kind.name, error.last_line());
    if what.contains("port is already allocated") || what.contains("address already in use") {
        return Missing::new(what, format!("set {}_PORT to a free port", kind.url_variable()));
    }
    Missing::new(what, "try cargo xtask testbed down, then up")
}

fn start_private(kind: &'static ServerKind, image: &str, upstream: Option<u16>) -> Result<PrivateServer, Missing> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let owner = std::process::id().to_string();
    // A free port can be taken between our look and Docker's, so more than once.
    let mut last = None;
    for _ in 0..3 {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{owner}-{count}", kind.container());
        // Chosen here and not by Docker, which would choose anew at each start.
        let started = free_port().and_then(|port| {
            create(kind, &name, image, Ports { own: port, upstream }, (OWNER, &owner))?;
            Ok(PrivateServer(Server::in_container(kind, name, port)))
        });
        match started {
            Ok(server) => return Ok(server),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| Missing::new("no server was tried", "try again"), |error| not_started(kind, &error)))
}

fn free_port() -> Result<u16, Error> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| Error::NotRun { command: "bind 127.0.0.1:0".to_owned(), source })
}

/// Creates and starts a container; leaves none behind when it doesn't start.
fn create(kind: &ServerKind, name: &str, image: &str, ports: Ports, label: (&str, &str)) -> Result<(), Error> {
    let mut args: Vec<String> = ["run", "--detach", "--name", name].map(String::from).into();
    args.push(format!("--label={LABEL}={}", kind.name));
    args.push(format!("--label={}={}", label.0, label.1));
    args.push(format!("--label={PORT}={}", ports.own));
    match ports.upstream {
        None => args.push(format!("--publish=127.0.0.1:{}:{}", ports.own, kind.inner_port)),
        Some(upstream) => args.extend([
            "--network=host".to_owned(),
            format!("--env=PORT={}", ports.own),
            format!("--env=UPSTREAM_PORT={upstream}"),
        ]),
    }
    args.extend(kind.env.iter().map(|(key, value)| format!("--env={key}={value}")));
    args.extend(kind.options.iter().map(|option| (*option).to_owned()));
    args.push(image.to_owned());
    args.extend(kind.command.iter().map(|word| (*word).to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    docker(&args, ACT).map(drop).inspect_err(|_| {
        // The error that matters is the first one.
        let _ = remove(name);
    })
}

fn remove(name: &str) -> Result<(), Error> {
    docker(&["rm", "--force", "--volumes", name], ACT).map(drop)
}

/// Removes private containers whose process is gone.
fn remove_orphans() {
    let format = format!("{{{{.Names}}}} {{{{.Label \"{OWNER}\"}}}}");
    let filter = format!("label={OWNER}");
    let list = docker(&["ps", "--all", "--filter", &filter, "--format", &format], LOOKUP);
    // Without /proc nobody can be told to be gone.
    if !Path::new("/proc/self").exists() {
        return;
    }
    for line in list.unwrap_or_default().lines() {
        if let Some((name, owner)) = line.split_once(' ')
            && !Path::new("/proc").join(owner).exists()
        {
            let _ = remove(name);
        }
    }
}

/// Name and kind of the containers that carry a label.
fn list(label: &str) -> Result<Vec<(String, String)>, Error> {
    let filter = format!("label={label}");
    let format = format!("{{{{.Names}}}} {{{{.Label \"{LABEL}\"}}}}");
    let lines = docker(&["ps", "--all", "--filter", &filter, "--format", &format], LOOKUP)?;
    Ok(lines
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect())
}

#[derive(Debug)]
struct Found {
    state: String,
    image: String,
    spec: String,
}

/// The container of this name, if there is one and Docker answers.
fn inspect(name: &str) -> Option<Found> {
    let format = format!("{{{{.State.Status}}}}\t{{{{.Config.Image}}}}\t{{{{index .Config.Labels \"{SPEC}\"}}}}");
    let line = docker(&["container", "inspect", "--format", &format, name], LOOKUP).ok()?;
    let mut parts = line.trim_end_matches('\n').split('\t').map(str::to_owned);
    Some(Found { state: parts.next()?, image: parts.next()?, spec: parts.next()? })
}

fn port_of(name: &str) -> Option<u16> {
    let format = format!("--format={{{{index .Config.Labels \"{PORT}\"}}}}");
    docker(&["inspect", &format, name], LOOKUP).ok()?.trim().parse().ok()
}

/// A fingerprint of all that a shared container is started with: when it changes, the
/// container is made anew.
fn spec(kind: &ServerKind, image: &str, ports: Ports) -> String {
    let upstream = ports.upstream.map(|port| format!(" before {port}")).unwrap_or_default();
    let text = format!("{image} {} {:?} {:?} {:?}{upstream}", ports.own, kind.env, kind.command, kind.options);
    format!("{:016x}", image::fingerprint(text.as_bytes()))
}

/// Lets one process of the machine at a time make images and containers, until dropped.
///
/// In the directory for temporary files and not in a target directory, because container
/// names belong to the machine as well. Where there can be no lock, a race is the lesser evil.
fn lock_machine() -> Option<File> {
    let path = std::env::temp_dir().join("leasehold-testbed.lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .or_else(|error| match error.kind() {
            // Another user's file: a lock needs no right to write.
            io::ErrorKind::PermissionDenied => File::open(&path),
            _ => Err(error),
        })
        .ok()?;
    file.lock().ok()?;
    Some(file)
}
