//! Clusters, sentinels, and what an application has already.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, again, ask, give_back, granted, in_time, name, seconds, start, take, take_when_back};
use lock_core::{
    Acquired, Durability, ErrorKind, ListRequest, LockProvider, Locks, OwnerId, Released, Renewed, Waiting, Wake,
};
use lock_redis::{
    RedisLocks,
    redis::{Client, aio::ConnectionManager, cluster::ClusterClient},
};

/// A release at one client wakes a waiter at the other.
async fn hands_over(one: &RedisLocks, two: &RedisLocks, lock: &str) {
    let (request, grant) = take(one, lock).await;
    let mut watch = two.watch(&name(lock), OwnerId::from_u128(1)).await.unwrap();
    let mut wish = ask(lock, seconds(30));
    wish.waiting = Waiting::Wake(seconds(60));
    assert!(matches!(two.acquire(&wish).await.unwrap(), Acquired::Held(_)));
    one.release(&give_back(&request, grant)).await.unwrap();
    in_time(watch.woken()).await;
    let next = granted(two.acquire(&wish).await.unwrap());
    assert!(next.token > grant.token);
    two.release(&give_back(&wish, next)).await.unwrap();
}

fn cluster_url(cluster: &testbed::RedisCluster) -> String {
    let hosts: Vec<_> = cluster.iter().map(|node| node.host_port()).collect();
    format!("redis-cluster://:{}@{}", common::PASSWORD, hosts.join(","))
}

async fn a_cluster_keeps_locks_on_all_its_nodes() {
    let cluster = start(testbed::redis_cluster).await;
    let url = cluster_url(&cluster);
    let (one, two) = (RedisLocks::connect(&url).await.unwrap(), RedisLocks::connect(&url).await.unwrap());
    assert_eq!(one.capabilities().durability, Durability::Durable);
    assert_eq!(one.capabilities().wake, Wake::Event);
    let wishes: Vec<_> = (0..100).map(|n| ask(&format!("lock-{n:03}"), seconds(30))).collect();
    let grants: Vec<_> = one.acquire_many(&wishes).await.into_iter().map(|answer| granted(answer.unwrap())).collect();
    for answer in
        two.acquire_many(&wishes.iter().map(|wish| ask(wish.name.as_str(), seconds(30))).collect::<Vec<_>>()).await
    {
        assert!(matches!(answer.unwrap(), Acquired::Held(_)));
    }
    // They are spread.
    for node in cluster.iter() {
        let keys: u64 = common::command(node.url(), &["DBSIZE"]).await;
        assert!(keys > 10, "{keys} keys");
    }
    let renewals: Vec<_> = wishes.iter().zip(&grants).map(|(wish, grant)| again(wish, *grant)).collect();
    assert!(one.renew_many(&renewals).await.into_iter().all(|answer| answer.unwrap() == Renewed::Held(seconds(30))));
    let page = ListRequest { prefix: "lock-".into(), after: Some(name("lock-009")), limit: 5 };
    let listed: Vec<_> = one.list(&page).await.unwrap().into_iter().map(|status| status.name.to_string()).collect();
    assert_eq!(listed, ["lock-010", "lock-011", "lock-012", "lock-013", "lock-014"]);
    let releases: Vec<_> = wishes.iter().zip(&grants).map(|(wish, grant)| give_back(wish, *grant)).collect();
    assert!(two.release_many(&releases).await.into_iter().all(|answer| answer.unwrap() == Released::Released));
    for lock in ["a", "b", "c", "{a}b", "}", "{}"] {
        hands_over(&one, &two, lock).await;
    }

    // These rights are enough.
    for node in cluster.iter() {
        let rights = ["ACL", "SETUSER", "app", "on", ">word", "~leasehold:*", "&leasehold:*", "-@all"];
        let commands = "+evalsha +eval +hmget +hset +hdel +pexpireat +publish +subscribe +time +info +ping +scan";
        let in_cluster = " +cluster|slots";
        let words: Vec<_> =
            rights.into_iter().chain(commands.split(' ')).chain(in_cluster.split(' ').skip(1)).collect();
        let () = common::command(node.url(), &words).await;
    }
    let app = RedisLocks::connect(&url.replacen(":leasehold@", "app:word@", 1)).await.unwrap();
    assert_eq!(app.capabilities().durability, Durability::Volatile, "it may not ask");
    hands_over(&app, &one, "x").await;
    hands_over(&one, &app, "x").await;

    // A node alone says what it is.
    let error = RedisLocks::connect(cluster.url()).await.unwrap_err();
    assert!(error.to_string().contains("redis-cluster://"), "{error}");
    println!("{error}");

    // The application's own cluster client.
    let client = ClusterClient::new(cluster.urls()).unwrap();
    let theirs = RedisLocks::builder(client.clone()).build().await.unwrap();
    assert!(matches!(theirs.capabilities().wake, Wake::Poll(_)));
    let error = theirs.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let listening = Client::open(cluster.urls()[2]).unwrap();
    let connection = client.get_async_connection().await.unwrap();
    let theirs = RedisLocks::builder(connection).listen_with(&listening).build().await.unwrap();
    hands_over(&one, &theirs, "x").await;
}

async fn a_cluster_goes_on_when_a_node_comes_back() {
    let cluster = start(testbed::redis_cluster).await;
    let locks = RedisLocks::builder(cluster_url(&cluster)).operation_timeout(seconds(2)).build().await.unwrap();
    let wishes: Vec<_> = (0..30).map(|n| ask(&format!("{n}"), seconds(60))).collect();
    let grants: Vec<_> = locks.acquire_many(&wishes).await.into_iter().map(|answer| granted(answer.unwrap())).collect();
    let cluster = start(move || {
        cluster[1].kill().unwrap();
        Ok(cluster)
    })
    .await;
    // A third of them can't be had; none hangs, and what isn't known is said.
    let renewals: Vec<_> = wishes.iter().zip(&grants).map(|(wish, grant)| again(wish, *grant)).collect();
    for answer in in_time(locks.renew_many(&renewals)).await {
        match answer {
            Ok(held) => assert_eq!(held, Renewed::Held(seconds(60))),
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
    let _cluster = start(move || {
        cluster[1].start().unwrap();
        cluster[1].await_ready(seconds(20)).unwrap();
        Ok(cluster)
    })
    .await;
    in_time(async {
        while locks.renew_many(&renewals).await.iter().any(Result::is_err) {
            common::pass(Duration::from_millis(100)).await;
        }
    })
    .await;
    for answer in locks.renew_many(&renewals).await {
        assert_eq!(answer.unwrap(), Renewed::Held(seconds(60)), "what it had on its disk is held");
    }
}

async fn sentinels_lead_to_the_next_primary() {
    let primary = start(testbed::redis_private).await;
    let (primary, _replica, sentinel) = start(move || {
        let replica = testbed::redis_replica_of(&primary)?;
        let sentinel = testbed::redis_sentinel_of(&primary)?;
        Ok((primary, replica, sentinel))
    })
    .await;
    // One that isn't there is no hindrance.
    let url = format!(
        "redis-sentinel://:{}@127.0.0.1:1,{}/0?sentinelServiceName=leasehold",
        common::PASSWORD,
        sentinel.host_port()
    );
    let (one, two) = (RedisLocks::connect(&url).await.unwrap(), RedisLocks::connect(&url).await.unwrap());
    assert_eq!(one.capabilities().durability, Durability::Volatile);
    hands_over(&one, &two, "x").await;
    let (_, before) = take(&one, "x").await;
    let waiter = {
        let locks = Locks::new(two.clone());
        tokio::spawn(async move { locks.lock("held").ttl(seconds(30)).acquire().await })
    };
    let _primary = start(move || {
        primary.kill().unwrap();
        Ok(primary)
    })
    .await;
    let (request, first) = take_when_back(&one, "y").await;
    println!("after the fail-over: {first:?}");
    one.release(&give_back(&request, first)).await.unwrap();
    one.force_release(&name("x")).await.unwrap();
    let (request, next) = take_when_back(&one, "x").await;
    assert!(next.token > before.token);
    one.release(&give_back(&request, next)).await.unwrap();
    hands_over(&one, &two, "x").await;
    waiter.abort();
    let wrong = url.replace("sentinelServiceName=leasehold", "sentinelServiceName=other");
    let error = RedisLocks::connect(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    println!("{error}");
}

async fn an_application_hands_in_what_it_has() {
    let place = Place::shared().await;
    let client = Client::open(place.url()).unwrap();
    let own = place.locks().await;
    let from_client = RedisLocks::builder(client.clone()).prefix(&place.prefix).build().await.unwrap();
    hands_over(&own, &from_client, "x").await;

    let manager = ConnectionManager::new(client.clone()).await.unwrap();
    let polling =
        RedisLocks::builder(manager.clone()).prefix(&place.prefix).poll_interval(seconds(1)).build().await.unwrap();
    assert_eq!(polling.capabilities().wake, Wake::Poll(seconds(1)));
    let (request, grant) = take(&polling, "y").await;
    assert!(matches!(own.acquire(&ask("y", seconds(30))).await.unwrap(), Acquired::Held(_)));
    assert_eq!(polling.release(&give_back(&request, grant)).await.unwrap(), Released::Released);

    let listening = RedisLocks::builder(manager).prefix(&place.prefix).listen_with(&client).build().await.unwrap();
    assert_eq!(listening.capabilities().wake, Wake::Event);
    hands_over(&own, &listening, "z").await;
    hands_over(&listening, &own, "z").await;
}

async fn a_connection_that_broke_is_made_again_unseen() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let manager = ConnectionManager::new(Client::open(place.url()).unwrap()).await.unwrap();
    let theirs = RedisLocks::builder(manager).prefix(&place.prefix).build().await.unwrap();
    for (at, locks) in [&locks, &theirs].into_iter().enumerate() {
        for round in 0..20 {
            let (request, grant) = take(locks, &format!("{at}-{round}")).await;
            let _: u64 = place.command(&["CLIENT", "KILL", "TYPE", "NORMAL"]).await;
            assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(seconds(30)), "{at}");
        }
    }
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    a_cluster_keeps_locks_on_all_its_nodes,
    a_cluster_goes_on_when_a_node_comes_back,
    sentinels_lead_to_the_next_primary,
    an_application_hands_in_what_it_has,
    a_connection_that_broke_is_made_again_unseen,
);
