//! PgBouncer in transaction mode, before a PostgreSQL.

use crate::kind::ServerKind;
use crate::postgres::{POSTGRES, probe};

pub(crate) const PGBOUNCER: ServerKind = ServerKind {
    name: "pgbouncer",
    // In the host's network: start.sh reads the port from the environment.
    inner_port: 6432,
    outer_port: 26432,
    env: &[("POSTGRES_USER", "leasehold"), ("POSTGRES_PASSWORD", "leasehold")],
    command: &[],
    options: &[],
    prepare: &[],
    url: POSTGRES.url,
    // It asks for the password itself, whether the server behind it serves or not.
    probe,
    before: Some(&POSTGRES),
};
