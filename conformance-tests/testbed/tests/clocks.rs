//! Servers of the testbed whose wall clocks are set, with real containers: shown as ignored, with the reason, where Docker is
//! missing, and failing there under CI.

// A test waits on real time, and says by a panic what it expected.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testbed::{Server, tests};

const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    tests::run(
        testbed::redis_private_clocked,
        vec![
            ("the_clock_of_postgres_moves", postgres),
            ("the_clock_of_redis_moves", redis),
            ("the_clock_of_a_replica_of_redis_moves_by_itself", replica),
            ("the_clock_of_each_member_of_mongo_moves", mongo),
            ("a_server_that_is_paused_or_killed_goes_on_by_the_clock_that_was_set", down),
            ("another_server_has_no_clock_to_set", none),
        ],
    )
}

/// Seconds to an hour, forward and back, and parts of one.
const AHEAD: [i64; 5] = [475_000, -475_000, 3_600_000_000, -3_600_250_000, 0];

/// Asks for a server's own time, in microseconds since the epoch: it must be so far ahead of the machine's.
fn assert_ahead(ahead: i64, ask: impl Fn() -> i64) {
    let (before, told, after) = (machine(), ask(), machine());
    // Some tell whole milliseconds.
    assert!(
        (before + ahead - 1_000..=after + ahead).contains(&told),
        "{told} is not {ahead} ahead of {before} to {after}"
    );
}

fn machine() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros().try_into().unwrap()
}

fn assert_moves(server: &Server, member: usize, ask: impl Fn() -> i64) {
    assert_ahead(0, &ask);
    for ahead in AHEAD {
        server.set_clock(member, ahead).unwrap();
        assert_ahead(ahead, &ask);
    }
}

fn postgres() {
    let server = testbed::postgres_private_clocked().unwrap();
    let query = "--command=select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
    let psql = ["psql", "--username=leasehold", "--dbname=leasehold", "--no-align", "--tuples-only", query];
    assert_moves(&server, 0, || server.exec(&psql).unwrap().trim().parse().unwrap());
}

fn time_of_redis(server: &Server) -> i64 {
    let port = server.host_port().rsplit_once(':').unwrap().1;
    let told = server.exec(&["redis-cli", "-p", port, "time"]).unwrap();
    let mut numbers = told.lines().map(|line| line.trim().parse::<i64>().unwrap());
    numbers.next().unwrap() * 1_000_000 + numbers.next().unwrap()
}

fn redis() {
    let server = testbed::redis_private_clocked().unwrap();
    assert_moves(&server, 0, || time_of_redis(&server));
}

fn replica() {
    let primary = testbed::redis_private_clocked().unwrap();
    let replica = testbed::redis_replica_of(&primary).unwrap();
    assert_moves(&replica, 0, || time_of_redis(&replica));
    replica.set_clock(0, -1_000_000).unwrap();
    assert_ahead(0, || time_of_redis(&primary));
}

fn mongo() {
    let server = testbed::mongo_private_clocked().unwrap();
    assert_eq!(server.clocks(), 3);
    let ask = |member: usize| {
        let url = format!("mongodb://{}/?directConnection=true", server.host_ports()[member]);
        let told = server.exec(&["python3", "-c", include_str!("mongo_client.py"), &url, "time"]).unwrap();
        told.trim().parse().unwrap()
    };
    for (member, ahead) in [(0, 475_000), (1, -475_000), (2, 3_600_000_000)] {
        server.set_clock(member, ahead).unwrap();
    }
    for (member, ahead) in [(0, 475_000), (1, -475_000), (2, 3_600_000_000)] {
        assert_ahead(ahead, || ask(member));
    }
    assert!(server.set_clock(3, 0).is_err(), "there is no such member");
}

fn down() {
    let server = testbed::redis_private_clocked().unwrap();
    server.pause().unwrap();
    server.set_clock(0, 7_000_000).unwrap();
    server.unpause().unwrap();
    assert_ahead(7_000_000, || time_of_redis(&server));
    server.kill().unwrap();
    server.set_clock(0, -7_000_000).unwrap();
    server.start().unwrap();
    server.await_ready(SOON).unwrap();
    assert_ahead(-7_000_000, || time_of_redis(&server));
}

fn none() {
    let server = testbed::redis_private().unwrap();
    assert_eq!(server.clocks(), 0);
    let error = server.set_clock(0, 1).unwrap_err().to_string();
    assert!(error.contains("no such clock that can be set"), "{error}");
    assert_ahead(0, || time_of_redis(&server));
}
