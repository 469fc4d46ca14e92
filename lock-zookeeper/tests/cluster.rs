//! Three servers, and what can happen to them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{LONG, ask, fresh_path, renewal, sleep, start, take};
use conformance_tests::Contention;
use lock_core::{Acquired, Clock, LockProvider, Moment, Renewed, SystemClock};
use lock_zookeeper::{ZooKeeperLocks, zookeeper_client::Client};
use testbed::ZooKeeperCluster;

const TTL: Duration = Duration::from_secs(2);

fn now() -> Moment {
    SystemClock.now()
}

/// Does something to the cluster that takes a while.
async fn with<T: Send + 'static>(
    cluster: &Arc<ZooKeeperCluster>,
    work: impl FnOnce(&ZooKeeperCluster) -> T + Send + 'static,
) -> T {
    let cluster = Arc::clone(cluster);
    tokio::task::spawn_blocking(move || work(&cluster)).await.unwrap()
}

async fn clients(cluster: &ZooKeeperCluster, path: &str, count: usize) -> Vec<Arc<dyn LockProvider>> {
    let mut clients: Vec<Arc<dyn LockProvider>> = Vec::new();
    for _ in 0..count {
        let url = format!("{}?leasehold_path={path}", cluster.url().trim_end_matches('/'));
        clients.push(Arc::new(ZooKeeperLocks::connect(&url).await.unwrap()));
    }
    clients
}

/// Eight clients fight over two locks while this is done to the cluster, and undone.
async fn contended(
    what: &str,
    harm: impl FnOnce(&ZooKeeperCluster) -> usize + Send + 'static,
    heal: impl FnOnce(&ZooKeeperCluster, usize) + Send + 'static,
) {
    let cluster = Arc::new(start(testbed::zookeeper_cluster).await);
    let clients = clients(&cluster, &fresh_path(), 8).await;
    let mut contention = Contention::start(clients, 2, TTL).unwrap();
    let grants = || async { contention.grants() > 20 };
    common::until("work while all is well", grants).await;
    let member = with(&cluster, harm).await;
    // The majority has what it needs for all that follows.
    contention.mark();
    sleep(Duration::from_secs(8)).await;
    with(&cluster, move |cluster| {
        heal(cluster, member);
        cluster.await_all(LONG).unwrap();
    })
    .await;
    contention.mark();
    contention.until_all_are_back(Duration::from_secs(40)).await;
    let seen = contention.stop().await.unwrap();
    println!("{what}: {seen:?}");
    // A new leader is elected, old sessions are over, and everybody has had a turn.
    assert!(seen.back_after.iter().all(|back| *back < Duration::from_secs(12)), "{what}: {seen:?}");
}

async fn a_leader_is_killed() {
    contended(
        "leader killed",
        |cluster| {
            let leader = cluster.leader().unwrap();
            cluster.kill(leader).unwrap();
            leader
        },
        |cluster, member| cluster.restart(member).unwrap(),
    )
    .await;
}

async fn a_leader_stands_still() {
    contended(
        "leader frozen",
        |cluster| {
            let leader = cluster.leader().unwrap();
            cluster.freeze(leader).unwrap();
            leader
        },
        |cluster, member| cluster.thaw(member).unwrap(),
    )
    .await;
}

async fn a_leader_is_cut_off() {
    contended(
        "leader cut off from the others, not from its clients",
        |cluster| {
            let leader = cluster.leader().unwrap();
            cluster.cut_off(leader).unwrap();
            leader
        },
        |cluster, member| cluster.heal(member).unwrap(),
    )
    .await;
}

async fn a_follower_is_cut_off() {
    contended(
        "follower cut off from the others, not from its clients",
        |cluster| {
            let follower = (cluster.leader().unwrap() + 1) % cluster.size();
            cluster.cut_off(follower).unwrap();
            follower
        },
        |cluster, member| cluster.heal(member).unwrap(),
    )
    .await;
}

async fn a_leader_is_gone_from_the_network() {
    contended(
        "leader isolated",
        |cluster| {
            let leader = cluster.leader().unwrap();
            cluster.isolate(leader).unwrap();
            leader
        },
        |cluster, member| cluster.heal(member).unwrap(),
    )
    .await;
}

/// What the cut-off member answers is no proof: it goes on answering when the holder believes no longer, and when the
/// majority has let another in.
async fn what_a_member_that_is_cut_off_answers_proves_nothing() {
    let cluster = Arc::new(start(testbed::zookeeper_cluster).await);
    // Shorter than a follower needs to notice (syncLimit, 10 ticks of 100 ms), so that its answers are seen to be wrong.
    let ttl = Duration::from_millis(600);
    for to_leader in [false, true] {
        let path = fresh_path();
        let (leader, cut) = with(&cluster, move |cluster| {
            let leader = cluster.await_leader(LONG, |_| true).unwrap();
            (leader, if to_leader { leader } else { (leader + 1) % cluster.size() })
        })
        .await;
        let there = (0..cluster.size()).find(|member| *member != cut && (to_leader || *member == leader)).unwrap();
        let at = |member: usize| format!("{}?leasehold_path={path}", cluster.member_url(member).trim_end_matches('/'));
        let holder = ZooKeeperLocks::connect(&at(cut)).await.unwrap();
        let other = ZooKeeperLocks::connect(&at(there)).await.unwrap();
        let request = ask("x", ttl);
        let grant = take(&holder, &request).await;
        // The same kind of session, at the same member, that believes in answers to reads.
        let host = cluster.member(cut).host_port().to_owned();
        let naive = Client::connector().with_session_timeout(ttl).connect(&host).await.unwrap();
        // A lease that is renewed until it can't be.
        let mut safe_until = now() + grant.ttl;
        for _ in 0..5 {
            let asked = now();
            if let Renewed::Held(ttl) = holder.renew(&renewal(&request, grant)).await.unwrap() {
                safe_until = safe_until.max(asked + ttl);
            }
            sleep(ttl / 4).await;
        }
        with(&cluster, move |cluster| cluster.cut_off(cut).unwrap()).await;
        let cut_at = now();
        let renewing = {
            let (holder, request) = (holder.clone(), request.clone());
            tokio::spawn(async move {
                let mut safe_until = safe_until;
                let end = now() + Duration::from_secs(6);
                while now() < end {
                    let asked = now();
                    match holder.renew(&renewal(&request, grant)).await {
                        Ok(Renewed::Held(ttl)) => safe_until = safe_until.max(asked + ttl),
                        Ok(_) => break,
                        Err(_) => {}
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                safe_until
            })
        };
        let reading = {
            let path = path.clone();
            tokio::spawn(async move {
                let mut last_answer = None;
                while now() < cut_at + Duration::from_secs(6) {
                    let asked = now();
                    let read = tokio::time::timeout(Duration::from_millis(200), naive.check_stat(&path)).await;
                    if let Ok(Ok(_)) = read {
                        last_answer = Some(asked);
                    }
                    sleep(Duration::from_millis(5)).await;
                }
                last_answer.unwrap()
            })
        };
        let taken_at = loop {
            let next = ask("x", Duration::from_secs(10));
            if let Ok(Acquired::Granted(next)) = other.acquire(&next).await {
                assert!(next.token > grant.token);
                break now();
            }
            assert!(now().since(cut_at) < LONG, "nobody got it");
            sleep(Duration::from_millis(5)).await;
        };
        let (safe_until, answered) = (renewing.await.unwrap(), reading.await.unwrap());
        println!(
            "{} cut off: believed until {:?} after the cut, given away after {:?}; reads were answered until {:?}, which would have been believed until {:?}",
            if to_leader { "leader" } else { "follower" },
            safe_until.since(cut_at),
            taken_at.since(cut_at),
            answered.since(cut_at),
            (answered + ttl).since(cut_at),
        );
        assert!(safe_until <= taken_at, "believed for {:?} too long", safe_until.since(taken_at));
        assert!(answered > safe_until, "the member noticed before it could be wrong, so this shows nothing");
        // A new leader begins with whole sessions, which comes later still.
        assert!(to_leader || answered + ttl > taken_at, "the member's answers were right, so this shows nothing");
        with(&cluster, move |cluster| {
            cluster.heal(cut).unwrap();
            cluster.await_all(LONG).unwrap();
        })
        .await;
    }
}

testbed::server_tests!(testbed::zookeeper_cluster =>
    a_leader_is_killed,
    a_leader_stands_still,
    a_leader_is_cut_off,
    a_follower_is_cut_off,
    a_leader_is_gone_from_the_network,
    what_a_member_that_is_cut_off_answers_proves_nothing,
);
