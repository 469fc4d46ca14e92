//! Fenced scripts in a cluster: of one slot, and never run twice though the driver sends them again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{lossy::Lossy, name, start, take};
use lock_core::{Applied, ErrorKind, Fence, FenceError, FenceRegister, FencingToken, Pass, Resource};
use lock_redis::{
    RedisFences, RedisLocks,
    redis::{self, cluster::ClusterClient},
};
use testbed::RedisCluster;

fn url(cluster: &RedisCluster) -> String {
    let hosts: Vec<_> = cluster.iter().map(|node| node.host_port()).collect();
    format!("redis-cluster://:{}@{}", common::PASSWORD, hosts.join(","))
}

fn fence(text: &str) -> Fence {
    text.parse().unwrap()
}

const APPEND: &str = "return redis.call('RPUSH', KEYS[1], ARGV[1])";

async fn keys_of_one_slot_are_written_together_and_others_are_told() {
    let cluster = start(testbed::redis_cluster).await;
    let (fences, locks) =
        (RedisFences::connect(&url(&cluster)).await.unwrap(), RedisLocks::connect(&url(&cluster)).await.unwrap());
    let mut plain = ClusterClient::new(cluster.urls()).unwrap().get_async_connection().await.unwrap();
    let append = fences.script(APPEND);
    let names: Vec<_> =
        (0..30).map(|at| format!("r{at}")).chain(["}", "a}b", "{x}", "%", "a b"].map(str::to_owned)).collect();
    for resource in &names {
        let resource = Resource::new(resource).unwrap();
        let data = format!("{}:data", RedisFences::tag(&resource));
        let write = |by: &str| {
            let (call, by, resource) = (append.key(&data).arg(by), fence(by), resource.clone());
            async move { call.run::<u64>(&resource, &by, Pass::Again).await }
        };
        assert_eq!(write("5@x").await.unwrap(), 1);
        fences.raise(&resource, &fence("6@x"), Pass::Once).await.unwrap();
        assert!(matches!(write("5@x").await.unwrap_err(), FenceError::Stale(_)));
        assert!(matches!(write("7@y").await.unwrap_err(), FenceError::OtherLock(_)));
        assert_eq!(fences.highest(&resource).await.unwrap(), Some(fence("6@x")));
        assert_eq!(write("6@x").await.unwrap(), 2);
        let entries: Vec<String> =
            redis::cmd("LRANGE").arg(&data).arg(0).arg(-1).query_async(&mut plain).await.unwrap();
        assert_eq!(entries, ["5@x", "6@x"]);
    }
    for node in cluster.iter() {
        let keys: u64 = common::command(node.url(), &["DBSIZE"]).await;
        assert!(keys >= 10, "they are spread: {keys} keys");
    }
    for lock in ["a", "b", "c", "a}b", "{a}", "}"] {
        let (_, grant) = take(&locks, lock).await;
        let held = Fence::new(name(lock), grant.token).unwrap();
        let append = locks.script(APPEND);
        match RedisLocks::tag(held.lock()) {
            Some(tag) => {
                // Locks may share a tag, so it is not the whole name.
                let call = || append.key(format!("{tag}:of {lock}")).arg("x");
                assert_eq!(call().run::<u64>(&held).await.unwrap(), 1, "{lock}");
                let stale = Fence::new(name(lock), FencingToken::new(5)).unwrap();
                let error = call().run::<u64>(&stale).await.unwrap_err();
                assert!(matches!(error, FenceError::NotHeld(_)), "{error}");
            }
            None => {
                assert_eq!(lock, "}");
                // Its own record can't be written together with anything, not even with the mark of the call.
                let error = append.call().run::<u64>(&held).await.unwrap_err();
                let FenceError::Store(told) = &error else { panic!("{error}") };
                assert_eq!((told.kind(), told.applied()), (ErrorKind::InvalidConfig, Applied::No), "{error}");
                assert!(told.to_string().contains("closing brace"), "{told}");
                println!("{error}");
            }
        }
    }
    // Told before anything is sent, by the name of the key.
    let accounts = Resource::new("accounts").unwrap();
    let error = append.key("elsewhere").arg("x").run::<u64>(&accounts, &fence("5@x"), Pass::Again).await.unwrap_err();
    let FenceError::Store(told) = &error else { panic!("{error}") };
    assert_eq!((told.kind(), told.applied()), (ErrorKind::InvalidConfig, Applied::No));
    assert!(told.to_string().contains("\"elsewhere\" isn't in that of \"leasehold:{accounts}:fence\""), "{told}");
    assert_eq!(fences.highest(&accounts).await.unwrap(), None);
    println!("{} resources on 3 nodes; {error}", names.len());
    // One that says that it only reads: the mark of the call is a write.
    let (_, grant) = take(&locks, "read").await;
    let only_reads = locks.script("#!lua flags=no-writes\nreturn 1").call();
    let error = only_reads.run::<u64>(&Fence::new(name("read"), grant.token).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("not allowed from read-only scripts"), "{error}");
    // What a script does to keys that it wasn't given, the server refuses.
    let stray = fences.script("return redis.call('SET', 'elsewhere', 'x')");
    let error = stray.call().run::<()>(&accounts, &fence("5@x"), Pass::Again).await.unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe, "the raise was before: {error}");
    println!("{error}");
}

async fn a_script_that_the_driver_sends_again_has_run_once() {
    let cluster = start(testbed::redis_cluster).await;
    let lossy = Lossy::before(cluster.iter().map(|node| node.host_port())).await;
    let client = ClusterClient::builder(cluster.urls()).node_address_map(lossy.ways().collect()).build().unwrap();
    let fences = RedisFences::builder(client.clone()).build().await.unwrap();
    let locks = RedisLocks::builder(client.clone()).build().await.unwrap();
    let accounts = Resource::new("accounts").unwrap();
    let mut plain = client.get_async_connection().await.unwrap();
    let counted = plain.clone();
    let count =
        async |key: &str| -> u64 { redis::cmd("GET").arg(key).query_async(&mut counted.clone()).await.unwrap() };

    // What happens to a plain script.
    let increment = redis::Script::new("return redis.call('INCR', KEYS[1])");
    let _: u64 = increment.key("{accounts}:plain").invoke_async(&mut plain).await.unwrap();
    lossy.lose_the_next_answer();
    let told: u64 = increment.key("{accounts}:plain").invoke_async(&mut plain).await.unwrap();
    assert_eq!(told, 3, "the driver sends it again: otherwise this test shows nothing");
    println!("a plain script whose answer is lost once: ran twice, {told} after 2 calls");

    let fenced = fences.script("return redis.call('INCR', KEYS[1])");
    let by = fence("5@x");
    let call = || fenced.key("{accounts}:fenced");
    assert_eq!(call().run::<u64>(&accounts, &by, Pass::Again).await.unwrap(), 1);
    lossy.lose_the_next_answer();
    let error = call().run::<u64>(&accounts, &by, Pass::Again).await.unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe, "{error}");
    assert_eq!(count("{accounts}:fenced").await, 2);
    println!("a fenced one: ran once; {error}");
    lossy.lose_the_next_answer();
    let error = call().run::<u64>(&accounts, &fence("6@x"), Pass::Once).await.unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe, "not refused because of itself: {error}");
    assert_eq!(count("{accounts}:fenced").await, 3);
    assert!(matches!(call().run::<u64>(&accounts, &fence("6@x"), Pass::Once).await, Err(FenceError::Stale(_))));
    lossy.lose_the_next_answer();
    assert!(
        matches!(call().run::<u64>(&accounts, &by, Pass::Again).await, Err(FenceError::Stale(_))),
        "a refusal is lost"
    );
    assert_eq!(count("{accounts}:fenced").await, 3);
    lossy.lose_the_next_answer();
    fences.raise(&accounts, &fence("7@x"), Pass::Once).await.unwrap();
    assert!(fences.raise(&accounts, &fence("7@x"), Pass::Once).await.is_err());

    let (_, grant) = take(&locks, "accounts").await;
    let held = Fence::new(name("accounts"), grant.token).unwrap();
    let increment = locks.script("return redis.call('INCR', KEYS[1])");
    assert_eq!(increment.key("{accounts}:held").run::<u64>(&held).await.unwrap(), 1);
    lossy.lose_the_next_answer();
    let error = increment.key("{accounts}:held").run::<u64>(&held).await.unwrap_err();
    assert_eq!((error.applied(), count("{accounts}:held").await), (Applied::Maybe, 2), "{error}");
    println!("a held one: ran once; {error}");
}

async fn a_slot_that_is_being_moved_runs_no_fenced_call() {
    let cluster = start(testbed::redis_cluster).await;
    let fences =
        RedisFences::builder(url(&cluster).as_str()).operation_timeout(common::seconds(2)).build().await.unwrap();
    let accounts = Resource::new("accounts").unwrap();
    let append = fences.script(APPEND).key("{accounts}:data").arg("x");
    let by = fence("5@x");
    let write = || append.clone().run::<u64>(&accounts, &by, Pass::Again);
    assert_eq!(write().await.unwrap(), 1);

    let mut nodes = Vec::new();
    for node in cluster.iter() {
        let id: String = common::command(node.url(), &["CLUSTER", "MYID"]).await;
        let mut here = common::operator(node.url()).await;
        let is_here =
            redis::cmd("GET").arg("leasehold:{accounts}:fence").query_async::<String>(&mut here).await.is_ok();
        nodes.push((node.url(), id, is_here));
    }
    let from = nodes.iter().find(|(.., is_here)| *is_here).unwrap();
    let to = nodes.iter().find(|(.., is_here)| !is_here).unwrap();
    let slot: u64 = common::command(from.0, &["CLUSTER", "KEYSLOT", "{accounts}"]).await;
    let slot = slot.to_string();
    let () = common::command(to.0, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.1]).await;
    let () = common::command(from.0, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.1]).await;
    let error = write().await.unwrap_err();
    let FenceError::Store(told) = &error else { panic!("{error}") };
    // The driver tries again as long as there is time.
    assert!(matches!(told.kind(), ErrorKind::Contention | ErrorKind::Timeout), "{error}");
    assert_eq!(told.applied(), Applied::Maybe, "{error}");
    println!("{error}");
    let entries: u64 = common::command(from.0, &["LLEN", "{accounts}:data"]).await;
    assert_eq!(entries, 1);
    for node in [from, to] {
        let () = common::command(node.0, &["CLUSTER", "SETSLOT", &slot, "STABLE"]).await;
    }
    // What the driver still had in hand may have run by now: it was said so.
    assert!(matches!(write().await.unwrap(), 2 | 3));
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    keys_of_one_slot_are_written_together_and_others_are_told,
    a_script_that_the_driver_sends_again_has_run_once,
    a_slot_that_is_being_moved_runs_no_fenced_call,
);
