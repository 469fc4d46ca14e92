//! Fences on three servers, of which the leader is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{
    LONG,
    fences::{Log, fence, resource},
    fresh_path, sleep, start, until,
};
use futures_util::future::join_all;
use lock_core::{Clock, ErrorKind, FenceError, FenceRegister, LockProvider, Locks, Pass, SystemClock};
use lock_zookeeper::{ZooKeeperFences, ZooKeeperLocks, zookeeper_client::Client};
use testbed::ZooKeeperCluster;

fn url(base: &str, path: &str) -> String {
    format!("{}?leasehold_path={path}", base.trim_end_matches('/'))
}

async fn operator(cluster: &ZooKeeperCluster) -> Client {
    let hosts: Vec<_> = (0..cluster.size()).map(|member| cluster.member(member).host_port().to_owned()).collect();
    Client::connector().with_session_timeout(LONG).connect(&hosts.join(",")).await.unwrap()
}

/// Each client writes under tokens that are given out rising, and stays behind with some of them.
async fn what_is_accepted_rises_while_the_leader_is_killed() {
    let cluster = Arc::new(start(testbed::zookeeper_cluster).await);
    let (operator, path, accounts) = (operator(&cluster).await, fresh_path(), resource("accounts"));
    let log = Arc::new(Log::new(&operator, &path).await);
    let (next, stop) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let write = |client: usize| {
        let (next, stop, log, accounts) = (Arc::clone(&next), Arc::clone(&stop), Arc::clone(&log), accounts.clone());
        let acknowledged = Arc::clone(&acknowledged);
        // One at each member and one at all of them.
        let at = if client < cluster.size() { cluster.member_url(client) } else { cluster.url() };
        let register = ZooKeeperFences::builder(url(at, &path)).operation_timeout(Duration::from_secs(2)).build();
        async move {
            let register = register.await.unwrap();
            let (mut good, mut stale, mut doubtful) = (Vec::new(), 0, Vec::new());
            while !stop.load(Ordering::SeqCst) {
                let token = next.fetch_add(1, Ordering::SeqCst);
                for write in 0..3 {
                    let entry = format!("{token}-{write}-{client}");
                    match register.write(&accounts, &fence("x", token), Pass::Again, log.entry(&entry)).await {
                        Ok(_) => {
                            acknowledged.fetch_add(1, Ordering::SeqCst);
                            good.push(entry);
                        }
                        Err(FenceError::Stale(_)) => stale += 1,
                        Err(FenceError::Store(error)) => {
                            // A raise is never seen half done, at whichever member.
                            assert_ne!(error.kind(), ErrorKind::Corrupt, "{error}");
                            // Without its leader a member says so in an instant.
                            sleep(Duration::from_millis(20)).await;
                            doubtful.extend((error.applied() == lock_core::Applied::Maybe).then_some(entry));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            (good, stale, doubtful)
        }
    };
    let writing: Vec<_> = (0..4).map(|client| tokio::spawn(write(client))).collect();
    let count = || acknowledged.load(Ordering::SeqCst);
    until("writes while all is well", || async { count() > 50 }).await;
    let leader = {
        let cluster = Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || {
            let leader = cluster.leader().unwrap();
            cluster.kill(leader).unwrap();
            leader
        })
    };
    let leader = leader.await.unwrap();
    let (killed, before) = (SystemClock.now(), count());
    until("writes under the next leader", || async { count() > before + 50 }).await;
    println!("50 writes more within {:.2?} of the leader's end", SystemClock.now().since(killed));
    {
        let cluster = Arc::clone(&cluster);
        let heal = move || {
            cluster.restart(leader).unwrap();
            cluster.await_all(LONG).unwrap();
        };
        tokio::task::spawn_blocking(heal).await.unwrap();
    }
    let before = count();
    until("writes at all three", || async { count() > before + 50 }).await;
    stop.store(true, Ordering::SeqCst);
    let (mut good, mut stale, mut doubtful) = (Vec::new(), 0, Vec::new());
    for (client, written) in join_all(writing).await.into_iter().map(Result::unwrap).enumerate() {
        println!("client {client}: {} written, {} stale, {} in doubt", written.0.len(), written.1, written.2.len());
        good.extend(written.0);
        stale += written.1;
        doubtful.extend(written.2);
    }
    let kept = log.entries().await;
    let tokens: Vec<u64> = kept.iter().map(|entry| entry.split('-').next().unwrap().parse().unwrap()).collect();
    println!("{} kept, {stale} stale, {} in doubt", kept.len(), doubtful.len());
    assert!(tokens.is_sorted(), "{kept:?}");
    assert!(stale > 0, "nobody was in anybody's way, so this shows nothing");
    let mut unique = kept.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), kept.len(), "each was done once");
    assert!(good.iter().all(|entry| unique.binary_search(entry).is_ok()), "what was acknowledged is there");
    let mut attempted = good;
    attempted.append(&mut doubtful);
    attempted.sort_unstable();
    assert!(kept.iter().all(|entry| attempted.binary_search(entry).is_ok()), "nothing else is there");
    let register = ZooKeeperFences::connect(&url(cluster.url(), &path)).await.unwrap();
    let highest = register.highest(&accounts).await.unwrap().unwrap().token().get();
    assert_eq!(Some(&highest), tokens.last());
}

/// Whichever member the write comes by, and whichever the lock was taken away at.
async fn a_hold_that_was_taken_away_elsewhere_writes_nothing() {
    let cluster = Arc::new(start(testbed::zookeeper_cluster).await);
    let (operator, path) = (operator(&cluster).await, fresh_path());
    let log = Log::new(&operator, &path).await;
    let mut providers = Vec::new();
    for member in 0..cluster.size() {
        let locks = ZooKeeperLocks::connect(&url(cluster.member_url(member), &path)).await.unwrap();
        providers.push(Arc::new(locks));
    }
    let mut written = 0;
    for round in 0..30 {
        let [ours, theirs] = [round % 3, (round + 1 + round / 3 % 2) % 3].map(|at| Arc::clone(&providers[at]));
        let client = Locks::builder_shared(Arc::clone(&ours) as _).build();
        let guard = client.lock("x").ttl(Duration::from_secs(4)).acquire().await.unwrap();
        ours.write(&guard, log.entry(guard.token())).await.unwrap();
        let mut late = operator.new_multi_writer();
        ours.hold(&guard, &mut late).await.unwrap();
        late.add_set_data(&log.path, b"late", None).unwrap();
        let refused = ours.write(&guard, |multi| {
            let force = theirs.force_release(guard.name());
            assert!(tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(force)).unwrap());
            log.entry("late")(multi)
        });
        let refused = refused.await;
        assert!(matches!(refused, Err(FenceError::NotHeld(_))), "{refused:?}");
        assert!(late.commit().await.is_err());
        written += 1;
    }
    let tokens: Vec<u64> = log.entries().await.iter().map(|entry| entry.parse().unwrap()).collect();
    println!("{written} holds taken away at another member; {} writes kept", tokens.len());
    assert_eq!(tokens.len(), written);
    assert!(tokens.is_sorted(), "{tokens:?}");
}

testbed::server_tests!(testbed::zookeeper_cluster =>
    what_is_accepted_rises_while_the_leader_is_killed,
    a_hold_that_was_taken_away_elsewhere_writes_nothing,
);
