//! The testbed's MongoDB, with real containers: shown as ignored, with the reason, where Docker is missing, and failing
//! there under CI.

// A test waits on real time, and says by a panic what it expected.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use testbed::{Error, MongoMembers, Server, tests};

const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    tests::run(
        tests::private_mongo_can_be_had,
        vec![
            ("a_killed_set_keeps_what_a_majority_acknowledged", kill),
            ("a_restarted_set_keeps_what_a_majority_acknowledged", restart),
            ("a_paused_set_is_not_ready_until_unpaused", pause),
            ("another_member_is_elected_when_the_primary_steps_down", step_down),
            ("another_member_is_elected_when_the_primary_is_frozen", freeze),
            ("a_killed_member_is_not_needed_and_comes_back", kill_member),
            ("one_member_alone_serves_nobody", minority),
            ("a_single_server_is_no_set_and_keeps_its_data", standalone),
            ("a_wrong_password_is_refused", wrong_password),
        ],
    )
}

fn client(server: &Server, url: &str, action: &str) -> Result<String, Error> {
    server.exec(&["python3", "-c", include_str!("mongo_client.py"), url, action]).map(|answer| answer.trim().to_owned())
}

fn write(server: &Server) {
    client(server, server.url(), "write").unwrap();
}

fn read(server: &Server) -> String {
    client(server, server.url(), "read").unwrap()
}

/// Waits until a member is the only primary, and it isn't this one.
fn await_another(members: &MongoMembers<'_>, than: usize) -> usize {
    let deadline = Instant::now() + SOON;
    loop {
        match members.primary() {
            Some(primary) if primary != than => return primary,
            _ => assert!(Instant::now() < deadline, "no other primary was elected"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn kill() {
    let server = testbed::mongo_private().unwrap();
    write(&server);
    server.kill().unwrap();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.start().unwrap();
    server.await_ready(SOON).unwrap();
    assert_eq!(read(&server), "[42]");
}

fn restart() {
    let server = testbed::mongo_private().unwrap();
    write(&server);
    server.restart().unwrap();
    server.await_ready(SOON).unwrap();
    assert_eq!(read(&server), "[42]");
}

fn pause() {
    let server = testbed::mongo_private().unwrap();
    server.pause().unwrap();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.unpause().unwrap();
    server.await_ready(SOON).unwrap();
}

fn step_down() {
    let server = testbed::mongo_private().unwrap();
    let members = MongoMembers::of(&server);
    let before = members.primary().unwrap();
    members.step_down().unwrap();
    server.await_ready(SOON).unwrap();
    await_another(&members, before);
    write(&server);
}

fn freeze() {
    let server = testbed::mongo_private().unwrap();
    let members = MongoMembers::of(&server);
    let before = members.primary().unwrap();
    members.freeze(before).unwrap();
    let after = await_another(&members, before);
    members.thaw(before).unwrap();
    members.await_all().unwrap();
    write(&server);
    assert_eq!(await_another(&members, before), after, "the thawed member is a secondary");
}

fn kill_member() {
    let server = testbed::mongo_private().unwrap();
    let members = MongoMembers::of(&server);
    let before = members.primary().unwrap();
    members.kill(before).unwrap();
    let error = members.freeze(before).unwrap_err().to_string();
    assert!(error.contains("doesn't run"), "{error}");
    await_another(&members, before);
    write(&server);
    members.start(before).unwrap();
    members.await_all().unwrap();
    assert_eq!(read(&server), "[42]");
}

fn minority() {
    let server = testbed::mongo_private().unwrap();
    let members = MongoMembers::of(&server);
    let primary = members.primary().unwrap();
    for member in (0..3).filter(|member| *member != primary) {
        members.kill(member).unwrap();
    }
    // It notices within the time of an election.
    let deadline = Instant::now() + SOON;
    while server.await_ready(Duration::ZERO).is_ok() {
        assert!(Instant::now() < deadline, "it stays the primary");
        thread::sleep(Duration::from_millis(50));
    }
    let error = server.await_ready(Duration::from_millis(400)).unwrap_err().to_string();
    assert!(error.contains("not ready within"), "{error}");
}

fn standalone() {
    let server = testbed::mongo_standalone_private().unwrap();
    write(&server);
    assert_eq!(client(&server, server.url(), "set-name").unwrap(), "None");
    server.kill().unwrap();
    server.start().unwrap();
    server.await_ready(SOON).unwrap();
    assert_eq!(read(&server), "[42]");
}

fn wrong_password() {
    for server in [testbed::mongo().unwrap(), testbed::mongo_standalone().unwrap()] {
        assert!(client(&server, server.url(), "read").is_ok());
        let url = server.url().replace(":leasehold@", ":wrong@");
        let error = client(&server, &url, "read").unwrap_err().to_string();
        assert!(error.contains("Authentication failed"), "{error}");
    }
}
