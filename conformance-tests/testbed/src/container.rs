//! Containers as Docker has them: created, found, removed.

use std::path::Path;
use std::time::Duration;

use crate::command::docker;
use crate::kind::{Network, ServerKind};
use crate::{Error, image};

/// On every container of the testbed; its value is the kind of server.
pub(crate) const LABEL: &str = "leasehold.testbed";
/// On shared containers: a fingerprint of what they were started with.
const SPEC: &str = "leasehold.testbed.spec";
/// The first port of the server on 127.0.0.1.
const PORT: &str = "leasehold.testbed.port";
/// On private containers: the process they belong to.
pub(crate) const OWNER: &str = "leasehold.testbed.owner";

const LOOKUP: Duration = Duration::from_secs(20);
const ACT: Duration = Duration::from_secs(60);

/// What a container is started with beyond what all of its kind are.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The first of its ports on 127.0.0.1.
    pub(crate) port: u16,
    /// The port of the server that it stands before, if it does.
    pub(crate) upstream: Option<u16>,
    /// Follow the kind's command.
    pub(crate) arguments: Vec<String>,
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
    }
    args.extend(settings.upstream.map(|port| format!("--env=UPSTREAM_PORT={port}")));
    args.extend(kind.env.iter().map(|(key, value)| format!("--env={key}={value}")));
    args.extend(kind.options.iter().map(|option| (*option).to_owned()));
    args.push(image.to_owned());
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
    pub(crate) port: Option<u16>,
    /// The process it belongs to, unless it is shared.
    pub(crate) owner: Option<String>,
}

/// The containers of the testbed, running or not.
pub(crate) fn list() -> Result<Vec<Listed>, Error> {
    let filter = format!("label={LABEL}");
    let format =
        format!("{{{{.Names}}}}\t{{{{.Label \"{LABEL}\"}}}}\t{{{{.Label \"{PORT}\"}}}}\t{{{{.Label \"{OWNER}\"}}}}");
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
    })
}

/// Removes private containers whose process is gone.
pub(crate) fn remove_orphans() {
    // Without /proc nobody can be told to be gone.
    if !Path::new("/proc/self").exists() {
        return;
    }
    for listed in list().unwrap_or_default() {
        if listed.owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            let _ = remove(&listed.name);
        }
    }
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
        let listed = listed("leasehold-testbed-redis\tredis\t25379\t").map(|it| (it.name, it.kind, it.port, it.owner));
        assert_eq!(listed, Some(("leasehold-testbed-redis".to_owned(), "redis".to_owned(), Some(25379), None)));
    }
}
