//! What can't work is refused soon, in one sentence that tells what to do, and without a password.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, ask, give_back, granted, in_time, queue, seconds, start};
use lock_core::{Applied, Clock, ErrorKind, LockProvider, Released, StoreError, SystemClock};
use lock_etcd::{Builder, EtcdLocks, etcd_client};

const WRONG: &str = "s3cret-word";

fn shown(error: &StoreError) -> String {
    let mut shown = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        shown += &format!(" {next} {next:?}");
        cause = next.source();
    }
    shown
}

async fn refused(builder: Builder) -> (StoreError, Duration) {
    let debug = format!("{builder:?}");
    assert!(!debug.contains(WRONG), "{debug}");
    let start = SystemClock.now();
    let error = builder.build().await.unwrap_err();
    let took = SystemClock.now().since(start);
    assert!(!shown(&error).contains(WRONG), "{}", shown(&error));
    assert!(!error.to_string().contains('\n'), "{error}");
    assert_eq!(error.applied(), Applied::No);
    assert!(error.to_string().starts_with("etcd: "), "{error}");
    println!("{took:.2?}: {error}");
    (error, took)
}

async fn each_reason_has_its_sentence() {
    let (open, guarded) = (start(testbed::etcd).await, start(testbed::etcd_auth).await);
    let (open, guarded) = (open.host_port(), guarded.host_port());
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Connections are accepted, and nothing is ever said.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    for (url, kind, says) in [
        (format!("etcd://leasehold:{WRONG}@{guarded}"), ErrorKind::Denied, "refused the user or the password"),
        (format!("etcd://unknown:{WRONG}@{guarded}"), ErrorKind::Denied, "refused the user or the password"),
        (format!("etcd://{guarded}"), ErrorKind::Denied, "wants a user and a password"),
        (format!("etcd://nobody:leasehold@{guarded}"), ErrorKind::Denied, "readwrite"),
        (format!("etcd://u:{WRONG}@{open}"), ErrorKind::Denied, "authentication is off"),
        (format!("etcds://{open}"), ErrorKind::Unreachable, "whether both sides use TLS"),
        (format!("etcd://{free}"), ErrorKind::Unreachable, "no server listens there"),
        (format!("etcd://u:{WRONG}@{free}"), ErrorKind::Unreachable, "no server listens there"),
        (format!("etcd://{silent_at}"), ErrorKind::Timeout, "a majority"),
        (format!("etcd://u:{WRONG}@{silent_at}"), ErrorKind::Unreachable, "no connection came about"),
        ("etcd://no-such-host.invalid".to_owned(), ErrorKind::Unreachable, "can't be looked up"),
        (format!("mysql://u:{WRONG}@{open}"), ErrorKind::InvalidConfig, "etcd://"),
    ] {
        let (error, took) = refused(EtcdLocks::builder(&url)).await;
        assert_eq!(error.kind(), kind, "{url}: {error}");
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert!(took < seconds(5), "{took:?}: {error}");
    }
    drop(silent);
}

/// One of several servers is enough to begin with, whichever comes first.
async fn a_server_that_is_gone_is_passed_over() {
    let place = Place::shared().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for _ in 0..6 {
        let url = format!("etcd://{free},{}", place.host_port());
        let locks = EtcdLocks::builder(url).prefix(&place.prefix).build().await.unwrap();
        granted(locks.acquire(&ask(&common::unique(), seconds(2))).await.unwrap());
    }
}

/// With a user that may do no more than what is said in the documentation.
async fn a_user_with_rights_on_the_prefix_alone_can_do_all() {
    let server = start(testbed::etcd_auth).await;
    let prefix = format!("leasehold/{}/", common::unique());
    let locks = EtcdLocks::builder(server.url()).prefix(&prefix).build().await.unwrap();
    let (one, two) = (ask("x", seconds(5)), queue("x", seconds(5)));
    let grant = granted(locks.acquire(&one).await.unwrap());
    assert!(common::is_held(&locks.acquire(&two).await.unwrap()));
    let mut watch = locks.watch(&two.name, two.owner).await.unwrap();
    assert!(locks.inspect(&one.name).await.unwrap().is_some());
    assert_eq!(locks.release(&give_back(&one, grant)).await.unwrap(), Released::Released);
    in_time(watch.woken()).await;
    let next = granted(locks.acquire(&two).await.unwrap());
    locks.renew(&common::again(&two, next)).await.unwrap();
    assert!(locks.force_release(&two.name).await.unwrap());
    assert!(!format!("{locks:?}").contains("leasehold:leasehold"), "{locks:?}");
}

/// The application's own client shares its connection.
async fn the_applications_client_will_do() {
    let place = Place::shared().await;
    let client = etcd_client::Client::connect([place.host_port()], None).await.unwrap();
    let locks = EtcdLocks::builder(client).prefix(&place.prefix).build().await.unwrap();
    let (request, grant) = common::take(&locks, "x", seconds(5)).await;
    assert_eq!(place.keys("l/x").await.len(), 1);
    assert_eq!(locks.release(&give_back(&request, grant)).await.unwrap(), Released::Released);
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    each_reason_has_its_sentence,
    a_server_that_is_gone_is_passed_over,
    a_user_with_rights_on_the_prefix_alone_can_do_all,
    the_applications_client_will_do,
);
