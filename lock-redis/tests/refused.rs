//! What can't work is refused soon, in one sentence that tells what to do, and without a password.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{PASSWORD, Place, ask, command, give_back, seconds, start, take};
use lock_core::{Applied, Clock, ErrorKind, LockProvider, OwnerId, Released, StoreError, SystemClock};
use lock_redis::{Builder, RedisLocks};

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
    assert!(!debug.contains(WRONG) && !debug.contains(PASSWORD_IN_URL), "{debug}");
    let start = SystemClock.now();
    let error = builder.build().await.unwrap_err();
    let took = SystemClock.now().since(start);
    assert!(!shown(&error).contains(WRONG), "{}", shown(&error));
    assert!(!error.to_string().contains('\n'), "{error}");
    assert_eq!(error.applied(), Applied::No);
    assert!(error.to_string().starts_with("redis: "), "{error}");
    println!("{error}");
    (error, took)
}

/// As a URL writes it: the word itself is also the default prefix.
const PASSWORD_IN_URL: &str = ":leasehold@";

async fn expect(builder: Builder, kind: ErrorKind, says: &str) {
    let (error, took) = refused(builder).await;
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    assert!(took < seconds(5), "{took:?}: {error}");
}

async fn each_reason_has_its_sentence() {
    let place = Place::alone().await;
    let at = place.server.host_port().to_owned();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Connections are accepted, and nothing is ever said.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    for (url, kind, says) in [
        (format!("redis://:{WRONG}@{at}"), ErrorKind::Denied, "refused the user or the password"),
        (format!("redis://nobody:{WRONG}@{at}"), ErrorKind::Denied, "refused the user or the password"),
        (format!("redis://{at}"), ErrorKind::Denied, "wants a password"),
        (format!("redis://:{PASSWORD}@{at}/77"), ErrorKind::InvalidConfig, "no database of that number"),
        (format!("redis://u:{WRONG}@{free}"), ErrorKind::Unreachable, "nothing listens at 127.0.0.1"),
        (format!("redis://u:{WRONG}@{silent_at}"), ErrorKind::Unreachable, "didn't answer within 3s"),
        (format!("redis://u:{WRONG}@no-such-host.invalid"), ErrorKind::Unreachable, "can't be found"),
        (format!("redis+unix:///nowhere/redis.sock?pass={WRONG}"), ErrorKind::Unreachable, "no server socket"),
        (format!("rediss://:{WRONG}@{at}"), ErrorKind::Unreachable, "doesn't speak TLS"),
        (format!("redis-cluster://:{WRONG}@{free}"), ErrorKind::Unreachable, "no node of the cluster"),
        (format!("redis-sentinel://:{WRONG}@{free}?sentinelServiceName=x"), ErrorKind::Unreachable, "nothing listens"),
        (format!("redis-cluster://:{PASSWORD}@{at}"), ErrorKind::InvalidConfig, "no node of a cluster"),
        (format!("redis-sentinel://{at}?sentinelPassword={PASSWORD}#x"), ErrorKind::InvalidConfig, "no sentinel"),
        (format!("mysql://u:{WRONG}@{at}"), ErrorKind::InvalidConfig, "redis://"),
    ] {
        expect(RedisLocks::builder(url.as_str()), kind, says).await;
    }
    drop(silent);
}

async fn a_server_that_evicts_locks_is_refused_unless_allowed() {
    let place = Place::with(&["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"]).await;
    expect(place.builder(), ErrorKind::NotReady, "set maxmemory-policy to noeviction").await;
    take(&place.builder().allow_eviction(true).build().await.unwrap(), "x").await;
    // Without a limit nothing is evicted.
    let () = place.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    take(&place.locks().await, "y").await;
    let () = place.command(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "noeviction"]).await;
    take(&place.locks().await, "z").await;
}

async fn a_server_that_tells_no_settings_promises_nothing() {
    let place = Place::alone().await;
    let user = ["ACL", "SETUSER", "app", "on", ">s3cret-word", "allkeys", "allchannels", "+@all", "-config"];
    let () = place.command(&user).await;
    let url = format!("redis://app:{WRONG}@{}", place.server.host_port());
    let locks = RedisLocks::connect(&url).await.unwrap();
    assert_eq!(locks.capabilities().durability, lock_core::Durability::Volatile);
    // The policy is told by INFO as well.
    let () = place.command(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lfu"]).await;
    expect(RedisLocks::builder(url), ErrorKind::NotReady, "allkeys-lfu").await;
}

async fn rights_that_are_missing_show_at_the_start() {
    let place = Place::alone().await;
    let at = place.server.host_port().to_owned();
    for (user, rights) in [
        ("keys", &["~other:*", "&*", "+@all"][..]),
        ("channels", &["~*", "resetchannels", "+@all"]),
        ("commands", &["~*", "&*", "+@all", "-pexpireat"]),
    ] {
        let mut words = vec!["ACL", "SETUSER", user, "on", ">s3cret-word"];
        words.extend(rights);
        let () = place.command(&words).await;
        expect(RedisLocks::builder(format!("redis://{user}:{WRONG}@{at}")), ErrorKind::Denied, "may not").await;
    }
    // And these are enough.
    let rights = ["ACL", "SETUSER", "app", "on", ">s3cret-word", "~leasehold:*", "&leasehold:*", "-@all"];
    let commands = "+evalsha +eval +hmget +hset +hdel +pexpireat +publish +subscribe +time +info +ping +scan";
    let words: Vec<_> = rights.into_iter().chain(commands.split(' ')).collect();
    let () = place.command(&words).await;
    let locks = RedisLocks::connect(&format!("redis://app:{WRONG}@{at}")).await.unwrap();
    let (request, grant) = take(&locks, "x").await;
    let _watch = locks.watch(&request.name, OwnerId::from_u128(1)).await.unwrap();
    locks.release(&give_back(&request, grant)).await.unwrap();
}

async fn a_replica_is_not_for_locks() {
    let primary = start(testbed::redis_private).await;
    let (_primary, replica) = start(move || {
        let replica = testbed::redis_replica_of(&primary)?;
        Ok((primary, replica))
    })
    .await;
    expect(RedisLocks::builder(replica.url()), ErrorKind::NotReady, "connect to the primary").await;
    // One that becomes a replica later says so too, and nothing was applied.
    let () = command(replica.url(), &["REPLICAOF", "NO", "ONE"]).await;
    let locks = RedisLocks::connect(replica.url()).await.unwrap();
    let (host, port) = _primary.host_port().split_once(':').unwrap();
    let () = command(replica.url(), &["REPLICAOF", host, port]).await;
    let error = locks.acquire(&ask("x", seconds(30))).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
    assert!(error.to_string().contains("read-only replica"), "{error}");
    println!("{error}");
}

async fn a_full_server_says_so_and_still_takes_locks_back() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let () = place.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let error = locks.acquire(&ask("y", seconds(30))).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
    assert!(error.to_string().contains("raise maxmemory"), "{error}");
    println!("{error}");
    assert_eq!(locks.release(&give_back(&request, grant)).await.unwrap(), Released::Released);
    expect(place.builder(), ErrorKind::NotReady, "raise maxmemory").await;
    let () = place.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(take(&locks, "x").await.1.token > grant.token);
}

async fn too_few_replicas_are_told_and_pass() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let () = place.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let error = locks.acquire(&ask("x", seconds(30))).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    assert!(error.to_string().contains("min-replicas-to-write"), "{error}");
    println!("{error}");
    let () = place.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    take(&locks, "x").await;
}

async fn a_provider_shows_no_password() {
    let place = Place::alone().await;
    let user = ["ACL", "SETUSER", "app", "on", ">s3cret-word", "allkeys", "allchannels", "+@all"];
    let () = place.command(&user).await;
    let locks = RedisLocks::connect(&format!("redis://app:{WRONG}@{}", place.server.host_port())).await.unwrap();
    assert!(!format!("{locks:?} {locks:#?}").contains(WRONG));
    take(&locks, "x").await;
}

/// It answers a greeting it doesn't know by quoting it, and the greeting holds the password.
async fn a_server_without_its_greeting_is_not_quoted() {
    let server = start(|| testbed::redis_private_with(&["--rename-command", "HELLO", ""])).await;
    let url = format!("redis://:{WRONG}@{}", server.host_port());
    expect(RedisLocks::builder(url.as_str()), ErrorKind::NotReady, "HELLO").await;
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    each_reason_has_its_sentence,
    a_server_that_evicts_locks_is_refused_unless_allowed,
    a_server_that_tells_no_settings_promises_nothing,
    rights_that_are_missing_show_at_the_start,
    a_replica_is_not_for_locks,
    a_server_without_its_greeting_is_not_quoted,
    a_full_server_says_so_and_still_takes_locks_back,
    too_few_replicas_are_told_and_pass,
    a_provider_shows_no_password,
);
