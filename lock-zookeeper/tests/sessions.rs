//! Sessions: what their end does, and what is in doubt between a request and its answer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{LONG, ask, fresh_path, give_back, in_line, locks, operator, refused, renewal, start, take, until};
use conformance_tests::Proxy;
use lock_core::{
    Acquired, Clock, LockProvider, LockState, Locks, LossReason, ReleaseRequest, Released, Renewed, SystemClock, Tick,
};
use lock_zookeeper::{ZooKeeperLocks, zookeeper_client::Client};
use testbed::{Server, ZooKeeper};

const TTL: Duration = Duration::from_secs(6);

async fn sessions(operator: &Client, path: &str) -> Vec<i64> {
    let names = operator.list_children(&format!("{path}/sessions")).await.unwrap();
    names.iter().map(|name| i64::from_str_radix(name, 16).unwrap()).collect()
}

/// The two connections of the session get in each other's way now and then: it is tried until it has happened.
async fn expire(server: &Arc<Server>, operator: &Client, path: &str, session: i64) {
    until("the session's end", || async {
        let server = Arc::clone(server);
        let ended = tokio::task::spawn_blocking(move || ZooKeeper::of(&server).expire(session)).await.unwrap();
        let is_there = sessions(operator, path).await.contains(&session);
        ended.is_ok() || !is_there
    })
    .await;
}

async fn when_a_session_ends_its_holder_learns_it_and_its_waiter_stands_in_line_anew() {
    let server = Arc::new(start(testbed::zookeeper).await);
    let (path, operator) = (fresh_path(), operator(&server).await);
    let others = locks(&server, &path).await;
    let theirs = ask("y", Duration::from_secs(50));
    let held = take(&others, &theirs).await;
    let provider = Arc::new(locks(&server, &path).await);
    let client = Locks::builder_shared(provider.clone()).build();
    let guard = client.lock("x").ttl(TTL).acquire().await.unwrap();
    let waiter = {
        let client = client.clone();
        tokio::spawn(async move { client.lock("y").ttl(TTL).acquire().await })
    };
    let in_line = || async { operator.list_children(&format!("{path}/locks/y")).await.unwrap().len() == 2 };
    until("the waiter's place", in_line).await;
    until("a heartbeat of each", || async { sessions(&operator, &path).await.len() >= 2 }).await;
    let token = guard.token();
    let begun = SystemClock.now();
    for session in sessions(&operator, &path).await {
        // The other's holds a lock for longer than this test takes.
        if !is_of(&operator, &path, session, "y", &theirs.owner.to_string()).await {
            expire(&server, &operator, &path, session).await;
        }
    }
    let reason = tokio::time::timeout(LONG, guard.lost()).await.unwrap();
    println!("the holder learnt of its session's end after {:.2?}", SystemClock.now().since(begun));
    assert_eq!(reason, LossReason::NotOurs);
    until("the waiter's new place", in_line).await;
    give_back(&others, &theirs, held).await;
    let got = tokio::time::timeout(LONG, waiter).await.unwrap().unwrap().unwrap();
    // The client goes on with another session.
    let again = client.lock("x").ttl(TTL).acquire().await.unwrap();
    assert!(again.token() > token && got.token() > held.token);
}

/// Whether the owner's entry belongs to this session.
async fn is_of(operator: &Client, path: &str, session: i64, lock: &str, owner: &str) -> bool {
    let lock = format!("{path}/locks/{lock}");
    for child in operator.list_children(&lock).await.unwrap() {
        let stat = operator.check_stat(&format!("{lock}/{child}")).await.unwrap();
        if child.replace('-', "").contains(owner) && stat.is_some_and(|stat| stat.ephemeral_owner == session) {
            return true;
        }
    }
    false
}

async fn a_place_whose_answer_was_lost_is_found_again() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let proxy = Proxy::start(server.host_port().to_owned()).await.unwrap();
    let ours =
        ZooKeeperLocks::connect(&format!("zookeeper://{}?leasehold_path={path}", proxy.address())).await.unwrap();
    let warm = in_line("warm", TTL);
    let grant = take(&ours, &warm).await;
    give_back(&ours, &warm, grant).await;
    for _ in 0..5 {
        // Who waits begins with the write.
        let request = in_line("x", TTL);
        let lost = proxy.lose_reply_to("-lock-");
        let (answer, lost) = tokio::join!(ours.acquire(&request), lost);
        lost.unwrap();
        let Acquired::Granted(grant) = answer.unwrap() else { panic!("nobody else is there") };
        let children = operator.list_children(&format!("{path}/locks/x")).await.unwrap();
        assert_eq!(children.len(), 1, "made once: {children:?}");
        give_back(&ours, &request, grant).await;
        assert_eq!(operator.list_children(&format!("{path}/locks/x")).await.unwrap().len(), 0);
    }
}

async fn a_place_that_nobody_asks_for_again_is_left_by_its_own_process() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let ours = locks(&server, &path).await;
    let holder = ask("x", Duration::from_secs(30));
    let held = take(&ours, &holder).await;
    let mut waiting = in_line("x", Duration::from_secs(30));
    waiting.waiting = lock_core::Waiting::InLine(Duration::from_secs(1));
    refused(&ours, &waiting).await;
    let length = || async { operator.list_children(&format!("{path}/locks/x")).await.unwrap().len() };
    assert_eq!(length().await, 2);
    until("the end of a place", || async { length().await == 1 }).await;
    // The holder's session is the same, and goes on.
    assert!(matches!(ours.renew(&renewal(&holder, held)).await.unwrap(), Renewed::Held(_)));
    give_back(&ours, &holder, held).await;
}

async fn a_client_that_is_dropped_leaves_nothing_behind() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let ours = locks(&server, &path).await;
    take(&ours, &ask("x", Duration::from_secs(50))).await;
    let theirs = locks(&server, &path).await;
    refused(&theirs, &in_line("x", Duration::from_secs(40))).await;
    drop(ours);
    // Long before their ttl: the session is closed with it.
    let length = || async { operator.list_children(&format!("{path}/locks/x")).await.unwrap().len() };
    until("the end of a dropped client's session", || async { length().await == 1 }).await;
    drop(theirs);
    until("the end of the other's", || async { length().await == 0 }).await;
    until("the end of all sessions", || async { sessions(&operator, &path).await.is_empty() }).await;
}

async fn another_client_can_give_back_what_it_knows_the_token_of() {
    let server = start(testbed::zookeeper).await;
    let path = fresh_path();
    let (ours, theirs) = (locks(&server, &path).await, locks(&server, &path).await);
    let request = ask("x", TTL);
    let grant = take(&ours, &request).await;
    let mut release = ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token));
    release.done = Some(Tick(7));
    assert_eq!(theirs.release(&release).await.unwrap(), Released::Released);
    assert_eq!(theirs.release(&release).await.unwrap(), Released::NotHeld);
    let name = request.name.clone();
    assert_eq!(theirs.inspect(&name).await.unwrap().map(|status| status.state), Some(LockState::Free));
    assert_eq!(ours.renew(&renewal(&request, grant)).await.unwrap(), Renewed::Lost);
    let mut late = ask("x", TTL);
    late.tick = Some(Tick(7));
    assert!(matches!(ours.acquire(&late).await.unwrap(), Acquired::Finished(Tick(7))));
    late.tick = Some(Tick(8));
    assert!(matches!(ours.acquire(&late).await.unwrap(), Acquired::Granted(_)));
}

testbed::server_tests!(testbed::zookeeper =>
    when_a_session_ends_its_holder_learns_it_and_its_waiter_stands_in_line_anew,
    a_place_whose_answer_was_lost_is_found_again,
    a_place_that_nobody_asks_for_again_is_left_by_its_own_process,
    a_client_that_is_dropped_leaves_nothing_behind,
    another_client_can_give_back_what_it_knows_the_token_of,
);
