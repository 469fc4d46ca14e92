//! The main job on ZooKeeper: real servers, real processes, real faults.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a step that fails is a test that fails")]

mod scenes;
mod stage;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use leasehold::{Clock, SystemClock};
use stage::{Stage, group_is_gone, now, passed};
use testbed::ZooKeeper;

/// On the shared server, under names of this test's own.
fn shared() -> Stage {
    Stage::on(testbed::zookeeper().unwrap().url().to_owned())
}

async fn twenty_processes_count_without_losing_one() {
    scenes::processes_count_without_losing_one(&shared(), 20, 50);
}

async fn when_the_holders_whole_group_is_killed_a_waiter_takes_over() {
    scenes::a_killed_holder_is_succeeded(&shared());
}

async fn a_frozen_keepers_command_is_over_before_the_next_one_starts() {
    scenes::a_frozen_keepers_command_is_over_before_the_next_one_starts(&shared());
}

/// Notes when the one session there is wrote heartbeats, in microseconds since the Unix epoch, for as long as the
/// server answers.
fn note_heartbeats(server: &Arc<testbed::PrivateServer>) -> Arc<Mutex<Vec<u64>>> {
    let (server, noted) = (Arc::clone(server), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&noted);
    std::thread::spawn(move || {
        let mut session = ZooKeeper::of(&server).session(Duration::from_secs(60)).unwrap();
        let mut version = String::new();
        loop {
            let Ok(listed) = session.run("ls /leasehold/sessions") else { return };
            let Some(id) = listed.split(['[', ']', '\n', ' ']).find(|word| word.len() == 16) else { continue };
            let Ok(said) = session.run(&format!("stat /leasehold/sessions/{id}")) else { return };
            let now = said.lines().find_map(|line| line.strip_prefix("dataVersion = ")).unwrap_or_default();
            if now != version {
                version = now.to_owned();
                seen.lock().unwrap().push(SystemClock.wall_micros());
            }
        }
    });
    noted
}

async fn a_store_out_of_reach_ends_the_command_before_its_lease_and_a_short_outage_does_not() {
    let server = Arc::new(testbed::zookeeper_private().unwrap());
    // The testbed's servers grant longer sessions than the tick says.
    let stage = Stage::on(format!("{}?leasehold_tick_ms=100", server.url().trim_end_matches('/')));
    let noted = note_heartbeats(&server);
    scenes::a_store_out_of_reach_ends_the_command_and_a_short_outage_does_not(&stage, &server, |gone| {
        // What comes after that isn't for the command's sake any more.
        let last = noted.lock().unwrap().iter().copied().rfind(|noted| *noted < gone);
        last.expect("a heartbeat") + 6_000_000
    });
}

/// The member to which the holder is connected loses the others, answers on for a while, and knows nothing.
async fn a_holder_at_a_member_that_is_cut_off_is_over_before_the_majority_lets_another_in() {
    let cluster = testbed::zookeeper_cluster().unwrap();
    let leader = cluster.leader().unwrap();
    let cut = (leader + 1) % 3;
    let mut stage = Stage::on(cluster.member_url(cut).to_owned());
    let mut holder =
        stage.start("--ttl 4s", "trap '' TERM; echo $$; while :; do date +%s%N >> written; sleep 0.05; done");
    let group = holder.pid();
    stage.store = cluster.member_url(leader).to_owned();
    let mut other = stage.waiter("--ttl 4s", "date +%s%N");
    let begun = now();
    cluster.cut_off(cut).unwrap();
    let started: u128 = other.line().parse().unwrap();
    let took = passed(begun);
    assert!(group_is_gone(group), "nobody of the holder's group is left when the next one starts");
    let text = std::fs::read_to_string(stage.path("written")).unwrap();
    let last: u128 = text.lines().rfind(|line| line.len() == 19).unwrap().parse().unwrap();
    assert!(last < started);
    println!(
        "the other has it {took:.2?} after the cut, {:.0?} after the holder's last write",
        Duration::from_nanos((started - last) as u64)
    );
    assert_eq!(holder.code(), 75);
    assert_eq!(other.code(), 0);
}

async fn what_is_wrong_is_told_in_one_sentence_without_the_password() {
    let server = testbed::zookeeper().unwrap();
    let place = server.host_port();
    let stage = Stage::on(format!("zookeeper://ann:apple@{place}?leasehold_path=/cli-secrets-{}", std::process::id()));
    assert!(stage.run("", "exit 0").status().unwrap().success());
    let anothers = stage.store.replace("ann:apple", "ann:s3cret-word");
    let wrong = [
        ("a wrong password", anothers, "check user and password"),
        ("a chroot that isn't there", format!("zookeeper://u:s3cret-word@{place}/no/such"), "/no/such"),
        ("a closed port", "zookeeper://u:s3cret-word@127.0.0.1:1".to_owned(), "127.0.0.1:1"),
        ("an unknown host", "zookeeper://u:s3cret-word@nowhere.invalid".to_owned(), "nowhere.invalid"),
    ];
    for (what, url, named) in &wrong {
        scenes::is_told_in_one_sentence(what, url, named);
    }
    // Where nodes may only be read.
    let path = format!("/cli-rights-{}", std::process::id());
    let cli = ZooKeeper::of(&server);
    let said = cli.zk_cli(&["create", &path, "x", "world:anyone:r"]).unwrap();
    assert!(said.contains("Created"), "{said}");
    let url = format!("zookeeper://u:s3cret-word@{place}?leasehold_path={path}");
    scenes::is_told_in_one_sentence("missing rights", &url, "not allowed at");
}

async fn a_member_without_a_majority_is_told_in_one_sentence() {
    let cluster = testbed::zookeeper_cluster().unwrap();
    for other in [0, 1] {
        cluster.kill(other).unwrap();
    }
    scenes::is_told_in_one_sentence("two members of three are gone", cluster.url(), "majority");
}

testbed::server_tests!(testbed::tests::private_zookeeper_can_be_had =>
    twenty_processes_count_without_losing_one,
    when_the_holders_whole_group_is_killed_a_waiter_takes_over,
    a_frozen_keepers_command_is_over_before_the_next_one_starts,
    a_store_out_of_reach_ends_the_command_before_its_lease_and_a_short_outage_does_not,
    a_holder_at_a_member_that_is_cut_off_is_over_before_the_majority_lets_another_in,
    what_is_wrong_is_told_in_one_sentence_without_the_password,
    a_member_without_a_majority_is_told_in_one_sentence,
);
