//! Rights that are missing: told where they are missed, and in nobody's way.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{OPEN, ask, fresh_path, give_back, in_line, locks, operator, start, take, until, url};
use lock_core::{AcquireRequest, Acquired, Applied, ErrorKind, LockProvider, ReleaseRequest, Tick, TickUse};
use lock_zookeeper::{
    ZooKeeperLocks,
    zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Permission},
};

const TTL: Duration = Duration::from_secs(2);

/// A node in which everybody has these rights, and no others.
async fn restricted(operator: &Client, path: &str, rights: Permission) {
    let acl = [Acl::new(rights, AuthId::anyone())];
    operator.create(path, b"", &CreateMode::Persistent.with_acls(Acls::new(&acl))).await.unwrap();
}

async fn who_may_not_make_heartbeats_is_told_so_and_granted_nothing() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    operator.mkdir(&format!("{path}/locks"), &OPEN).await.unwrap();
    operator.mkdir(&format!("{path}/ticks"), &OPEN).await.unwrap();
    restricted(&operator, &format!("{path}/sessions"), Permission::READ).await;
    // Who only looks needs none.
    let locks = ZooKeeperLocks::connect(&url(&server, &path)).await.unwrap();
    let request = ask("x", TTL);
    assert_eq!(locks.inspect(&request.name).await.unwrap(), None);
    let error = locks.acquire(&request).await.unwrap_err();
    println!("{error}");
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Denied, Applied::No));
    assert!(error.to_string().contains(&format!("not allowed at {path}/sessions")), "{error}");
}

async fn an_entry_that_may_not_be_deleted_ends_with_its_session() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    let ours = locks(&server, &path).await;
    restricted(&operator, &format!("{path}/locks/x"), Permission::CREATE | Permission::READ | Permission::WRITE).await;
    let other = ask("y", TTL);
    let theirs = take(&ours, &other).await;
    let request = ask("x", TTL);
    let grant = take(&ours, &request).await;
    let release = ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token));
    let error = ours.release(&release).await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains(&format!("{path}/locks/x")), "{error}");
    // What else the session keeps is kept, and it takes nothing new.
    give_back(&ours, &other, theirs).await;
    until("the end of the session", || async {
        operator.list_children(&format!("{path}/locks/x")).await.unwrap().is_empty()
    })
    .await;
    assert!(matches!(ours.acquire(&ask("x", TTL)).await.unwrap(), Acquired::Granted(_)));
}

async fn a_place_that_may_not_be_read_is_told_to_be_there() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    let ours = locks(&server, &path).await;
    let rights = Permission::CREATE | Permission::DELETE | Permission::WRITE;
    restricted(&operator, &format!("{path}/locks/x"), rights).await;
    let error = ours.acquire(&in_line("x", TTL)).await.unwrap_err();
    println!("{error}");
    let stays = operator.check_stat(&format!("{path}/locks/x")).await.unwrap().unwrap().num_children > 0;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(error.applied() == Applied::Maybe, stays, "{error}");
}

async fn a_tick_that_may_not_be_read_or_written_is_told_and_leaves_no_place() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    operator.mkdir(&format!("{path}/locks/x"), &OPEN).await.unwrap();
    // Its ticks can be read and not made.
    restricted(&operator, &format!("{path}/ticks"), Permission::READ).await;
    let ours = locks(&server, &path).await;
    let with = |request, tick_use| AcquireRequest { tick: Some(Tick(5)), tick_use, ..request };
    for asked in [ask("x", TTL), in_line("x", TTL)] {
        let error = ours.acquire(&with(asked, TickUse::AtGrant)).await.unwrap_err();
        println!("{error}");
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Denied, Applied::No));
        assert!(error.to_string().contains(&format!("not allowed at {path}/ticks/x")), "{error}");
        assert!(operator.list_children(&format!("{path}/locks/x")).await.unwrap().is_empty());
    }
    // Who uses it up by the release is told so then, and the lock is free all the same when its lease is over.
    let request = with(ask("x", TTL), TickUse::AtRelease);
    let grant = take(&ours, &request).await;
    let mut release = ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token));
    release.done = Some(Tick(5));
    let error = ours.release(&release).await.unwrap_err();
    println!("{error}");
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Denied, Applied::Maybe));
    assert!(error.to_string().contains(&format!("not allowed at {path}/ticks/x")), "{error}");
    until("the end of the lease", || async {
        operator.list_children(&format!("{path}/locks/x")).await.unwrap().is_empty()
    })
    .await;
    // One that can't be read, either.
    let other = ask("y", TTL);
    let theirs = take(&ours, &other).await;
    operator.delete(&format!("{path}/ticks"), None).await.unwrap();
    operator.mkdir(&format!("{path}/ticks"), &OPEN).await.unwrap();
    restricted(&operator, &format!("{path}/ticks/x"), Permission::WRITE).await;
    let error = ours.acquire(&with(ask("x", TTL), TickUse::AtGrant)).await.unwrap_err();
    println!("{error}");
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Denied, Applied::No));
    assert!(error.to_string().contains(&format!("not allowed at {path}/ticks/x")), "{error}");
    // The session and who wants no tick are none the worse.
    take(&ours, &ask("x", TTL)).await;
    give_back(&ours, &other, theirs).await;
}

testbed::server_tests!(testbed::zookeeper =>
    who_may_not_make_heartbeats_is_told_so_and_granted_nothing,
    an_entry_that_may_not_be_deleted_ends_with_its_session,
    a_place_that_may_not_be_read_is_told_to_be_there,
    a_tick_that_may_not_be_read_or_written_is_told_and_leaves_no_place,
);
