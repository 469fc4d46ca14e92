//! The main job on PostgreSQL: a real server, real processes, real faults.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod scenes;
mod stage;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use stage::{Stage, code, now, passed, pause, until};

/// On the shared server, in a schema of this test's own.
fn shared() -> Stage {
    let server = testbed::postgres().unwrap();
    Stage::on(with_schema(server.url()))
}

fn with_schema(url: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let unique = directory.path().file_name().unwrap().to_string_lossy().replace('.', "");
    format!("{url}?leasehold_schema=cli_{}_{unique}", std::process::id())
}

fn psql(server: &testbed::Server, statement: &str) -> String {
    let options = ["psql", "--username=leasehold", "--dbname=leasehold", "-XAtqc", statement];
    server.exec(&options).unwrap().trim().to_owned()
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
    let server = testbed::postgres_private().unwrap();
    let stage = Stage::on(server.url().to_owned());
    let lease_end = format!(
        "select (extract(epoch from expires_at) * 1e6)::bigint from leasehold.locks where name = '{}'",
        stage.lock
    );
    scenes::a_store_out_of_reach_ends_the_command_and_a_short_outage_does_not(&stage, &server, |_| {
        psql(&server, &lease_end).parse().unwrap()
    });
}

/// A disk that stalls, a table that is being backed up: the store is there, and answers later.
async fn who_waits_goes_on_when_the_store_stumbles_at_the_first_attempt() {
    let server = testbed::postgres_private().unwrap();
    let stage = Stage::on(server.url().to_owned());
    assert_eq!(code(&stage.run("", "exit 0").output().unwrap()), 0);
    let hold = format!(
        "begin; select from leasehold.locks where name = '{}' for update; select pg_sleep(8); rollback",
        stage.lock
    );
    thread::scope(|scope| {
        scope.spawn(|| psql(&server, &hold));
        let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        until("the row is held", || psql(&server, asleep) == "1");
        assert_eq!(code(&stage.run("-n", "touch ran").output().unwrap()), 69);
        let waiter = stage.run("", "exit 3").output().unwrap();
        assert_eq!(code(&waiter), 3, "{waiter:?}");
        let told = String::from_utf8_lossy(&waiter.stderr).into_owned();
        assert!(told.contains("waiting for") && told.contains("row"), "{told}");
        assert!(!stage.path("ran").exists());
    });
}

async fn tokens_rise_over_everything_that_can_happen_to_the_record() {
    let server = testbed::postgres_private().unwrap();
    let stage = Stage::on(server.url().to_owned());
    let grant = || -> u64 {
        let output = stage.run("--ttl 1s -w 10", "echo $LEASEHOLD_TOKEN").output().unwrap();
        assert_eq!(code(&output), 0, "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    let mut tokens = vec![("the first", grant()), ("a release", grant())];

    let mut dies = stage.start("--ttl 1s", "echo in; exec sleep 100");
    assert_eq!(dies.line(), "in");
    dies.signal(Signal::SIGKILL);
    tokens.push(("an expiry", grant()));

    let mut forced = stage.start("--ttl 3s", "echo in; exec sleep 100");
    assert_eq!(forced.line(), "in");
    assert!(stage.leasehold(["release", "--force", &stage.lock]).status().unwrap().success());
    tokens.push(("a forced release", grant()));
    assert_eq!(forced.code(), 75, "the holder learns of it");

    server.restart().unwrap();
    server.await_ready(Duration::from_secs(20)).unwrap();
    tokens.push(("a restart", grant()));
    psql(&server, "delete from leasehold.locks");
    tokens.push(("a deletion", grant()));
    psql(&server, "drop schema leasehold cascade");
    tokens.push(("a dropped schema", grant()));

    println!("{tokens:?}");
    assert!(tokens.windows(2).all(|pair| pair[0].1 < pair[1].1), "{tokens:?}");
}

async fn what_is_wrong_is_told_in_one_sentence_without_the_password() {
    let server = testbed::postgres().unwrap();
    let (_, place) = server.url().split_once('@').unwrap();
    let (address, _) = place.split_once('/').unwrap();
    let wrong = [
        ("a wrong password", format!("postgres://leasehold:s3cret-word@{place}"), address),
        ("an unknown database", server.url().replace("/leasehold", "/nowhere"), "nowhere"),
        ("a closed port", "postgres://leasehold:s3cret-word@127.0.0.1:1/x".to_owned(), "127.0.0.1:1"),
        ("an unknown host", "postgres://leasehold:s3cret-word@nowhere.invalid/x".to_owned(), "nowhere.invalid"),
    ];
    for (what, url, named) in &wrong {
        scenes::is_told_in_one_sentence(what, url, named);
    }
}

/// Forwards to the server; what it answers after `word` was sent is on its way for `late`.
fn late_answers(server: &str, word: String, late: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server.to_owned();
    let asked = Arc::new(Mutex::new(None));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&server).unwrap();
            let (mut questions, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (mut client, mut server) = (client, server);
            let (asking, answering, word) = (Arc::clone(&asked), Arc::clone(&asked), word.clone());
            thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(length @ 1..) = questions.read(&mut bytes) {
                    if bytes[..length].windows(word.len()).any(|part| part == word.as_bytes()) {
                        asking.lock().unwrap().get_or_insert(now());
                    }
                    server.write_all(&bytes[..length]).unwrap();
                }
                // The server isn't told that nobody listens: that gets lost as well.
            });
            thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(length @ 1..) = answers.read(&mut bytes) {
                    while answering.lock().unwrap().is_some_and(|asked| passed(asked) < late) {
                        pause();
                    }
                    if client.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// The grant may be on its way when nobody waits for it any more: it is given back.
async fn a_store_that_answers_too_late_is_left_without_a_lock_of_a_dead_process() {
    let server = testbed::postgres().unwrap();
    let stage = shared();
    assert_eq!(code(&stage.run("", "exit 0").output().unwrap()), 0);
    let proxy = late_answers(server.host_port(), stage.lock.clone(), Duration::from_secs(6));
    let late = stage.store.replace(server.host_port(), &proxy);
    let output = stage.run("--ttl 1h -n", "touch ran").env("LEASEHOLD_STORE", late).output().unwrap();
    assert_eq!(code(&output), 69, "{output:?}");
    assert!(!stage.path("ran").exists());
    // Its end is told to the server by nobody: what it asked for is done by now.
    assert_eq!(stage.status()["state"], "free");
}

testbed::server_tests!(testbed::tests::private_postgres_can_be_had =>
    twenty_processes_count_without_losing_one,
    when_the_holders_whole_group_is_killed_a_waiter_takes_over,
    a_frozen_keepers_command_is_over_before_the_next_one_starts,
    a_store_out_of_reach_ends_the_command_before_its_lease_and_a_short_outage_does_not,
    tokens_rise_over_everything_that_can_happen_to_the_record,
    who_waits_goes_on_when_the_store_stumbles_at_the_first_attempt,
    what_is_wrong_is_told_in_one_sentence_without_the_password,
    a_store_that_answers_too_late_is_left_without_a_lock_of_a_dead_process,
);
