//! The fence: tokens rise whatever happens to the server's data.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{Place, again, ask, give_back, name, seconds, start, take, take_when_back};
use lock_core::{Acquired, Durability, ErrorKind, LockProvider, Renewed};
use lock_redis::RedisLocks;

/// Several grants in a row, so that a counter that starts anew is behind; the last one stays held.
async fn several_grants(locks: &RedisLocks) -> (lock_core::AcquireRequest, lock_core::Grant) {
    for _ in 0..5 {
        let (request, grant) = take(locks, "x").await;
        locks.release(&give_back(&request, grant)).await.unwrap();
    }
    take(locks, "x").await
}

async fn they_rise_over_a_wiped_server() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    for wipe in [&["FLUSHALL"][..], &["SCRIPT", "FLUSH"], &["FLUSHALL"]] {
        let (request, old) = several_grants(&locks).await;
        let () = place.command(wipe).await;
        let kept = locks.renew(&again(&request, old)).await.unwrap();
        let wiped = wipe[0] == "FLUSHALL";
        assert_eq!(kept, if wiped { Renewed::Lost } else { Renewed::Held(seconds(30)) });
        if !wiped {
            locks.release(&give_back(&request, old)).await.unwrap();
        }
        let (request, new) = take(&locks, "x").await;
        assert!(new.token > old.token, "{new:?} after {old:?}");
        locks.release(&give_back(&request, new)).await.unwrap();
    }
}

async fn they_rise_over_a_crash_that_loses_everything() {
    let place = Place::with(&["--appendonly", "no"]).await;
    let locks = place.locks().await;
    assert_eq!(locks.capabilities().durability, Durability::Volatile);
    let (request, old) = several_grants(&locks).await;
    let server = place.server;
    let server = start(move || {
        server.kill().unwrap();
        server.start().unwrap();
        server.await_ready(seconds(20)).unwrap();
        Ok(server)
    })
    .await;
    assert_eq!(locks.renew(&again(&request, old)).await.unwrap(), Renewed::Lost, "it was not on the disk");
    let (_, new) = take_when_back(&locks, "x").await;
    assert!(new.token > old.token, "{new:?} after {old:?}");
    drop(server);
}

async fn what_was_on_the_disk_is_held_after_a_crash() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    assert_eq!(locks.capabilities().durability, Durability::Durable);
    let (request, old) = several_grants(&locks).await;
    let server = place.server;
    let server = start(move || {
        server.kill().unwrap();
        server.start().unwrap();
        server.await_ready(seconds(20)).unwrap();
        Ok(server)
    })
    .await;
    assert_eq!(locks.renew(&again(&request, old)).await.unwrap(), Renewed::Held(seconds(30)));
    assert!(matches!(locks.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Held(_)));
    locks.release(&give_back(&request, old)).await.unwrap();
    let (_, new) = take(&locks, "x").await;
    assert!(new.token > old.token);
    drop(server);
}

async fn they_rise_when_a_replica_is_promoted_that_missed_the_last_grant() {
    let place = Place::alone().await;
    let (primary, replica) = start(move || {
        let replica = testbed::redis_replica_of(&place.server)?;
        Ok((place.server, replica))
    })
    .await;
    let locks = RedisLocks::connect(primary.url()).await.unwrap();
    assert_eq!(locks.capabilities().durability, Durability::Volatile, "a fail-over loses what the replica has not got");
    let (request, first) = take(&locks, "x").await;
    locks.release(&give_back(&request, first)).await.unwrap();
    let replicated: u64 = common::command(primary.url(), &["WAIT", "1", "5000"]).await;
    assert_eq!(replicated, 1);
    // From here on the replica hears nothing, as with a cut cable.
    let () = common::command(replica.url(), &["REPLICAOF", "127.0.0.1", "1"]).await;
    let (_, missed) = take(&locks, "x").await;
    assert!(missed.token > first.token);
    let primary = start(move || {
        primary.kill().unwrap();
        Ok(primary)
    })
    .await;
    let () = common::command(replica.url(), &["REPLICAOF", "NO", "ONE"]).await;
    let promoted = RedisLocks::connect(replica.url()).await.unwrap();
    let status = promoted.inspect(&name("x")).await.unwrap().unwrap();
    assert_eq!(status.last_token, Some(first.token), "the last grant is not there: that is what this is about");
    let (_, next) = take(&promoted, "x").await;
    assert!(next.token > missed.token, "{next:?} after {missed:?}");
    drop(primary);
}

async fn a_record_is_kept_for_its_retention_and_a_foreign_one_is_told() {
    let place = Place::shared().await;
    let locks = place.builder().retention(seconds(48 * 3600)).build().await.unwrap();
    let (request, grant) = take(&locks, "x").await;
    let key = place.key("x");
    let least = 48 * 3600 * 1000;
    // In whole milliseconds, of which the end is rounded up and the present down.
    let left: i64 = place.command(&["PTTL", &key]).await;
    assert!((least + 25_000..=least + 30_001).contains(&left), "{left} ms");
    let mut kept = give_back(&request, grant);
    kept.keep_for = seconds(3600);
    locks.release(&kept).await.unwrap();
    let left: i64 = place.command(&["PTTL", &key]).await;
    assert!((least + 3_590_000..=least + 3_600_001).contains(&left), "{left} ms");

    // Somebody else's data under our keys is neither used nor overwritten, and harms no other lock of the group.
    let () = place.command(&["SET", &place.key("text"), "theirs"]).await;
    let _: u64 = place.command(&["HSET", &place.key("odd"), "token", "1e300"]).await;
    let wishes = ["text", "y", "odd"].map(|lock| ask(lock, seconds(30)));
    let answers = locks.acquire_many(&wishes).await;
    for at in [0, 2] {
        let error = answers[at].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, lock_core::Applied::No), "{error}");
    }
    assert!(matches!(answers[1], Ok(Acquired::Granted(_))));
    let kept: String = place.command(&["GET", &place.key("text")]).await;
    assert_eq!(kept, "theirs");
}

/// Held for longer than the retention, renewal by renewal, it must not be forgotten under its holder.
async fn a_record_outlives_its_lease_however_long_that_is_held() {
    let place = Place::shared().await;
    let day = 24 * 3600;
    let locks = place.builder().retention(seconds(day)).build().await.unwrap();
    let (mut request, grant) = take(&locks, "x").await;
    let hold: [(u64, bool); 4] = [(3600, true), (7200, false), (10_800, true), (60, true)];
    for (longest, (ttl, renews)) in [3600, 7200, 10_800, 10_800].into_iter().zip(hold) {
        request.ttl = seconds(ttl);
        if renews {
            assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(request.ttl));
        } else {
            assert_eq!(common::granted(locks.acquire(&request).await.unwrap()).token, grant.token);
        }
        let left: u64 = place.command(&["PTTL", &place.key("x")]).await;
        // Rounded as above.
        let most = (day + longest) * 1000 + 1;
        assert!((most - 10_000..=most).contains(&left), "{left} ms are left to a lease that ends in {longest} s");
    }
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    a_record_outlives_its_lease_however_long_that_is_held,
    they_rise_over_a_wiped_server,
    they_rise_over_a_crash_that_loses_everything,
    what_was_on_the_disk_is_held_after_a_crash,
    they_rise_when_a_replica_is_promoted_that_missed_the_last_grant,
    a_record_is_kept_for_its_retention_and_a_foreign_one_is_told,
);
