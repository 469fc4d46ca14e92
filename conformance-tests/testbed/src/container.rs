//! Containers as Docker has them: created, found, removed.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::clocks::{self, Clocks};
use crate::command::docker;
use crate::kind::{Network, ServerKind};
use crate::{Error, image, network};

/// On every container of the testbed; its value is the kind of server.
pub(crate) const LABEL: &str = "leasehold.testbed";
/// On shared containers: a fingerprint of what they were started with.
const SPEC: &str = "leasehold.testbed.spec";
/// Where the server listens, unless that is 127.0.0.1.
const HOST: &str = "leasehold.testbed.host";
/// The first port of the server there.
const PORT: &str = "leasehold.testbed.port";
/// On private containers: the process they belong to.
pub(crate) const OWNER: &str = "leasehold.testbed.owner";

const LOOKUP: Duration = Duration::from_secs(20);
const ACT: Duration = Duration::from_secs(180);

/// What a container is started with beyond what all of its kind are.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The first of its ports, on 127.0.0.1 unless it has a place of its own.
    pub(crate) port: u16,
    /// Where it is, of a kind that has a place of its own.
    pub(crate) place: Option<Place>,
    /// The port of the server that it stands before, if it does.
    pub(crate) upstream: Option<u16>,
    /// Its wall clocks, where they are to be set.
    pub(crate) clocks: Option<Clocks>,
    /// Follow the kind's command.
    pub(crate) arguments: Vec<String>,
}

/// An address in a network of Docker's.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) network: String,
    pub(crate) address: Ipv4Addr,
}

/// Whose a container is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whose {
    Everybodys,
    OfProcess(u32),
}

/// Creates and starts a container; leaves none behind when it doesn't start.
pub(crate) fn create(
    kind: &ServerKind,
    name: &str,
    image: &str,
    settings: &Settings,
    whose: Whose,
) -> Result<(), Error> {
    let mut args: Vec<String> = ["run", "--detach", "--name", name].map(String::from).into();
    args.push(format!("--label={LABEL}={}", kind.name));
    args.push(match whose {
        Whose::Everybodys => format!("--label={SPEC}={}", spec(kind, image, settings)),
        Whose::OfProcess(id) => format!("--label={OWNER}={id}"),
    });
    args.push(format!("--label={PORT}={}", settings.port));
    match kind.network {
        Network::Published => args.push(format!("--publish=127.0.0.1:{}:{}", settings.port, kind.inner_port)),
        Network::Host => args.extend(["--network=host".to_owned(), format!("--env=PORT={}", settings.port)]),
        // To be cut off needs the right to.
        Network::Own => args.push("--cap-add=NET_ADMIN".to_owned()),
    }
    if let Some(Place { network, address }) = &settings.place {
        args.extend([format!("--network={network}"), format!("--ip={address}"), format!("--label={HOST}={address}")]);
    }
    args.extend(settings.upstream.map(|port| format!("--env=UPSTREAM_PORT={port}")));
    args.extend(kind.env.iter().map(|(key, value)| format!("--env={key}={value}")));
    args.extend(kind.options.iter().map(|option| (*option).to_owned()));
    args.extend(settings.clocks.as_ref().map(Clocks::options).unwrap_or_default());
    args.push(image.to_owned());
    let before = settings.clocks.as_ref().and(kind.clocked).unwrap_or_default();
    args.extend(before.iter().map(|word| (*word).to_owned()));
    args.extend(kind.command.iter().map(|word| (*word).to_owned()));
    args.extend(settings.arguments.iter().cloned());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    docker(&args, ACT).map(drop).inspect_err(|_| {
        // The error that matters is the first one.
        let _ = remove(name);
    })
}

pub(crate) fn remove(name: &str) -> Result<(), Error> {
    docker(&["rm", "--force", "--volumes", name], ACT).map(drop)
}

/// A container of the testbed.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// The name of its kind, which need not be one of ours: another version of the testbed may have made it.
    pub(crate) kind: String,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// The process it belongs to, unless it is shared.
    pub(crate) owner: Option<String>,
}

/// Where servers listen that have no place of their own.
pub(crate) const LOOPBACK: &str = "127.0.0.1";

/// The containers of the testbed, running or not.
pub(crate) fn list() -> Result<Vec<Listed>, Error> {
    let filter = format!("label={LABEL}");
    let labels = [LABEL, PORT, OWNER, HOST].map(|label| format!("\t{{{{.Label \"{label}\"}}}}")).concat();
    let format = format!("{{{{.Names}}}}{labels}");
    let lines = docker(&["ps", "--all", "--filter", &filter, "--format", &format], LOOKUP)?;
    Ok(lines.lines().filter_map(listed).collect())
}

fn listed(line: &str) -> Option<Listed> {
    let mut parts = line.split('\t');
    Some(Listed {
        name: parts.next()?.to_owned(),
        kind: parts.next()?.to_owned(),
        port: parts.next()?.parse().ok(),
        owner: parts.next().filter(|owner| !owner.is_empty()).map(str::to_owned),
        host: parts.next().filter(|host| !host.is_empty()).unwrap_or(LOOPBACK).to_owned(),
    })
}

/// Removes private containers, and networks, whose process is gone.
pub(crate) fn remove_orphans() {
    for listed in list().unwrap_or_default() {
        if listed.owner.is_some_and(|owner| is_gone(&owner)) {
            let _ = remove(&listed.name);
            clocks::remove_of(&listed.name);
        }
    }
    network::remove_where(is_gone);
}

/// Whether a process has ended. Without /proc nobody can be told to be gone.
fn is_gone(process: &str) -> bool {
    Path::new("/proc/self").exists() && !Path::new("/proc").join(process).exists()
}

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) state: String,
    pub(crate) image: String,
    pub(crate) spec: String,
}

/// The container of this name, if there is one and Docker answers.
pub(crate) fn inspect(name: &str) -> Option<Found> {
    let format = format!("{{{{.State.Status}}}}\t{{{{.Config.Image}}}}\t{{{{index .Config.Labels \"{SPEC}\"}}}}");
    let line = docker(&["container", "inspect", "--format", &format, name], LOOKUP).ok()?;
    let mut parts = line.trim_end_matches('\n').split('\t').map(str::to_owned);
    Some(Found { state: parts.next()?, image: parts.next()?, spec: parts.next()? })
}

/// A fingerprint of all that a shared container is started with: when it changes, the
/// container is made anew.
pub(crate) fn spec(kind: &ServerKind, image: &str, settings: &Settings) -> String {
    let upstream = settings.upstream.map(|port| format!(" before {port}")).unwrap_or_default();
    let text = format!("{image} {} {:?} {:?} {:?}{upstream}", settings.port, kind.env, kind.command, kind.options);
    format!("{:016x}", image::fingerprint(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_container_has_no_owner() {
        let listed =
            listed("leasehold-testbed-redis\tredis\t25379\t\t").map(|it| (it.name, it.kind, it.port, it.owner));
        assert_eq!(listed, Some(("leasehold-testbed-redis".to_owned(), "redis".to_owned(), Some(25379), None)));
    }
}
