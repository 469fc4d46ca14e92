//! The testbed's Redis, with real containers: shown as ignored, with the reason, where Docker is missing, and failing
//! there under CI.

// A test waits on real time, and says by a panic what it expected.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use testbed::{Server, tests};

const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    tests::run(
        tests::private_redis_can_be_had,
        vec![
            ("a_paused_server_is_not_ready_until_unpaused", pause),
            ("a_killed_server_keeps_what_it_acknowledged", kill),
            ("every_write_is_durable_unless_the_test_says_otherwise", settings),
            ("a_wrong_password_is_refused", wrong_password),
            ("a_replica_follows_and_takes_no_writes", replica),
            ("a_sentinel_promotes_the_replica_for_good", sentinel),
            ("a_killed_node_comes_back_into_its_cluster", cluster),
        ],
    )
}

fn port(server: &Server) -> &str {
    server.host_port().rsplit_once(':').unwrap().1
}

fn cli(server: &Server, command: &[&str]) -> String {
    let answer = server.exec(&[&["redis-cli", "-c", "-p", port(server)], command].concat()).unwrap();
    answer.trim().to_owned()
}

/// Asks until the answer has this in it.
fn await_answer(server: &Server, command: &[&str], part: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let answer = cli(server, command);
        if answer.contains(part) {
            return;
        }
        assert!(Instant::now() < deadline, "{command:?} never answered {part:?}, last {answer:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn pause() {
    let server = testbed::redis_private().unwrap();
    server.pause().unwrap();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.unpause().unwrap();
    server.await_ready(SOON).unwrap();
}

fn kill() {
    let server = testbed::redis_private().unwrap();
    assert_eq!(cli(&server, &["set", "kept", "42"]), "OK");
    server.kill().unwrap();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.start().unwrap();
    server.await_ready(SOON).unwrap();
    assert_eq!(cli(&server, &["get", "kept"]), "42");
}

fn settings() {
    let setting = |server: &Server, name| cli(server, &["config", "get", name]);
    let server = testbed::redis_private().unwrap();
    assert_eq!(setting(&server, "appendonly"), "appendonly\nyes");
    assert_eq!(setting(&server, "appendfsync"), "appendfsync\nalways");
    assert_eq!(setting(&server, "maxmemory-policy"), "maxmemory-policy\nnoeviction");
    let server = testbed::redis_private_with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]).unwrap();
    assert_eq!(setting(&server, "appendonly"), "appendonly\nno");
    assert_eq!(setting(&server, "maxmemory-policy"), "maxmemory-policy\nallkeys-lru");
}

fn wrong_password() {
    let server = testbed::redis().unwrap();
    assert!(server.url().starts_with("redis://:leasehold@127.0.0.1:"), "{}", server.url());
    assert_eq!(cli(&server, &["ping"]), "PONG");
    let answer = server.exec(&["redis-cli", "-p", port(&server), "-a", "wrong", "ping"]).unwrap();
    assert!(answer.contains("NOAUTH"), "{answer}");
}

fn replica() {
    let primary = testbed::redis_private().unwrap();
    cli(&primary, &["set", "kept", "42"]);
    let replica = testbed::redis_replica_of(&primary).unwrap();
    // With -c, redis-cli would follow no redirection here: a replica outside of a cluster refuses.
    assert_eq!(cli(&replica, &["get", "kept"]), "42");
    assert!(cli(&replica, &["set", "kept", "43"]).starts_with("READONLY"));
    replica.kill().unwrap();
    cli(&primary, &["set", "kept", "44"]);
    replica.start().unwrap();
    replica.await_ready(SOON).unwrap();
    await_answer(&replica, &["get", "kept"], "44");
}

fn sentinel() {
    let primary = testbed::redis_private().unwrap();
    let replica = testbed::redis_replica_of(&primary).unwrap();
    let sentinel = testbed::redis_sentinel_of(&primary).unwrap();
    let asked = ["sentinel", "get-master-addr-by-name", "leasehold"];
    assert_eq!(cli(&sentinel, &asked), format!("127.0.0.1\n{}", port(&primary)));

    primary.kill().unwrap();
    await_answer(&sentinel, &asked, port(&replica));
    await_answer(&replica, &["role"], "master");
    replica.kill().unwrap();
    replica.start().unwrap();
    replica.await_ready(SOON).unwrap();
    assert!(cli(&replica, &["role"]).starts_with("master"));

    primary.start().unwrap();
    primary.await_ready(SOON).unwrap();
    await_answer(&primary, &["role"], "slave");
}

fn cluster() {
    let cluster = testbed::redis_cluster().unwrap();
    assert_eq!(cluster.len(), 3);
    assert_eq!(cluster.url(), cluster[0].url());
    // By CRC16 these three fall to the three nodes.
    let keys = ["bar", "c", "foo"];
    for key in keys {
        assert_eq!(cli(&cluster[0], &["set", key, "42"]), "OK");
    }
    let sizes: Vec<String> = cluster.iter().map(|node| cli(node, &["dbsize"])).collect();
    assert_eq!(sizes, ["1", "1", "1"]);

    cluster[1].kill().unwrap();
    await_answer(&cluster[0], &["cluster", "info"], "cluster_state:fail");
    cluster[1].start().unwrap();
    cluster[1].await_ready(SOON).unwrap();
    await_answer(&cluster[0], &["cluster", "info"], "cluster_state:ok");
    for key in keys {
        await_answer(&cluster[2], &["get", key], "42");
    }
}
