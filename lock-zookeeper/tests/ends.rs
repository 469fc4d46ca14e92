//! Where a lease ends: nothing is promised beyond that, whatever happens at the same moment.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{ask, fresh_path, give_back, in_line, locks, operator, refused, sleep, start, take, until};
use conformance_tests::Proxy;
use lock_core::{
    AcquireRequest, Acquired, Clock, LockProvider, Moment, ReleaseRequest, Released, RenewRequest, Renewed,
    SystemClock, Waiting,
};
use lock_zookeeper::ZooKeeperLocks;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// A client behind a proxy.
async fn behind(proxy: &Proxy, path: &str) -> Arc<ZooKeeperLocks> {
    let url = format!("zookeeper://{}?leasehold_path={path}", proxy.address());
    Arc::new(ZooKeeperLocks::connect(&url).await.unwrap())
}

/// That nobody else is granted the lock before this moment.
async fn nobody_is_granted_before(locks: &ZooKeeperLocks, end: Moment) {
    while SystemClock.now() < end {
        let asked = ask("x", 5 * SECOND);
        let answer = locks.acquire(&asked).await.unwrap();
        assert!(
            !matches!(answer, Acquired::Granted(_)) || SystemClock.now() >= end,
            "another has it {:?} before the end of what was promised",
            end.since(SystemClock.now())
        );
        sleep(10 * MILLI).await;
    }
}

async fn who_asks_again_at_the_end_is_not_granted_what_is_being_ended() {
    let server = start(testbed::zookeeper).await;
    let (path, proxy) = (fresh_path(), Proxy::start(server.host_port().to_owned()).await.unwrap());
    let ours = behind(&proxy, &path).await;
    let theirs = locks(&server, &path).await;
    let request = ask("x", 5 * SECOND);
    let first = take(&ours, &request).await;
    sleep(first.ttl - 300 * MILLI).await;
    proxy.stall();
    let asked = SystemClock.now();
    let again = {
        let (ours, request) = (Arc::clone(&ours), request.clone());
        tokio::spawn(async move { ours.acquire(&request).await })
    };
    sleep(900 * MILLI).await;
    proxy.resume();
    match again.await.unwrap().unwrap() {
        Acquired::Granted(grant) => {
            println!("first {first:?}, then {grant:?}");
            nobody_is_granted_before(&theirs, asked + (grant.ttl - grant.ttl / 100).min(2 * SECOND)).await;
        }
        other => println!("{other:?}"),
    }
}

async fn a_release_beside_an_acquire_leaves_one_of_the_two_true() {
    let server = start(testbed::zookeeper).await;
    let (path, proxy) = (fresh_path(), Proxy::start(server.host_port().to_owned()).await.unwrap());
    let ours = behind(&proxy, &path).await;
    take(&ours, &ask("warm", 5 * SECOND)).await;
    proxy.delay(50 * MILLI);
    for pause in [20, 60, 100, 140].map(Duration::from_millis) {
        let request = in_line("x", 5 * SECOND);
        let acquire = {
            let (ours, request) = (Arc::clone(&ours), request.clone());
            tokio::spawn(async move { (ours.acquire(&request).await, SystemClock.now()) })
        };
        sleep(pause).await;
        let release = ReleaseRequest::new(request.name.clone(), request.owner, None);
        let released = ours.release(&release).await.unwrap();
        let released_at = SystemClock.now();
        let (acquired, acquired_at) = acquire.await.unwrap();
        println!("after {pause:?}: {released:?}, {acquired:?}");
        let Acquired::Granted(grant) = acquired.unwrap() else { panic!("nobody else is there") };
        let renew = RenewRequest::new(request.name.clone(), request.owner, grant.token, request.ttl);
        if matches!(ours.renew(&renew).await.unwrap(), Renewed::Held(_)) {
            give_back(&ours, &request, grant).await;
        } else {
            // It was granted, and then given back.
            assert!(released == Released::Released && acquired_at <= released_at, "granted when it was given back");
        }
    }
}

async fn a_renewal_for_a_shorter_time_is_believed_for_no_longer() {
    let server = start(testbed::zookeeper).await;
    let path = fresh_path();
    let (ours, theirs) = (locks(&server, &path).await, locks(&server, &path).await);
    let request = ask("x", 6 * SECOND);
    let grant = take(&ours, &request).await;
    let short = SECOND;
    sleep(grant.ttl - short / 2).await;
    let asked = SystemClock.now();
    let renew = RenewRequest::new(request.name.clone(), request.owner, grant.token, short);
    let Renewed::Held(left) = ours.renew(&renew).await.unwrap() else { panic!("it was held") };
    println!("renewed by {short:?}: {left:?}");
    assert!(left <= short);
    nobody_is_granted_before(&theirs, asked + left - left / 50).await;
}

async fn a_place_that_was_given_up_while_it_was_asked_for_ends_with_its_ttl() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let proxy = Proxy::start(server.host_port().to_owned()).await.unwrap();
    let ours = behind(&proxy, &path).await;
    take(&ours, &ask("warm", SECOND)).await;
    let length = || async { operator.list_children(&format!("{path}/locks/x")).await.map_or(0, |all| all.len()) };
    proxy.delay(100 * MILLI);
    let asked = SystemClock.now();
    let request = AcquireRequest { waiting: Waiting::InLine(SECOND), ..ask("x", SECOND) };
    let given_up = {
        let ours = Arc::clone(&ours);
        tokio::spawn(async move { ours.acquire(&request).await })
    };
    until("the place", || async { length().await == 1 }).await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled(), "it was given up before its answer came");
    proxy.delay(Duration::ZERO);
    until("the end of the place", || async { length().await == 0 }).await;
    let took = SystemClock.now().since(asked);
    println!("a place with a ttl of 1 s was left after {took:.2?}");
    assert!(took < 2 * SECOND, "{took:?}");
}

async fn a_waiter_that_is_behind_is_told_so_after_its_ttl_too() {
    let server = start(testbed::zookeeper).await;
    let path = fresh_path();
    let (ours, theirs) = (locks(&server, &path).await, locks(&server, &path).await);
    let holder = ask("x", 10 * SECOND);
    take(&ours, &holder).await;
    let waiting = AcquireRequest { waiting: Waiting::InLine(4 * SECOND), ..ask("x", SECOND) };
    assert_eq!(refused(&theirs, &waiting).await.position, Some(0));
    sleep(2 * SECOND).await;
    // Its place is the same one.
    let behind = in_line("x", SECOND);
    assert_eq!(refused(&theirs, &behind).await.position, Some(1));
    assert_eq!(refused(&theirs, &waiting).await.position, Some(0));
}

testbed::server_tests!(testbed::zookeeper =>
    who_asks_again_at_the_end_is_not_granted_what_is_being_ended,
    a_release_beside_an_acquire_leaves_one_of_the_two_true,
    a_renewal_for_a_shorter_time_is_believed_for_no_longer,
    a_place_that_was_given_up_while_it_was_asked_for_ends_with_its_ttl,
    a_waiter_that_is_behind_is_told_so_after_its_ttl_too,
);
