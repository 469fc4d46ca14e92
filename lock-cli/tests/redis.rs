//! The main job on Redis: a real server, real processes, real faults.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod scenes;
mod stage;

use nix::sys::signal::Signal;
use stage::{Stage, code};

/// On the shared server, under names of this test's own.
fn shared() -> Stage {
    Stage::on(testbed::redis().unwrap().url().to_owned())
}

fn redis_cli(server: &testbed::Server, command: &[&str]) -> String {
    let port = server.host_port().rsplit_once(':').unwrap().1;
    let options = ["redis-cli", "--no-auth-warning", "-a", "leasehold", "-p", port];
    server.exec(&[&options, command].concat()).unwrap().trim().to_owned()
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

async fn a_store_out_of_reach_ends_the_command_before_its_lease_and_a_short_outage_does_not() {
    let server = testbed::redis_private().unwrap();
    let stage = Stage::on(server.url().to_owned());
    let record = format!("leasehold:{{{}}}", stage.lock);
    scenes::a_store_out_of_reach_ends_the_command_and_a_short_outage_does_not(&stage, &server, |_| {
        redis_cli(&server, &["hget", &record, "until"]).parse().unwrap()
    });
}

async fn what_is_wrong_is_told_in_one_sentence_without_the_password() {
    let server = testbed::redis_private().unwrap();
    let place = server.host_port();
    let replica = testbed::redis_replica_of(&server).unwrap();
    let full = testbed::redis_private_with(&["--maxmemory", "1"]).unwrap();
    let wrong = [
        ("a wrong password", format!("redis://:s3cret-word@{place}"), place),
        ("TLS to a plain port", format!("rediss://:s3cret-word@{place}"), place),
        ("a closed port", "redis://:s3cret-word@127.0.0.1:1".to_owned(), "127.0.0.1:1"),
        ("an unknown host", "redis://:s3cret-word@nowhere.invalid".to_owned(), "nowhere.invalid"),
        ("a read-only replica", replica.url().to_owned(), "replica"),
        ("a server that is full", full.url().to_owned(), "maxmemory"),
    ];
    for (what, url, named) in &wrong {
        scenes::is_told_in_one_sentence(what, url, named);
    }
}

async fn what_is_wrong_with_a_majority_of_masters_is_told_in_one_sentence() {
    let server = testbed::redis_private().unwrap();
    let url = format!("redlock://:leasehold@{},127.0.0.1:1,127.0.0.1:2", server.host_port());
    scenes::is_told_in_one_sentence("two masters of three out of reach", &url, "1 of 3");
    let few = format!("redlock://:leasehold@{}", server.host_port());
    let output = Stage::on(few).run("", "exit 0").output().unwrap();
    assert_eq!(code(&output), 64, "{output:?}");
}

async fn a_majority_of_masters_does_the_main_job() {
    let masters: Vec<_> = (0..3).map(|_| testbed::redis_private_with(&["--appendonly", "no"]).unwrap()).collect();
    let places: Vec<&str> = masters.iter().map(|master| master.host_port()).collect();
    let stage = Stage::on(format!("redlock://:leasehold@{}", places.join(",")));
    scenes::processes_count_without_losing_one(&stage, 5, 20);
    let mut holder = stage.start("--ttl 3s", "echo $LEASEHOLD_TOKEN; exec sleep 100");
    let first: u64 = holder.line().parse().unwrap();
    // One of three may stand still.
    masters[1].pause().unwrap();
    stage.await_renewal(stage.token_and_deadline());
    holder.signal(Signal::SIGTERM);
    assert_eq!(holder.code(), 143);
    let mut next = stage.start("", "echo $LEASEHOLD_TOKEN");
    let second: u64 = next.line().parse().unwrap();
    assert!(second > first);
    assert_eq!(next.code(), 0);
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    twenty_processes_count_without_losing_one,
    when_the_holders_whole_group_is_killed_a_waiter_takes_over,
    a_frozen_keepers_command_is_over_before_the_next_one_starts,
    a_store_out_of_reach_ends_the_command_before_its_lease_and_a_short_outage_does_not,
    what_is_wrong_is_told_in_one_sentence_without_the_password,
    what_is_wrong_with_a_majority_of_masters_is_told_in_one_sentence,
    a_majority_of_masters_does_the_main_job,
);
