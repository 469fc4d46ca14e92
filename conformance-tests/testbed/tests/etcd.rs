//! The testbed's etcd, with real containers: shown as ignored, with the reason, where Docker is missing, and failing
//! there under CI.

// A test waits on real time, and says by a panic what it expected.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use testbed::{Cluster, Etcd, EtcdCluster, Server, tests};

const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    tests::run(
        tests::private_etcd_can_be_had,
        vec![
            ("a_paused_server_is_not_ready_until_unpaused", pause),
            ("a_killed_server_keeps_what_it_acknowledged", kill),
            ("a_lease_can_be_as_short_as_a_second", short_lease),
            ("a_setting_outweighs_the_testbeds", settings),
            ("what_was_compacted_cannot_be_read", compact),
            ("a_user_may_do_what_its_role_says", auth),
            ("authentication_stays_on_over_a_restart", auth_restart),
            ("three_members_share_what_is_written", three),
            ("another_member_leads_when_the_leader_is_killed", leader_killed),
            ("another_member_leads_when_the_leader_is_frozen", leader_frozen),
            ("another_member_leads_when_the_leader_is_cut_off", leader_cut_off),
            ("another_member_leads_when_the_leader_is_isolated", leader_isolated),
            ("a_cut_follower_is_not_needed", follower_cut_off),
            ("a_cluster_is_compacted_and_defragmented", cluster_compact),
            ("a_cluster_is_gone_after_drop", gone_after_drop),
        ],
    )
}

fn ctl(server: &Server, command: &[&str]) -> String {
    Etcd::of(server).etcdctl(command).unwrap().trim().to_owned()
}

fn refusal(server: &Server, command: &[&str]) -> String {
    Etcd::of(server).etcdctl(command).unwrap_err().to_string()
}

fn get(server: &Server, key: &str) -> String {
    ctl(server, &["get", "--print-value-only", key])
}

fn pause() {
    let server = testbed::etcd_private().unwrap();
    server.pause().unwrap();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.unpause().unwrap();
    server.await_ready(SOON).unwrap();
}

fn kill() {
    let server = testbed::etcd_private().unwrap();
    ctl(&server, &["put", "kept", "42"]);
    server.kill().unwrap();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.start().unwrap();
    server.await_ready(SOON).unwrap();
    assert_eq!(get(&server, "kept"), "42");
}

fn short_lease() {
    let server = testbed::etcd().unwrap();
    let answer = ctl(&server, &["lease", "grant", "1"]);
    assert!(answer.ends_with("granted with TTL(1s)"), "{answer}");
    let lease = answer.split(' ').nth(1).unwrap();
    ctl(&server, &["put", "testbed/short", "42", &format!("--lease={lease}")]);
    let deadline = Instant::now() + SOON;
    while !get(&server, "testbed/short").is_empty() {
        assert!(Instant::now() < deadline, "the key outlives its lease");
        thread::sleep(Duration::from_millis(50));
    }
}

fn settings() {
    let three = "version(\"a\") = \"0\"\n\nput b 1\nput c 2\nput d 3\n\n\n";
    let transaction = |server: &Server| {
        server.exec(&["sh", "-c", &format!("printf '{three}' | sh /usr/local/lib/testbed/ctl.sh txn")])
    };
    assert!(transaction(&testbed::etcd_private().unwrap()).unwrap().contains("SUCCESS"));
    let server = testbed::etcd_private_with(&["--max-txn-ops=2"]).unwrap();
    let error = transaction(&server).unwrap_err().to_string();
    assert!(error.contains("too many operations"), "{error}");
    // One that the testbed has itself: an election of 4 s makes a lease last 6.
    let server = testbed::etcd_private_with(&["--election-timeout=4000"]).unwrap();
    let answer = ctl(&server, &["lease", "grant", "1"]);
    assert!(answer.ends_with("granted with TTL(6s)"), "{answer}");
}

fn compact() {
    let server = testbed::etcd_private().unwrap();
    for value in ["1", "2", "3"] {
        ctl(&server, &["put", "a", value]);
    }
    assert_eq!(ctl(&server, &["get", "a", "--print-value-only", "--rev=2"]), "1");
    assert_eq!(Etcd::of(&server).compact().unwrap(), 4);
    assert_eq!(Etcd::of(&server).compact().unwrap(), 4, "nothing is left to forget");
    let error = refusal(&server, &["get", "a", "--rev=2"]);
    assert!(error.contains("required revision has been compacted"), "{error}");
    Etcd::of(&server).defragment().unwrap();
    assert_eq!(get(&server, "a"), "3");
}

fn auth() {
    let server = testbed::etcd_auth().unwrap();
    assert!(server.url().starts_with("etcd://leasehold:leasehold@127.0.0.1:"), "{}", server.url());
    let endpoint = format!("--endpoints=http://{}", server.host_port());
    let may = |user: &[&str], command: &[&str]| {
        let outcome = server.exec(&[&["etcdctl", &endpoint], user, command].concat());
        outcome.map(|answer| answer.trim().to_owned()).map_err(|error| error.to_string())
    };
    let ours = ["--user=leasehold:leasehold"];
    assert_eq!(may(&ours, &["put", "leasehold/testbed", "42"]).as_deref(), Ok("OK"));
    for (user, command, why) in [
        (ours.as_slice(), &["put", "leasehold", "42"], "permission denied"),
        (&ours, &["put", "leasehold0", "42"], "permission denied"),
        (&["--user=nobody:leasehold"], &["put", "leasehold/testbed", "42"], "permission denied"),
        (&["--user=leasehold:wrong"], &["put", "leasehold/testbed", "42"], "invalid user ID or password"),
        (&[], &["put", "leasehold/testbed", "42"], "user name is empty"),
    ] {
        let error = may(user, command).unwrap_err();
        assert!(error.contains(why), "{user:?} {command:?}: {error}");
    }
    assert_eq!(get(&server, "leasehold/testbed"), "42", "as root");
}

fn auth_restart() {
    let server = testbed::etcd_auth_private().unwrap();
    server.kill().unwrap();
    server.start().unwrap();
    server.await_ready(SOON).unwrap();
    let endpoint = format!("--endpoints=http://{}", server.host_port());
    let error = server.exec(&["etcdctl", &endpoint, "get", "a"]).unwrap_err().to_string();
    assert!(error.contains("user name is empty"), "{error}");
    // What is done after each start of a shared one.
    server.exec(&["sh", "/usr/local/lib/testbed/auth.sh"]).unwrap();
}

fn three() {
    let server = testbed::etcd_three().unwrap();
    let at = |member: usize, command: &[&str]| {
        let endpoint = format!("--endpoints=http://{}", server.host_ports()[member]);
        server.exec(&[&["etcdctl", &endpoint], command].concat()).unwrap().trim().to_owned()
    };
    assert_eq!(at(0, &["put", "testbed/three", "42"]), "OK");
    for member in 0..3 {
        assert_eq!(at(member, &["get", "testbed/three", "--print-value-only"]), "42");
    }
}

/// A cluster in which everybody has 42 and has no doubt who leads, and that one.
fn cluster() -> (EtcdCluster, usize) {
    let began = Instant::now();
    let cluster = testbed::etcd_cluster().unwrap();
    println!("a cluster of etcd starts in {:.1?}", began.elapsed());
    ctl(cluster.member(0), &["put", "kept", "42"]);
    let leader = cluster.await_leader(SOON, |_| true).unwrap();
    (cluster, leader)
}

fn another_leads(cluster: &Cluster, than: usize, fault: &str) -> usize {
    let began = Instant::now();
    let leader = cluster.await_leader(SOON, |leader| leader != than).unwrap();
    cluster.member(leader).await_ready(SOON).unwrap();
    println!("another leads {:.1?} after the leader was {fault}", began.elapsed());
    assert_eq!(ctl(cluster.member(leader), &["put", "kept", "43"]), "OK");
    leader
}

fn is_whole(cluster: &Cluster) {
    let began = Instant::now();
    cluster.await_all(SOON).unwrap();
    println!("whole again after {:.1?}", began.elapsed());
    cluster.await_leader(SOON, |_| true).unwrap();
    for member in 0..cluster.size() {
        assert_eq!(get(cluster.member(member), "kept"), "43", "at member {member}");
    }
}

fn takes_connections(cluster: &Cluster, member: usize) -> bool {
    let address: SocketAddr = cluster.member(member).host_port().parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
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
    // Clients reach it, and without a majority it has the old value only, which it tells who asks for no more.
    let endpoint = format!("--endpoints={}", cluster.member(old).host_port());
    let stale = ["etcdctl", &endpoint, "get", "--consistency=s", "--print-value-only", "kept"];
    assert_eq!(cluster.member(old).exec(&stale).unwrap().trim(), "42");
    assert!(cluster.member(old).await_ready(Duration::from_millis(400)).is_err());
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

fn follower_cut_off() {
    let (cluster, leader) = cluster();
    let follower = (leader + 1) % cluster.size();
    cluster.cut_off(follower).unwrap();
    let deadline = Instant::now() + SOON;
    while cluster.member(follower).await_ready(Duration::ZERO).is_ok() {
        assert!(Instant::now() < deadline, "it has a majority still");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(ctl(cluster.member(leader), &["put", "kept", "43"]), "OK");
    // What was cut is cut no more in a member that is started again.
    cluster.restart(follower).unwrap();
    is_whole(&cluster);
}

fn cluster_compact() {
    let (cluster, leader) = cluster();
    ctl(cluster.member(leader), &["put", "kept", "43"]);
    assert_eq!(cluster.compact().unwrap(), 3);
    let error = refusal(cluster.member(leader), &["get", "kept", "--rev=2"]);
    assert!(error.contains("required revision has been compacted"), "{error}");
    cluster.defragment(leader).unwrap();
    is_whole(&cluster);
}

fn gone_after_drop() {
    let cluster = testbed::etcd_cluster().unwrap();
    let url = cluster.url().to_owned();
    let expected: Vec<&str> = (0..3).map(|member| cluster.member(member).host_port()).collect();
    assert_eq!(url, format!("etcd://{}/", expected.join(",")));
    let is_listed = || testbed::status().unwrap().iter().any(|row| row.url == cluster_member(&url));
    assert!(is_listed());
    drop(cluster);
    assert!(!is_listed());
}

/// The URL of the first member of these.
fn cluster_member(url: &str) -> String {
    format!("{}/", url.split(',').next().unwrap())
}
