//! Networks of clusters, in which each member has an address that it keeps.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::Error;
use crate::command::docker;
use crate::container::{LABEL, OWNER, Place};

const LOOKUP: Duration = Duration::from_secs(20);
const ACT: Duration = Duration::from_secs(180);

/// A /16 of private addresses, out of which each network takes a /28.
const FIRST: u32 = Ipv4Addr::new(10, 213, 0, 0).to_bits();
const SIZE: u32 = 16;
const COUNT: u32 = 0x1_0000 / SIZE;
/// How many are tried: others' networks may have some of the addresses.
const TRIES: u32 = 100;

/// A network of Docker's, removed on drop: after the containers in it.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
    first: u32,
}

impl Network {
    /// Creates a network of this process.
    pub(crate) fn create(name: String, kind: &str) -> Result<Self, Error> {
        let process = std::process::id();
        let labels = [format!("--label={LABEL}={kind}"), format!("--label={OWNER}={process}")];
        let mut tries = 0;
        loop {
            // Each process begins at a place of its own.
            let first = FIRST + process.wrapping_mul(67).wrapping_add(tries) % COUNT * SIZE;
            let subnet = format!("--subnet={}/28", Ipv4Addr::from_bits(first));
            match docker(&["network", "create", &labels[0], &labels[1], &subnet, &name], ACT) {
                Ok(_) => return Ok(Self { name, first }),
                Err(Error::Failed { stderr, .. }) if stderr.contains("overlaps") && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The place of a member, counted from 0; there are a dozen.
    pub(crate) fn place(&self, member: u32) -> Place {
        // The first address is the network's, the second the host's.
        Place { network: self.name.clone(), address: Ipv4Addr::from_bits(self.first + 2 + member) }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What stays behind is removed by the next private server or by `down`.
        let _ = docker(&["network", "rm", &self.name], ACT);
    }
}

/// Removes the testbed's networks of which this holds for the process that they belong to.
pub(crate) fn remove_where(condition: impl Fn(&str) -> bool) {
    let filter = format!("label={LABEL}");
    let format = format!("{{{{.Name}}}}\t{{{{.Label \"{OWNER}\"}}}}");
    let lines = docker(&["network", "ls", "--filter", &filter, "--format", &format], LOOKUP).unwrap_or_default();
    for (name, owner) in lines.lines().filter_map(|line| line.split_once('\t')) {
        if condition(owner) {
            let _ = docker(&["network", "rm", name], ACT);
        }
    }
}
