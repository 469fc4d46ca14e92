//! The register: what it refuses is not written.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{
    Place,
    accounts::{Accounts, alone, fence, shared, store_error},
    operator, seconds, start,
};
use lock_core::{Applied, Durability, ErrorKind, FenceError, FenceRegister, Pass, Resource};
use lock_redis::{
    RedisFences,
    redis::{self, Client, aio::ConnectionManager},
};

async fn what_is_refused_is_not_written() {
    let accounts = shared().await;
    assert_eq!(accounts.append("first", "5@x", Pass::Again).await.unwrap(), 1);
    assert_eq!(accounts.append("again", "5@x", Pass::Again).await.unwrap(), 2);
    assert_eq!(accounts.append("next", "7@x", Pass::Again).await.unwrap(), 3);
    let before = accounts.all().await;
    assert_eq!(before.1.as_deref(), Some("7@x"));
    for (by, pass) in [
        ("5@x", Pass::Again),
        ("6@x", Pass::Again),
        ("7@y", Pass::Again),
        ("8@y", Pass::Again),
        ("6@x", Pass::Once),
        ("7@x", Pass::Once),
        ("9@X", Pass::Again),
    ] {
        let error = accounts.append("late", by, pass).await.unwrap_err();
        println!("{by} {pass:?}: {error}");
        match &error {
            FenceError::Stale(stale) => {
                assert!(by.ends_with("@x"), "{error}");
                assert_eq!((stale.highest.get(), &stale.resource), (7, &accounts.resource));
            }
            FenceError::OtherLock(other) => {
                assert!(!by.ends_with("@x"), "{error}");
                assert_eq!((other.fenced_by.as_str(), other.lock.as_str()), ("x", &by[2..]));
            }
            other => panic!("{other}"),
        }
        assert_eq!(error.applied(), Applied::No);
        assert!(accounts.fences.raise(&accounts.resource, &fence(by), pass).await.unwrap_err().is_refusal());
        assert_eq!(accounts.all().await, before, "nothing was written by {by}");
    }
    assert_eq!(accounts.append("once", "8@x", Pass::Once).await.unwrap(), 4);
    assert!(accounts.append("twice", "8@x", Pass::Once).await.is_err());
    assert_eq!(accounts.append("and after", "8@x", Pass::Again).await.unwrap(), 5);
    println!("refused without a trace; there are {:?}", accounts.all().await);
    let ttl = async || -> i64 { accounts.place.command(&["TTL", &accounts.register()]).await };
    assert_eq!(ttl().await, -1, "a register has no expiry");
    let _: u64 = accounts.place.command(&["EXPIRE", &accounts.register(), "1000"]).await;
    accounts.fences.raise(&accounts.resource, &fence("8@x"), Pass::Again).await.unwrap();
    assert_eq!(ttl().await, -1, "one that somebody else set is gone, though the fence is the same");
}

async fn a_raise_before_the_first_read_refuses_the_late_write() {
    let accounts = shared().await;
    accounts.append("old", "1764328000123456@x", Pass::Again).await.unwrap();
    let next = fence("1764328000123457@x");
    accounts.fences.raise(&accounts.resource, &next, Pass::Again).await.unwrap();
    let read = accounts.all().await;
    let error = accounts.append("late", "1764328000123456@x", Pass::Again).await.unwrap_err();
    assert!(matches!(error, FenceError::Stale(_)), "{error}");
    assert_eq!(accounts.all().await, read, "what the new holder has read");
    accounts.fences.raise(&accounts.resource, &next, Pass::Again).await.unwrap();
    assert_eq!(accounts.fences.highest(&accounts.resource).await.unwrap(), Some(next));
    println!("{error}; there are {read:?}");
}

async fn a_register_is_looked_at_and_forgotten() {
    let accounts = shared().await;
    let (fences, resource) = (&accounts.fences, &accounts.resource);
    assert_eq!(fences.highest(resource).await.unwrap(), None);
    assert!(!fences.forget(resource).await.unwrap());
    let hostile = fence("5@a%7Db%20%2A%0A%C3%A9");
    fences.raise(resource, &hostile, Pass::Once).await.unwrap();
    assert_eq!(fences.highest(resource).await.unwrap().as_ref(), Some(&hostile));
    let error = accounts.append("other", "6@x", Pass::Again).await.unwrap_err();
    assert!(matches!(&error, FenceError::OtherLock(other) if other.fenced_by == *hostile.lock()), "{error}");
    assert!(fences.forget(resource).await.unwrap());
    assert_eq!(accounts.append("other", "1@x", Pass::Again).await.unwrap(), 1);
    // Resources are apart, whatever they are called.
    for (at, name) in ["accounts}", "accounts}:fence", "{accounts}", "accounts%7D", "}", "Accounts"].iter().enumerate()
    {
        let other = Resource::new(name).unwrap();
        assert_eq!(fences.highest(&other).await.unwrap(), None, "{name}");
        let by = fence(&format!("{}@y", at + 10));
        fences.raise(&other, &by, Pass::Again).await.unwrap();
        assert_eq!(fences.highest(&other).await.unwrap(), Some(by), "{name}");
    }
    assert_eq!(fences.highest(resource).await.unwrap(), Some(fence("1@x")));
}

async fn nonsense_in_a_register_is_told_and_nothing_is_written() {
    let accounts = shared().await;
    let (fences, resource) = (&accounts.fences, &accounts.resource);
    let nonsense = [
        "",
        "-5@x",
        "0@x",
        "05@x",
        "5",
        "@x",
        "5@",
        " 5@x",
        "5@x ",
        "5 @x",
        "+5@x",
        "5.0@x",
        "1e3@x",
        "abc",
        "5@a b",
        "5@%zz",
        "9223372036854775808@x",
        "99999999999999999999@x",
        "5@x\r\n+OK",
    ];
    for text in nonsense {
        let () = accounts.place.command(&["SET", &accounts.register(), text]).await;
        let before = accounts.all().await;
        let by = "9223372036854775807@x";
        for error in [
            accounts.append("on nonsense", by, Pass::Again).await.unwrap_err(),
            fences.raise(resource, &fence(by), Pass::Again).await.unwrap_err(),
            fences.highest(resource).await.unwrap_err(),
        ] {
            let error = store_error(error);
            assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{text:?}: {error}");
        }
        assert_eq!(accounts.all().await, before, "{text:?}");
        assert!(before.0.is_empty());
    }
    let () = accounts.place.command(&["DEL", &accounts.register()]).await;
    let _: u64 = accounts.place.command(&["HSET", &accounts.register(), "token", "5"]).await;
    let error = store_error(accounts.append("on a hash", "5@x", Pass::Again).await.unwrap_err());
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{error}");
    let error = store_error(fences.forget(resource).await.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let kept: String = accounts.place.command(&["HGET", &accounts.register(), "token"]).await;
    assert_eq!(kept, "5", "what isn't a register stays");
    println!("{} kinds of nonsense and a hash: {error}", nonsense.len());
}

async fn tokens_beyond_2_to_the_53_are_told_apart() {
    let accounts = shared().await;
    let rising = [
        1_u64,
        9,
        10,
        99,
        9_007_199_254_740_991,
        9_007_199_254_740_992,
        9_007_199_254_740_993,
        999_999_999_999_999_999,
        1_000_000_000_000_000_000,
        9_223_372_036_854_775_805,
        9_223_372_036_854_775_806,
        9_223_372_036_854_775_807,
    ];
    for (at, token) in rising.iter().enumerate() {
        let count = accounts.append("up", &format!("{token}@x"), Pass::Once).await.unwrap();
        assert_eq!(count, at as u64 + 1);
        for late in &rising[..=at] {
            let error = accounts.append("late", &format!("{late}@x"), Pass::Once).await.unwrap_err();
            assert!(matches!(&error, FenceError::Stale(stale) if stale.highest.get() == *token), "{late}: {error}");
            let again = accounts.fences.raise(&accounts.resource, &fence(&format!("{late}@x")), Pass::Again).await;
            assert_eq!(again.is_ok(), late == token, "{late} after {token}");
        }
    }
    let (entries, seen) = accounts.all().await;
    println!("{} rising tokens, {} writes let through, the register holds {seen:?}", rising.len(), entries.len());
}

async fn a_server_that_takes_no_writes_has_done_nothing() {
    let accounts = alone().await;
    accounts.append("before", "5@x", Pass::Again).await.unwrap();
    let before = accounts.all().await;
    let look = accounts.fences.script("return redis.call('LRANGE', KEYS[1], 0, -1)").key(accounts.data());
    for (on, off, kind) in [
        ("CONFIG SET maxmemory 1mb", "CONFIG SET maxmemory 0", ErrorKind::NotReady),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", ErrorKind::Contention),
        // Of nobody that could be reached: it goes on to serve what it has.
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", ErrorKind::NotReady),
    ] {
        let set = async |words: &str| -> () { accounts.place.command(&words.split(' ').collect::<Vec<_>>()).await };
        set(on).await;
        // Also where the register needn't rise: nobody is told that others are refused from now on, and nobody reads.
        for by in ["5@x", "6@x"] {
            for error in [
                accounts.append("refused", by, Pass::Again).await.unwrap_err(),
                accounts.fences.raise(&accounts.resource, &fence(by), Pass::Again).await.unwrap_err(),
                look.clone().run::<Vec<String>>(&accounts.resource, &fence(by), Pass::Again).await.unwrap_err(),
            ] {
                let error = store_error(error);
                assert_eq!((error.kind(), error.applied()), (kind, Applied::No), "{on}, {by}: {error}");
                println!("{error}");
            }
        }
        set(off).await;
        assert_eq!(accounts.all().await, before);
    }
}

async fn durability_and_rights_are_told_at_the_connect() {
    let place = Place::alone().await;
    let rights = ["ACL", "SETUSER", "app", "on", ">word", "~test-*", "-@all"];
    let commands = "+evalsha +eval +get +set +del +rpush +info";
    let words: Vec<_> = rights.into_iter().chain(commands.split(' ')).collect();
    let () = place.command(&words).await;
    let url = place.url().replacen(":leasehold@", "app:word@", 1);
    let accounts = Accounts::at(place).await;
    assert_eq!(accounts.fences.durability(), Durability::Durable, "appendfsync always");
    let app = RedisFences::builder(url.as_str()).prefix(&accounts.place.prefix).build().await.unwrap();
    assert_eq!(app.durability(), Durability::Volatile, "it may not ask for the settings");
    app.raise(&accounts.resource, &fence("5@x"), Pass::Again).await.unwrap();
    let append = app.script("return redis.call('RPUSH', KEYS[1], 'by rights')");
    let _: u64 = append.key(accounts.data()).run(&accounts.resource, &fence("6@x"), Pass::Again).await.unwrap();
    let () = accounts.place.command(&["CONFIG", "SET", "appendfsync", "everysec"]).await;
    let volatile = RedisFences::connect(accounts.place.url()).await.unwrap();
    assert_eq!(volatile.durability(), Durability::Volatile);
    let () = accounts.place.command(&["ACL", "SETUSER", "app", "-set"]).await;
    let error = RedisFences::builder(url.as_str()).prefix(&accounts.place.prefix).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    println!("{error}");
    let () = accounts.place.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", "100mb"]).await;
    let error = RedisFences::connect(accounts.place.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
    println!("{error}");
    let shown = format!("{:?} {:?}", accounts.fences, accounts.fences.script("return 1").arg("s3cret"));
    assert!(!shown.contains(common::PASSWORD) && !shown.contains("s3cret"), "{shown}");
    // What crashes keeps what it acknowledged.
    let () =
        accounts.place.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "appendfsync", "always"]).await;
    let Accounts { place, fences, resource } = accounts;
    fences.raise(&resource, &fence("8@x"), Pass::Again).await.unwrap();
    let server = place.server;
    let _server = start(move || {
        server.kill().unwrap();
        server.start().unwrap();
        server.await_ready(seconds(20)).unwrap();
        Ok(server)
    })
    .await;
    let seen = common::in_time(async {
        loop {
            match fences.highest(&resource).await {
                Ok(seen) => return seen,
                Err(error) => assert!(store_error(error).is_transient()),
            }
        }
    });
    assert_eq!(seen.await, Some(fence("8@x")));
}

async fn a_register_goes_on_at_the_next_primary() {
    let primary = start(testbed::redis_private).await;
    let (primary, _replica, sentinel) = start(move || {
        let replica = testbed::redis_replica_of(&primary)?;
        let sentinel = testbed::redis_sentinel_of(&primary)?;
        Ok((primary, replica, sentinel))
    })
    .await;
    let (at, password) = (sentinel.host_port(), common::PASSWORD);
    let url = format!("redis-sentinel://:{password}@{at}/0?sentinelServiceName=leasehold");
    let fences = RedisFences::connect(&url).await.unwrap();
    assert_eq!(fences.durability(), Durability::Volatile, "a fail-over may lose the last raises");
    let accounts = Resource::new("accounts").unwrap();
    let append = fences.script("return redis.call('RPUSH', KEYS[1], ARGV[1])").key("data").arg("x");
    // Somebody who doesn't ask the sentinels.
    let unaware = RedisFences::connect(primary.url()).await.unwrap();
    assert_eq!(append.clone().run::<u64>(&accounts, &fence("5@x"), Pass::Again).await.unwrap(), 1);
    let primary = start(move || {
        primary.kill().unwrap();
        Ok(primary)
    })
    .await;
    // As a new holder does before its first read.
    common::in_time(async {
        while let Err(error) = fences.raise(&accounts, &fence("6@x"), Pass::Again).await {
            let error = store_error(error);
            assert!(error.is_transient() || error.kind() == ErrorKind::NotReady, "{error}");
            common::pass(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let error = append.clone().run::<u64>(&accounts, &fence("5@x"), Pass::Again).await.unwrap_err();
    assert!(matches!(error, FenceError::Stale(_)), "{error}");
    assert!(append.run::<u64>(&accounts, &fence("6@x"), Pass::Again).await.unwrap() >= 1);
    println!("after the fail-over: {error}");

    // The deposed primary comes back, becomes a replica, and says to nobody that others are refused from now on.
    let primary = start(move || {
        primary.start().unwrap();
        primary.await_ready(seconds(20)).unwrap();
        Ok(primary)
    })
    .await;
    let deposed = async {
        loop {
            let seen: Option<String> = common::command(primary.url(), &["GET", "leasehold:{accounts}:fence"]).await;
            let role: Vec<redis::Value> = common::command(primary.url(), &["ROLE"]).await;
            if seen.as_deref() == Some("6@x") && role[0] == redis::Value::BulkString(b"slave".to_vec()) {
                return;
            }
            common::pass(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(seconds(60), deposed).await.expect("the sentinel tells it within a minute");
    let error = store_error(unaware.raise(&accounts, &fence("6@x"), Pass::Again).await.unwrap_err());
    assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
    println!("at the deposed primary: {error}");
}

async fn an_application_hands_in_its_connection() {
    let accounts = shared().await;
    let manager = ConnectionManager::new(Client::open(accounts.place.url()).unwrap()).await.unwrap();
    let theirs = RedisFences::builder(manager).prefix(&accounts.place.prefix).build().await.unwrap();
    theirs.raise(&accounts.resource, &fence("6@x"), Pass::Again).await.unwrap();
    assert!(matches!(accounts.append("late", "5@x", Pass::Again).await, Err(FenceError::Stale(_))));
    let error = theirs.script("return 1").call().run::<u64>(&accounts.resource, &fence("7@y"), Pass::Again).await;
    assert!(matches!(error, Err(FenceError::OtherLock(_))));
    let mut operator = operator(accounts.place.url()).await;
    let () = redis::cmd("SET").arg(accounts.register()).arg("-1@x").query_async(&mut operator).await.unwrap();
    let error = theirs.raise(&accounts.resource, &fence("7@x"), Pass::Once).await.unwrap_err();
    assert_eq!(store_error(error).kind(), ErrorKind::Corrupt);
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    what_is_refused_is_not_written,
    a_raise_before_the_first_read_refuses_the_late_write,
    a_register_is_looked_at_and_forgotten,
    nonsense_in_a_register_is_told_and_nothing_is_written,
    tokens_beyond_2_to_the_53_are_told_apart,
    a_server_that_takes_no_writes_has_done_nothing,
    durability_and_rights_are_told_at_the_connect,
    a_register_goes_on_at_the_next_primary,
    an_application_hands_in_its_connection,
);
