//! A tick that was finished isn't granted again, whichever way the question takes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{LONG, OPEN, ask, fresh_path, in_line, locks, operator, refused, start, take};
use conformance_tests::Proxy;
use lock_core::{AcquireRequest, Acquired, ErrorKind, LockProvider, ReleaseRequest, Released, Tick};
use lock_zookeeper::ZooKeeperLocks;

const TTL: Duration = Duration::from_secs(6);

async fn finish(locks: &ZooKeeperLocks, name: &str, tick: Tick) {
    let request = ask(name, TTL);
    let grant = take(locks, &request).await;
    let mut release = ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token));
    release.done = Some(tick);
    assert_eq!(locks.release(&release).await.unwrap(), Released::Released);
}

async fn a_tick_that_is_finished_while_one_waits_for_it_is_not_granted() {
    let server = start(testbed::zookeeper).await;
    let path = fresh_path();
    let (ours, theirs) = (locks(&server, &path).await, locks(&server, &path).await);
    let request = ask("x", TTL);
    let grant = take(&ours, &request).await;
    let waiters = [5, 6].map(|tick| AcquireRequest { tick: Some(Tick(tick)), ..in_line("x", TTL) });
    for waiter in &waiters {
        refused(&theirs, waiter).await;
    }
    let mut release = ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token));
    release.done = Some(Tick(5));
    assert_eq!(ours.release(&release).await.unwrap(), Released::Released);
    let answer = theirs.acquire(&waiters[0]).await.unwrap();
    assert!(matches!(answer, Acquired::Finished(Tick(5))), "{answer:?}");
    // Whose place isn't in the way of the next, and the next's tick isn't finished.
    let answer = theirs.acquire(&waiters[1]).await.unwrap();
    assert!(matches!(answer, Acquired::Granted(_)), "{answer:?}");
}

async fn a_tick_is_looked_at_also_where_an_answer_was_lost() {
    let server = start(testbed::zookeeper).await;
    let path = fresh_path();
    let proxy = Proxy::start(server.host_port().to_owned()).await.unwrap();
    let ours =
        ZooKeeperLocks::connect(&format!("zookeeper://{}?leasehold_path={path}", proxy.address())).await.unwrap();
    finish(&ours, "x", Tick(5)).await;
    let request = AcquireRequest { tick: Some(Tick(5)), ..in_line("x", TTL) };
    let lost = proxy.lose_reply_to("-lock-");
    let (answer, lost) = tokio::join!(ours.acquire(&request), tokio::time::timeout(LONG, lost));
    lost.unwrap().unwrap();
    let answer = answer.unwrap();
    assert!(matches!(answer, Acquired::Finished(Tick(5))), "{answer:?}");
}

async fn a_tick_that_cannot_be_read_grants_nothing() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let ours = locks(&server, &path).await;
    operator.create(&format!("{path}/ticks/x"), b"garbage", &OPEN).await.unwrap();
    for asked in [ask("x", TTL), in_line("x", TTL)] {
        let error = ours.acquire(&AcquireRequest { tick: Some(Tick(5)), ..asked }).await.unwrap_err();
        println!("{error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&format!("{path}/ticks/x")), "{error}");
    }
    // It is in nobody's way who asks for no tick.
    take(&ours, &ask("x", TTL)).await;
}

async fn a_tick_that_was_granted_is_granted_still() {
    let server = start(testbed::zookeeper).await;
    let path = fresh_path();
    let ours = locks(&server, &path).await;
    finish(&ours, "x", Tick(5)).await;
    let request = AcquireRequest { tick: Some(Tick(6)), ..ask("x", TTL) };
    let grant = take(&ours, &request).await;
    assert_eq!(take(&ours, &request).await.token, grant.token);
}

testbed::server_tests!(testbed::zookeeper =>
    a_tick_that_is_finished_while_one_waits_for_it_is_not_granted,
    a_tick_is_looked_at_also_where_an_answer_was_lost,
    a_tick_that_cannot_be_read_grants_nothing,
    a_tick_that_was_granted_is_granted_still,
);
