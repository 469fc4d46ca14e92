//! What can't work is refused soon, in one sentence that tells what to do, and without a password.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{OPEN, ask, fresh_path, give_back, operator, start, take, url};
use lock_core::{AcquireRequest, Applied, Clock, ErrorKind, LockProvider, StoreError, SystemClock};
use lock_zookeeper::{
    Builder, ZooKeeperLocks,
    zookeeper_client::{Acl, Acls, AuthId, CreateMode, Permission},
};

const WRONG: &str = "s3cret-word";
const TTL: Duration = Duration::from_secs(10);

fn shown(error: &StoreError) -> String {
    let mut shown = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        shown += &format!(" {next} {next:?}");
        cause = next.source();
    }
    shown
}

async fn expect(builder: Builder, kind: ErrorKind, says: &str) {
    assert!(!format!("{builder:?}").contains(WRONG));
    let begun = SystemClock.now();
    let error = builder.build().await.unwrap_err();
    let took = SystemClock.now().since(begun);
    println!("{took:.1?}: {error}");
    assert!(!shown(&error).contains(WRONG) && !error.to_string().contains('\n'), "{}", shown(&error));
    assert_eq!((error.kind(), error.applied()), (kind, Applied::No), "{error}");
    assert!(error.to_string().starts_with("zookeeper: ") && error.to_string().contains(says), "{error}");
    assert!(took < Duration::from_secs(5), "{took:?}: {error}");
}

async fn each_reason_has_its_sentence() {
    let server = start(testbed::zookeeper).await;
    let at = server.host_port();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Connections are accepted, and nothing is ever said.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    for (url, kind, says) in [
        (format!("zookeeper://u:{WRONG}@{free}"), ErrorKind::Unreachable, "can't be reached: connection refused"),
        (format!("zookeeper://u:{WRONG}@{silent_at}"), ErrorKind::Unreachable, "opened no session within 3s"),
        // To which there is no way, so that each try fails at once and nothing is ever waited for.
        (format!("zookeeper://u:{WRONG}@255.255.255.255:2181"), ErrorKind::Unreachable, "can't be reached: "),
        (format!("zookeeper://u:{WRONG}@no-such-host.invalid"), ErrorKind::Unreachable, "failed to lookup address"),
        (format!("zookeeper://u:{WRONG}@{at}/no/such"), ErrorKind::NotReady, "the chroot /no/such isn't there"),
        (format!("mysql://u:{WRONG}@{at}"), ErrorKind::InvalidConfig, "zookeeper://"),
        (format!("zookeepers://u:{WRONG}@{at}"), ErrorKind::InvalidConfig, "TLS"),
    ] {
        expect(ZooKeeperLocks::builder(url), kind, says).await;
    }
}

async fn who_may_not_is_told_so() {
    let server = start(testbed::zookeeper).await;
    let (at, path) = (server.host_port(), fresh_path());
    let of = |login: &str| format!("zookeeper://{login}@{at}?leasehold_path={path}");
    let owner = ZooKeeperLocks::connect(&of("ann:apple")).await.unwrap();
    let request = ask("x", TTL);
    let grant = take(&owner, &request).await;
    // What one user made is nobody else's: neither another's, nor that of who forgot the password.
    for login in [format!("ann:{WRONG}"), format!("bob:{WRONG}")] {
        expect(ZooKeeperLocks::builder(of(&login)), ErrorKind::Denied, "check user and password").await;
    }
    expect(ZooKeeperLocks::builder(url(&server, &path)), ErrorKind::Denied, "check user and password").await;
    give_back(&owner, &request, grant).await;
    // Unless that is said.
    let path = fresh_path();
    let open = ZooKeeperLocks::builder(format!("zookeeper://ann:apple@{at}")).path(&path).open_acl(true);
    open.build().await.unwrap();
    take(&ZooKeeperLocks::connect(&url(&server, &path)).await.unwrap(), &request).await;
}

async fn a_right_that_is_missing_is_told_where_it_is_missed() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    operator.mkdir(&path, &OPEN).await.unwrap();
    operator.mkdir(&format!("{path}/ticks"), &OPEN).await.unwrap();
    operator.mkdir(&format!("{path}/sessions"), &OPEN).await.unwrap();
    let read = [Acl::new(Permission::READ, AuthId::anyone())];
    let options = CreateMode::Persistent.with_acls(Acls::new(&read));
    operator.create(&format!("{path}/locks"), b"", &options).await.unwrap();
    let locks = ZooKeeperLocks::connect(&url(&server, &path)).await.unwrap();
    let error = locks.acquire(&ask("x", TTL)).await.unwrap_err();
    println!("{error}");
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Denied, Applied::No));
    assert!(error.to_string().contains(&format!("not allowed at {path}/locks/x")), "{error}");
    // And where not even the first node may be made.
    let bare = fresh_path();
    operator.create(&bare, b"", &options).await.unwrap();
    let below = ZooKeeperLocks::builder(url(&server, &format!("{bare}/below")));
    expect(below, ErrorKind::Denied, "not allowed at").await;
}

async fn a_ttl_that_no_session_has_is_refused_with_the_range() {
    let server = start(testbed::zookeeper).await;
    let locks = common::locks(&server, &fresh_path()).await;
    let range = locks.capabilities().ttl;
    assert_eq!((range.min, range.max), (Duration::from_millis(200), Duration::from_secs(60)));
    for ttl in [range.min - Duration::from_nanos(1), range.max + Duration::from_nanos(1)] {
        let error = locks.acquire(&AcquireRequest { ttl, ..ask("x", ttl) }).await.unwrap_err();
        assert_eq!((error.kind(), error.applied()), (ErrorKind::InvalidTtl, Applied::No));
        assert!(error.to_string().contains("200ms to 60s"), "{error}");
    }
    for ttl in [range.min, range.max] {
        let request = ask("x", ttl);
        let grant = take(&locks, &request).await;
        assert!(grant.ttl <= ttl && grant.ttl > ttl / 2, "{grant:?}");
        give_back(&locks, &request, grant).await;
    }
}

async fn one_server_of_three_is_no_majority() {
    let cluster = start(testbed::zookeeper_cluster).await;
    cluster.kill(1).unwrap();
    cluster.kill(2).unwrap();
    // The last one notices, and lets nobody in.
    expect(ZooKeeperLocks::builder(cluster.url()), ErrorKind::Unreachable, "a majority of them see each other").await;
}

testbed::server_tests!(testbed::zookeeper =>
    each_reason_has_its_sentence,
    who_may_not_is_told_so,
    a_right_that_is_missing_is_told_where_it_is_missed,
    a_ttl_that_no_session_has_is_refused_with_the_range,
    one_server_of_three_is_no_majority,
);
