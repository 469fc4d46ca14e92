//! The testbed's ZooKeeper, with real containers: shown as ignored, with the reason, where Docker is missing, and failing
//! there under CI.

// A test waits on real time, and says by a panic what it expected.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use testbed::{Cluster, Server, ZooKeeper, ZooKeeperCluster, tests};

const SOON: Duration = Duration::from_secs(30);
/// Of a session that shall outlive the test.
const LONG: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    tests::run(
        tests::private_zookeeper_can_be_had,
        vec![
            ("a_paused_server_is_not_ready_until_unpaused", pause),
            ("a_killed_server_keeps_what_it_acknowledged", kill),
            ("an_ephemeral_node_lives_as_long_as_its_session", ephemeral),
            ("an_abandoned_session_is_over_at_its_time_out", abandoned),
            ("a_session_can_be_expired", expire),
            ("a_session_may_be_short", short_session),
            ("nodes_go_when_they_are_empty_or_their_time_is_over", containers_and_time),
            ("a_setting_outweighs_the_testbeds", settings),
            ("the_super_user_may_do_anything", super_user),
            ("three_servers_share_what_is_written", three),
            ("another_server_leads_when_the_leader_is_killed", leader_killed),
            ("another_server_leads_when_the_leader_is_frozen", leader_frozen),
            ("another_server_leads_when_the_leader_is_cut_off", leader_cut_off),
            ("another_server_leads_when_the_leader_is_isolated", leader_isolated),
        ],
    )
}

/// The last line of the answer.
fn cli(server: &Server, command: &[&str]) -> String {
    let answer = ZooKeeper::of(server).zk_cli(command).unwrap();
    answer.trim().lines().next_back().unwrap_or_default().to_owned()
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
    let server = testbed::zookeeper_private().unwrap();
    server.pause().unwrap();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.unpause().unwrap();
    server.await_ready(SOON).unwrap();
}

fn kill() {
    let server = testbed::zookeeper_private().unwrap();
    assert_eq!(cli(&server, &["create", "/kept", "42"]), "Created /kept");
    server.kill().unwrap();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.start().unwrap();
    server.await_ready(SOON).unwrap();
    assert_eq!(cli(&server, &["get", "/kept"]), "42");
}

fn ephemeral() {
    let server = testbed::zookeeper_private().unwrap();
    let mut session = ZooKeeper::of(&server).session(LONG).unwrap();
    assert_eq!(session.run("create -s -e /node- 42").unwrap(), "Created /node-0000000000\n");
    assert_eq!(session.run("get /node-0000000000").unwrap(), "42\n");
    assert_eq!(session.run("get /another").unwrap(), "Node does not exist: /another\n");
    assert_eq!(cli(&server, &["get", "/node-0000000000"]), "42");
    drop(session);
    assert_eq!(cli(&server, &["get", "/node-0000000000"]), "Node does not exist: /node-0000000000");
}

fn abandoned() {
    let server = testbed::zookeeper_private().unwrap();
    let mut session = ZooKeeper::of(&server).session(Duration::from_secs(3)).unwrap();
    session.run("create -e /node 42").unwrap();
    let began = Instant::now();
    session.abandon();
    assert_eq!(cli(&server, &["get", "/node"]), "42");
    await_answer(&server, &["get", "/node"], "Node does not exist");
    // The time-out runs from the last that was heard of the client, up to a third of it earlier.
    assert!(began.elapsed() > Duration::from_millis(1_800), "{:?}", began.elapsed());
}

fn expire() {
    let server = testbed::zookeeper_private().unwrap();
    let zookeeper = ZooKeeper::of(&server);
    let mut session = zookeeper.session(LONG).unwrap();
    session.run("create -e /node 42").unwrap();
    let node = session.run("stat /node").unwrap();
    let owner = node.lines().find_map(|line| line.strip_prefix("ephemeralOwner = 0x")).unwrap();
    let id = i64::from_str_radix(owner, 16).unwrap();
    zookeeper.expire(id).unwrap();
    assert_eq!(cli(&server, &["get", "/node"]), "Node does not exist: /node");
    let answer = session.run("ls /").unwrap();
    assert!(answer.contains("Session expired for /") || answer.ends_with("Not connected\n"), "{answer}");
    let error = zookeeper.expire(id).unwrap_err().to_string();
    assert!(error.contains("there is no session 0x"), "{error}");
}

fn short_session() {
    let server = testbed::zookeeper().unwrap();
    let answer = ZooKeeper::of(&server).four_letters("conf").unwrap();
    assert!(answer.lines().any(|line| line == "minSessionTimeout=200"), "{answer}");
    for (asked, granted) in [(500, 500), (3_000, 3_000), (90_000, 60_000)] {
        let mut session = ZooKeeper::of(&server).session(Duration::from_millis(asked)).unwrap();
        let path = format!("/testbed-short-{asked}");
        session.run(&format!("create -e {path}")).unwrap();
        let node = session.run(&format!("stat {path}")).unwrap();
        let owner = node.lines().find_map(|line| line.strip_prefix("ephemeralOwner = ")).unwrap();
        let connections = ZooKeeper::of(&server).four_letters("cons").unwrap();
        let ours = connections.lines().find(|line| line.contains(&format!("sid={owner},"))).unwrap();
        assert!(ours.contains(&format!(",to={granted},")), "{ours}");
    }
}

fn containers_and_time() {
    let server = testbed::zookeeper_private().unwrap();
    cli(&server, &["create", "-c", "/container"]);
    cli(&server, &["create", "/container/child"]);
    assert_eq!(cli(&server, &["create", "-t", "500", "/timed"]), "Created /timed");
    await_answer(&server, &["get", "/timed"], "Node does not exist");
    assert_eq!(cli(&server, &["ls", "/container"]), "[child]");
    cli(&server, &["delete", "/container/child"]);
    await_answer(&server, &["ls", "/container"], "Node does not exist");
}

fn settings() {
    let server = testbed::zookeeper_private_with(&["tickTime=1000", "maxSessionTimeout=5000"]).unwrap();
    let answer = ZooKeeper::of(&server).four_letters("conf").unwrap();
    for setting in ["tickTime=1000", "minSessionTimeout=2000", "maxSessionTimeout=5000", "maxClientCnxns=0"] {
        assert!(answer.lines().any(|line| line == setting), "{setting} isn't in {answer}");
    }
}

fn super_user() {
    let server = testbed::zookeeper_private().unwrap();
    let mut owner = ZooKeeper::of(&server).session(LONG).unwrap();
    owner.run("addauth digest somebody:secret").unwrap();
    assert_eq!(owner.run("create /own 42 auth:somebody:cdrwa").unwrap(), "Created /own\n");
    let mut other = ZooKeeper::of(&server).session(LONG).unwrap();
    let refused = other.run("get /own").unwrap();
    assert!(refused.contains("Insufficient permission"), "{refused}");
    other.run("addauth digest super:leasehold").unwrap();
    assert_eq!(other.run("get /own").unwrap(), "42\n");
}

fn three() {
    let server = testbed::zookeeper_three().unwrap();
    let at = |member: usize, command: &str| {
        let (_, port) = server.host_ports()[member].rsplit_once(':').unwrap();
        let script = format!("PORT={port} sh /usr/local/lib/testbed/zkcli.sh 10000 {command}");
        server.exec(&["sh", "-c", &script]).unwrap().trim().lines().next_back().unwrap_or_default().to_owned()
    };
    let created = at(0, "create -s /testbed- 42");
    let node = created.strip_prefix("Created ").unwrap();
    for member in 0..3 {
        at(member, &format!("sync {node}"));
        assert_eq!(at(member, &format!("get {node}")), "42");
    }
    at(0, &format!("delete {node}"));
}

/// An ensemble that has 42, and who leads it.
fn cluster() -> (ZooKeeperCluster, usize) {
    let began = Instant::now();
    let cluster = testbed::zookeeper_cluster().unwrap();
    println!("an ensemble of ZooKeeper starts in {:.1?}", began.elapsed());
    cli(cluster.member(0), &["create", "/kept", "42"]);
    let leader = cluster.await_leader(SOON, |_| true).unwrap();
    (cluster, leader)
}

fn another_leads(cluster: &Cluster, than: usize, fault: &str) {
    let began = Instant::now();
    let leader = cluster.await_leader(SOON, |leader| leader != than).unwrap();
    cluster.member(leader).await_ready(SOON).unwrap();
    println!("another leads {:.1?} after the leader was {fault}", began.elapsed());
    cli(cluster.member(leader), &["set", "/kept", "43"]);
    assert_eq!(cli(cluster.member(leader), &["get", "/kept"]), "43");
}

fn is_whole(cluster: &Cluster) {
    let began = Instant::now();
    cluster.await_all(SOON).unwrap();
    println!("whole again after {:.1?}", began.elapsed());
    cluster.await_leader(SOON, |_| true).unwrap();
    for member in 0..cluster.size() {
        await_answer(cluster.member(member), &["get", "/kept"], "43");
    }
}

fn takes_connections(cluster: &Cluster, member: usize) -> bool {
    let address: SocketAddr = cluster.member(member).host_port().parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

fn await_not_serving(cluster: &Cluster, member: usize) {
    let deadline = Instant::now() + SOON;
    while cluster.member(member).await_ready(Duration::ZERO).is_ok() {
        assert!(Instant::now() < deadline, "it serves still");
        thread::sleep(Duration::from_millis(50));
    }
}

fn leader_killed() {
    let (cluster, old) = cluster();
    cluster.kill(old).unwrap();
    another_leads(&cluster, old, "killed");
    assert!(!takes_connections(&cluster, old));
    cluster.restart(old).unwrap();
    is_whole(&cluster);
}

fn leader_frozen() {
    let (cluster, old) = cluster();
    cluster.freeze(old).unwrap();
    another_leads(&cluster, old, "frozen");
    assert!(takes_connections(&cluster, old), "its machine still does");
    assert!(cluster.member(old).await_ready(Duration::from_millis(400)).is_err());
    cluster.thaw(old).unwrap();
    is_whole(&cluster);
}

fn leader_cut_off() {
    let (cluster, old) = cluster();
    cluster.cut_off(old).unwrap();
    another_leads(&cluster, old, "cut off");
    assert!(takes_connections(&cluster, old));
    await_not_serving(&cluster, old);
    let answer = ZooKeeper::of(cluster.member(old)).four_letters("srvr").unwrap();
    assert!(answer.contains("not currently serving requests"), "clients reach it: {answer}");
    cluster.heal(old).unwrap();
    is_whole(&cluster);
}

fn leader_isolated() {
    let (cluster, old) = cluster();
    cluster.isolate(old).unwrap();
    another_leads(&cluster, old, "isolated");
    assert!(!takes_connections(&cluster, old));
    cluster.heal(old).unwrap();
    is_whole(&cluster);
}
