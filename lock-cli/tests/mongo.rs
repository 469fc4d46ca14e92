//! The main job on MongoDB: a real replica set, real processes, real faults.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod scenes;
mod stage;

use stage::Stage;
use testbed::MongoMembers;

const LEASE_END: &str = r#"
import os, sys
from pymongo import MongoClient
locks = MongoClient("mongodb://leasehold:leasehold@127.0.0.1:%s/?authSource=admin" % os.environ["PORT"]).leasehold.leasehold_locks
print(list(locks.aggregate([{"$match": {"_id": sys.argv[1]}}, {"$project": {"end": {"$toLong": "$expires_at"}}}]))[0]["end"])
"#;

/// On the shared replica set, in a collection of this test's own.
fn shared() -> Stage {
    let stage = Stage::on(testbed::mongo().unwrap().url().to_owned());
    let store = format!("{}&leasehold_collection={}", stage.store, stage.lock.replace('.', "_"));
    Stage { store, ..stage }
}

async fn twenty_processes_count_without_losing_one() {
    // A thousand runs pass as well, and take three minutes.
    scenes::processes_count_without_losing_one(&shared(), 20, 15);
}

async fn when_the_holders_whole_group_is_killed_a_waiter_takes_over() {
    scenes::a_killed_holder_is_succeeded(&shared());
}

async fn a_frozen_keepers_command_is_over_before_the_next_one_starts() {
    scenes::a_frozen_keepers_command_is_over_before_the_next_one_starts(&shared());
}

/// A single server: members of a set that all stood still elect a primary first, which takes a while of its own.
async fn a_store_out_of_reach_ends_the_command_before_its_lease_and_a_short_outage_does_not() {
    let server = testbed::mongo_standalone_private().unwrap();
    let stage = Stage::on(server.url().to_owned());
    scenes::a_store_out_of_reach_ends_the_command_and_a_short_outage_does_not(&stage, &server, |_| {
        let millis = server.exec(&["python3", "-c", LEASE_END, &stage.lock]).unwrap();
        millis.trim().parse::<u64>().unwrap() * 1000
    });
}

async fn a_set_without_a_majority_is_told_in_one_sentence() {
    let server = testbed::mongo_private().unwrap();
    let members = MongoMembers::of(&server);
    let primary = members.primary().unwrap();
    for other in (0..3).filter(|member| *member != primary) {
        members.freeze(other).unwrap();
    }
    scenes::is_told_in_one_sentence("two members of three stand still", server.url(), "majority");
}

async fn what_is_wrong_is_told_in_one_sentence_without_the_password() {
    let server = testbed::mongo_standalone().unwrap();
    let place = server.host_port();
    let wrong = [
        ("a wrong password", format!("mongodb://leasehold:s3cret-word@{place}/x?authSource=admin"), "leasehold"),
        ("TLS to a plain port", format!("mongodb://leasehold:s3cret-word@{place}/x?authSource=admin&tls=true"), "TLS"),
        ("a closed port", "mongodb://leasehold:s3cret-word@127.0.0.1:1/x".to_owned(), "127.0.0.1:1"),
        ("an unknown host", "mongodb://leasehold:s3cret-word@nowhere.invalid/x".to_owned(), "nowhere.invalid"),
    ];
    for (what, url, named) in &wrong {
        scenes::is_told_in_one_sentence(what, url, named);
    }
}

testbed::server_tests!(testbed::tests::private_mongo_can_be_had =>
    twenty_processes_count_without_losing_one,
    when_the_holders_whole_group_is_killed_a_waiter_takes_over,
    a_frozen_keepers_command_is_over_before_the_next_one_starts,
    a_store_out_of_reach_ends_the_command_before_its_lease_and_a_short_outage_does_not,
    a_set_without_a_majority_is_told_in_one_sentence,
    what_is_wrong_is_told_in_one_sentence_without_the_password,
);
