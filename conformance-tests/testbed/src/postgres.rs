//! PostgreSQL.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::image::{Given, ImageKind};
use crate::kind::{Network, ServerKind};

/// The variables of the official image; ours is built with the same.
pub(crate) const LOGIN: &[(&str, &str)] =
    &[("POSTGRES_USER", "leasehold"), ("POSTGRES_PASSWORD", "leasehold"), ("POSTGRES_DB", "leasehold")];

static IMAGE: ImageKind = ImageKind { name: "postgres", arguments: LOGIN, given: Given::Runs, fetch: None };

pub(crate) static POSTGRES: ServerKind = ServerKind {
    name: "postgres",
    image: &IMAGE,
    inner_port: 5432,
    outer_port: Some(25432),
    ports: 1,
    members: 1,
    keeps_locks: true,
    network: Network::Published,
    env: LOGIN,
    command: &[
        "postgres",
        "-c",
        "listen_addresses=*",
        "-c",
        "max_connections=200",
        // Lets tests count the statements the server has seen.
        "-c",
        "shared_preload_libraries=pg_stat_statements",
        // The default, said because durable grants are what is under test.
        "-c",
        "fsync=on",
    ],
    clocked: Some(&["env", "LD_PRELOAD=/usr/local/lib/testbed/faketime.so"]),
    options: &["--shm-size=256m"],
    prepare: &[&[
        "psql",
        "--username=leasehold",
        "--dbname=leasehold",
        "--set=ON_ERROR_STOP=1",
        "--command=create extension if not exists pg_stat_statements",
    ]],
    url,
    probe,
    before: None,
};

pub(crate) fn url(address: &str) -> String {
    format!("postgres://leasehold:leasehold@{address}/leasehold")
}

/// SQLSTATE of a server that is starting up, shutting down or recovering.
const CANNOT_CONNECT_NOW: &[u8] = b"57P03";

/// Sends a startup packet, to which a server that serves answers with a request for a
/// password. Connecting alone proves nothing: Docker accepts connections to a published
/// port before anybody listens behind it.
pub(crate) fn probe(address: SocketAddr, limit: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(&startup_packet())?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer)?;
    judge(&answer[..length])
}

/// Length, protocol version 3.0, then names and values that end in NUL.
fn startup_packet() -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    body.extend(b"user\0leasehold\0database\0leasehold\0\0");
    let length = body.len() as u32 + 4;
    [length.to_be_bytes().to_vec(), body].concat()
}

fn judge(answer: &[u8]) -> io::Result<()> {
    match answer.first() {
        Some(b'R') => Ok(()),
        Some(b'E') if contains(answer, CANNOT_CONNECT_NOW) => {
            Err(io::Error::other("the server is starting up or shutting down"))
        }
        // It refuses *us*, say for want of TLS: it serves.
        Some(b'E') => Ok(()),
        Some(_) => Err(io::Error::other("what answers there isn't PostgreSQL")),
        None => Err(io::Error::other("the connection was closed unanswered")),
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_asks_for_a_password_serves() {
        assert!(judge(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0").is_ok());
    }

    #[test]
    fn a_server_that_starts_up_does_not_serve_yet() {
        let answer = b"E\0\0\0\x40SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        assert!(judge(answer).is_err());
    }

    #[test]
    fn a_server_that_refuses_the_user_serves() {
        assert!(judge(b"E\0\0\0\x40SFATAL\0VFATAL\0C28000\0Mno entry\0\0").is_ok());
    }

    #[test]
    fn silence_and_strangers_are_not_ready() {
        assert!(judge(b"").is_err());
        assert!(judge(b"HTTP/1.1 400").is_err());
    }

    #[test]
    fn the_startup_packet_counts_its_own_length() {
        let packet = startup_packet();
        assert_eq!(&packet[..4], (packet.len() as u32).to_be_bytes());
    }
}
