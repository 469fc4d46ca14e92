//! PgBouncer in transaction mode, before a PostgreSQL.

use crate::image::{Given, ImageKind};
use crate::kind::{Network, ServerKind};
use crate::postgres::{POSTGRES, probe, url};

const LOGIN: &[(&str, &str)] = &[("POSTGRES_USER", "leasehold"), ("POSTGRES_PASSWORD", "leasehold")];

static IMAGE: ImageKind = ImageKind { name: "pgbouncer", arguments: LOGIN, given: Given::Runs, fetch: None };

pub(crate) static PGBOUNCER: ServerKind = ServerKind {
    name: "pgbouncer",
    image: &IMAGE,
    inner_port: 6432,
    outer_port: Some(26432),
    ports: 1,
    members: 1,
    keeps_locks: true,
    network: Network::Host,
    env: LOGIN,
    command: &[],
    clocked: None,
    options: &[],
    prepare: &[],
    url,
    // It asks for the password itself, whether the server behind it serves or not.
    probe,
    before: Some(&POSTGRES),
};
