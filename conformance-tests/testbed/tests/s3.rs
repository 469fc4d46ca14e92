//! The testbed's S3, with real containers: shown as ignored, with the reason, where Docker is missing, and failing there
//! under CI. What it does with objects, the fences' tests tell.

// A test waits on real time, and says by a panic what it expected.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::process::ExitCode;
use std::time::Duration;

use testbed::{Bucket, Server, tests};

const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    tests::run(
        tests::private_s3_can_be_had,
        vec![
            ("its_bucket_is_there_and_stays_over_a_crash", crash),
            ("a_paused_server_is_not_ready_until_unpaused", pause),
            ("a_bucket_may_be_asked_for_twice", twice),
        ],
    )
}

fn buckets(server: &Server) -> String {
    server.exec(&["sh", "-c", "echo s3.bucket.list | weed shell -master=127.0.0.1:9333"]).unwrap()
}

fn has_its_bucket(server: &Server) -> bool {
    let bucket = Bucket::at(server.url()).unwrap();
    buckets(server).split_whitespace().any(|word| word == bucket.name)
}

fn crash() {
    let server = testbed::s3_private().unwrap();
    assert!(has_its_bucket(&server), "{}", buckets(&server));
    server.kill().unwrap();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.start().unwrap();
    server.await_ready(SOON).unwrap();
    assert!(has_its_bucket(&server), "{}", buckets(&server));
}

fn pause() {
    let server = testbed::s3_private().unwrap();
    server.pause().unwrap();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.unpause().unwrap();
    server.await_ready(SOON).unwrap();
}

fn twice() {
    let server = testbed::s3_private().unwrap();
    for _ in 0..2 {
        server.exec(&["sh", "/usr/local/lib/testbed/bucket.sh", "leasehold"]).unwrap();
    }
    assert!(server.exec(&["sh", "/usr/local/lib/testbed/bucket.sh", "Not a bucket"]).is_err());
    assert!(has_its_bucket(&server));
}
