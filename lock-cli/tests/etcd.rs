//! The main job on etcd: real servers, real processes, real faults.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a step that fails is a test that fails")]

mod scenes;
mod stage;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use leasehold::{Clock, SystemClock};
use stage::{Stage, group_is_gone, now, passed, until};
use testbed::Server;

/// On the shared server, under a prefix of this test's own.
fn shared() -> Stage {
    let stage = Stage::on(testbed::etcd().unwrap().url().to_owned());
    let store = format!("{}?leasehold_prefix={}/", stage.store, stage.lock);
    Stage { store, ..stage }
}

/// How many leases the server has kept alive, by its own count; `None` while it says nothing.
fn kept_alive(at: &str) -> Option<u64> {
    let mut connection = TcpStream::connect(at).ok()?;
    connection.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
    write!(connection, "GET /metrics HTTP/1.0\r\nHost: {at}\r\n\r\n").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let count = answer.lines().find_map(|line| line.strip_prefix("etcd_debugging_lease_renewed_total "))?;
    count.trim().parse().ok()
}

/// Watches when a server kept a lease alive last.
struct LastKeepAlive {
    seen_micros: Arc<Mutex<Vec<u64>>>,
    over: Arc<AtomicBool>,
}

impl LastKeepAlive {
    fn watch(server: &Server) -> Self {
        let (at, seen_micros) = (server.host_port().to_owned(), Arc::new(Mutex::new(Vec::new())));
        let over = Arc::new(AtomicBool::new(false));
        let (tell, ended) = (Arc::clone(&seen_micros), Arc::clone(&over));
        std::thread::spawn(move || {
            let (mut last, mut asked_before) = (None, 0);
            while !ended.load(Ordering::Relaxed) {
                let asked = SystemClock.wall_micros();
                if let Some(count) = kept_alive(&at) {
                    if last.is_some_and(|last| count > last) {
                        // It wasn't so when it was asked the time before.
                        tell.lock().unwrap().push(asked_before);
                    }
                    last = Some(count);
                }
                // Without an answer it stands still: what it counts next, it does after that.
                asked_before = asked;
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { seen_micros, over }
    }

    /// No later than the last one before this moment was. What comes after it isn't for the command's sake any more.
    fn before(&self, micros: u64) -> u64 {
        let seen = self.seen_micros.lock().unwrap();
        seen.iter().copied().rfind(|seen| *seen < micros).expect("a keep-alive")
    }
}

impl Drop for LastKeepAlive {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

async fn twenty_processes_count_without_losing_one() {
    scenes::processes_count_without_losing_one(&shared(), 20, 25);
}

async fn when_the_holders_whole_group_is_killed_a_waiter_takes_over() {
    scenes::a_killed_holder_is_succeeded(&shared());
}

async fn a_frozen_keepers_command_is_over_before_the_next_one_starts() {
    scenes::a_frozen_keepers_command_is_over_before_the_next_one_starts(&shared());
}

async fn a_store_out_of_reach_ends_the_command_before_its_lease_and_a_short_outage_does_not() {
    let server = testbed::etcd_private().unwrap();
    let stage = Stage::on(server.url().to_owned());
    let last = LastKeepAlive::watch(&server);
    scenes::a_store_out_of_reach_ends_the_command_and_a_short_outage_does_not(&stage, &server, |gone| {
        last.before(gone) + 6_000_000
    });
}

/// The member that the holder talks to is cut off with all who talk to it: the others elect a leader if they have to, and
/// hand the lock out when its lease is over. The holder's command has ended by then.
async fn a_holder_at_a_member_that_is_cut_off_is_over_before_the_majority_hands_the_lock_out() {
    let cluster = testbed::etcd_cluster().unwrap();
    for what in ["a follower", "the leader"] {
        let leader = cluster.leader().unwrap();
        let cut = if what == "the leader" { leader } else { (leader + 1) % 3 };
        let stage = Stage::on(cluster.member_url(cut).to_owned());
        let rest: Vec<_> = (0..3).filter(|at| *at != cut).map(|at| cluster.member(at).host_port().to_owned()).collect();
        let elsewhere =
            Stage { store: format!("etcd://{}/", rest.join(",")), lock: stage.lock.clone(), ..Stage::new() };
        let mut holder =
            stage.start("--ttl 4s", "trap '' TERM; echo $LEASEHOLD_TOKEN; echo $$; while :; do sleep 0.05; done");
        let first: u64 = holder.line().parse().unwrap();
        let group = holder.pid();
        let mut waiter = elsewhere.waiter("--ttl 4s", "echo $LEASEHOLD_TOKEN; date +%s%N");
        cluster.cut_off(cut).unwrap();
        let begun = now();
        until("the group is gone", || group_is_gone(group));
        let gone = SystemClock.wall_micros();
        println!("{what} cut off: the command was over after {:.2?}", passed(begun));
        assert_eq!(holder.code(), 75);
        let second: u64 = waiter.line().parse().unwrap();
        let started = waiter.line().parse::<u64>().unwrap() / 1000;
        assert!(second > first && gone < started, "{first} {second}, gone {gone}, the other started {started}");
        println!("{what} cut off: the other started {:.2?} later", Duration::from_micros(started - gone));
        assert_eq!(waiter.code(), 0);
        cluster.heal(cut).unwrap();
        cluster.await_all(Duration::from_secs(20)).unwrap();
    }
}

async fn a_cluster_without_a_majority_is_told_in_one_sentence() {
    let cluster = testbed::etcd_cluster().unwrap();
    let leader = cluster.leader().unwrap();
    let others: Vec<_> = (0..3).filter(|member| *member != leader).collect();
    for member in &others {
        cluster.freeze(*member).unwrap();
    }
    scenes::is_told_in_one_sentence("two members of three stand still", cluster.url(), "majority");
    // The leader still believes that it leads, or has just noticed.
    scenes::is_told_in_one_sentence("the one that runs is asked", cluster.member_url(leader), "majority");
    scenes::is_told_in_one_sentence("one that stands still is asked", cluster.member_url(others[0]), "majority");
}

async fn what_is_wrong_is_told_in_one_sentence_without_the_password() {
    let (plain, server) = (testbed::etcd().unwrap(), testbed::etcd_auth().unwrap());
    let (open, place) = (plain.host_port(), server.host_port());
    let wrong = [
        ("a wrong password", format!("etcd://leasehold:s3cret-word@{place}"), "refused the user or the password"),
        ("no password", format!("etcd://{place}"), "user and a password"),
        ("a user without rights", format!("etcd://nobody:leasehold@{place}"), "readwrite"),
        ("another prefix", format!("etcd://leasehold:leasehold@{place}/?leasehold_prefix=other/"), "readwrite"),
        ("a user nobody asks for", format!("etcd://leasehold:s3cret-word@{open}"), "authentication is off"),
        ("TLS to a plain port", format!("etcds://leasehold:s3cret-word@{open}"), "TLS"),
        ("a closed port", "etcd://127.0.0.1:1".to_owned(), "127.0.0.1:1"),
        ("a closed port, with a user", "etcd://leasehold:s3cret-word@127.0.0.1:1".to_owned(), "127.0.0.1:1"),
        ("an unknown host", "etcd://leasehold:s3cret-word@nowhere.invalid".to_owned(), "nowhere.invalid"),
    ];
    for (what, url, named) in &wrong {
        scenes::is_told_in_one_sentence(what, url, named);
    }
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    scenes::is_told_in_one_sentence("a port that says nothing", &format!("etcd://{at}"), &at.to_string());
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    twenty_processes_count_without_losing_one,
    when_the_holders_whole_group_is_killed_a_waiter_takes_over,
    a_frozen_keepers_command_is_over_before_the_next_one_starts,
    a_store_out_of_reach_ends_the_command_before_its_lease_and_a_short_outage_does_not,
    a_holder_at_a_member_that_is_cut_off_is_over_before_the_majority_hands_the_lock_out,
    a_cluster_without_a_majority_is_told_in_one_sentence,
    what_is_wrong_is_told_in_one_sentence_without_the_password,
);
