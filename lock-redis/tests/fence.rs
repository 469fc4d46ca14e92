//! The register: what it refuses is not written, what it lets pass runs as it was written.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{Place, operator, pass, seconds, start};
use lock_core::{Applied, Durability, ErrorKind, Fence, FenceError, FenceRegister, Pass, Resource, StoreError};
use lock_redis::{
    RedisFences,
    redis::{self, Client, RedisError, Value, aio::ConnectionManager},
};
use testbed::{PrivateServer, Server};

/// The accounts of one test, and the register before them.
struct Accounts<S> {
    place: Place<S>,
    fences: RedisFences,
    resource: Resource,
}

impl<S: common::AsServer> Accounts<S> {
    async fn at(place: Place<S>) -> Self {
        let fences = RedisFences::builder(place.url()).prefix(&place.prefix).build().await.unwrap();
        Self { place, fences, resource: Resource::new("accounts").unwrap() }
    }

    fn data(&self) -> String {
        format!("{}{{accounts}}:data", self.place.prefix)
    }

    fn register(&self) -> String {
        format!("{}{{accounts}}:fence", self.place.prefix)
    }

    /// Writes two keys' worth of one entry, and says how many there are by now.
    async fn append(&self, entry: &str, by: &str, pass: Pass) -> Result<u64, FenceError> {
        let append = self.fences.script("return redis.call('RPUSH', KEYS[1], ARGV[1])");
        append.key(self.data()).arg(entry).run(&self.resource, &fence(by), pass).await
    }

    /// All that is there: the entries, and what the register holds.
    async fn all(&self) -> (Vec<String>, Option<String>) {
        let entries = self.place.command(&["LRANGE", &self.data(), "0", "-1"]).await;
        (entries, self.place.command(&["GET", &self.register()]).await)
    }
}

async fn shared() -> Accounts<Server> {
    Accounts::at(Place::shared().await).await
}

async fn alone() -> Accounts<PrivateServer> {
    Accounts::at(Place::alone().await).await
}

fn fence(text: &str) -> Fence {
    text.parse().unwrap()
}

fn store_error(error: FenceError) -> StoreError {
    match error {
        FenceError::Store(error) => error,
        other => panic!("not the store's: {other}"),
    }
}

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
    let ttl: i64 = accounts.place.command(&["TTL", &accounts.register()]).await;
    assert_eq!(ttl, -1, "a register has no expiry");
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

/// What scripts may be given and may answer, as they answer it alone.
const SCRIPTS: [&str; 16] = [
    "return {KEYS, ARGV, #KEYS, #ARGV}",
    "return 42",
    "return",
    "",
    "return nil",
    "return false",
    "return true",
    "return 3.99",
    "return {1, 'two', {3, {}}, false, 'after'}",
    "return redis.status_reply('FINE')",
    "return redis.call('SET', KEYS[1], ARGV[1])",
    "local function twice(x) return x .. x end\nreturn twice(ARGV[2]) .. KEYS[2] -- a remark at the end",
    "if ARGV[1] == 'none' then return 1 end; return ARGV[#ARGV];",
    "local sees = {}\nfor at, f in ipairs({function() return refuse end, function() return register end, function() return now end,\n function() return record end, function() return mark end, function() return work end}) do sees[at] = tostring((pcall(f))) end\nreturn sees",
    "return loadstring('return {KEYS[1], #KEYS, ARGV[1], #ARGV}')()",
    "redis.setresp(3); return {map={a=1}, 2}",
];

const FAILING: [&str; 5] = [
    "return redis.error_reply('MINE of my own')",
    "return {err='POOR no funds'}",
    "return redis.call('LPUSH', KEYS[1], 'x')",
    "error({err='THROWN it was'})",
    "return redis.pcall('LPUSH', KEYS[1], 'x')",
];

async fn a_script_is_given_its_own_and_its_reply_comes_back_unchanged() {
    let accounts = shared().await;
    let (first, second) = (accounts.data(), format!("{}\0\r\n é", accounts.data()));
    let arguments = ["an argument", "", "a\0b\r\n'\"]] -- é"];
    // Over the protocol that ours speak.
    let url = format!("{}?protocol=resp3", accounts.place.url());
    let mut plain = Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut same = 0;
    for script in SCRIPTS {
        let mut eval = redis::cmd("EVAL");
        eval.arg(script).arg(2).arg(&first).arg(&second).arg(&arguments);
        let expected: Value = eval.query_async(&mut plain).await.unwrap();
        let fenced = accounts.fences.script(script);
        let call = fenced.key(&first).key(&second).arg(arguments[0]).arg(&arguments[1..]);
        let got: Value = call.run(&accounts.resource, &fence("5@x"), Pass::Again).await.unwrap();
        assert_eq!(got, expected, "{script}");
        same += 1;
        let without: Value =
            fenced.call().run(&accounts.resource, &fence("5@x"), Pass::Again).await.unwrap_or(Value::Nil);
        if script.starts_with("return {KEYS") {
            let nothing = || Value::Array(Vec::new());
            assert_eq!(without, Value::Array(vec![nothing(), nothing(), Value::Int(0), Value::Int(0)]));
        }
    }
    for script in FAILING {
        let mut eval = redis::cmd("EVAL");
        eval.arg(script).arg(2).arg(&first).arg(&second).arg(&arguments);
        let expected: RedisError = eval.query_async::<Value>(&mut plain).await.unwrap_err();
        let call = accounts.fences.script(script);
        let call = call.key(&first).key(&second).arg(&arguments);
        let got = call.run::<Value>(&accounts.resource, &fence("5@x"), Pass::Again).await.unwrap_err();
        let got = store_error(got);
        let cause: &RedisError = std::error::Error::source(&got).unwrap().downcast_ref().unwrap();
        assert_eq!(cause.code(), expected.code(), "{script}");
        // The hash of the script is told as well, and is another one.
        let said =
            |error: &RedisError| error.detail().unwrap_or_default().split(" script: ").next().unwrap().to_owned();
        assert_eq!(said(cause), said(&expected), "{script}");
        assert_eq!((got.applied(), got.store()), (Applied::Maybe, Some("redis")), "{got}");
        println!("{got}");
        same += 1;
    }
    println!("{same} scripts answered as they do alone");
    // With a line before all, as Redis 7 has it.
    let flagged = accounts.fences.script("#!lua flags=allow-stale\nreturn ARGV[1]");
    let got: String = flagged.arg("flagged").run(&accounts.resource, &fence("5@x"), Pass::Again).await.unwrap();
    assert_eq!(got, "flagged");
    let wrong = accounts.fences.script("return 'text'").call();
    let error = store_error(wrong.run::<u64>(&accounts.resource, &fence("5@x"), Pass::Again).await.unwrap_err());
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Other, Applied::Maybe), "{error}");
    println!("{error}");
}

async fn what_a_failing_script_wrote_stays_and_so_does_the_raise() {
    let accounts = shared().await;
    let script = "redis.call('RPUSH', KEYS[1], 'half')\n\nreturn redis.call('INCR', KEYS[1])";
    let call = accounts.fences.script(script).key(accounts.data());
    let error = store_error(call.run::<u64>(&accounts.resource, &fence("5@x"), Pass::Again).await.unwrap_err());
    assert_eq!(error.applied(), Applied::Maybe);
    assert!(error.to_string().contains("WRONGTYPE"), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("user_script:3"), "the author's own third line: {cause}");
    assert_eq!(accounts.all().await, (vec!["half".to_owned()], Some("5@x".to_owned())));
    println!("{cause}; there are {:?}", accounts.all().await);
    // One that isn't Lua has done nothing.
    let call = accounts.fences.script("return return").call();
    let error = store_error(call.run::<u64>(&accounts.resource, &fence("9@x"), Pass::Again).await.unwrap_err());
    assert_eq!(error.applied(), Applied::No, "{error}");
    assert!(error.to_string().contains("user_script:1"), "{error}");
    assert_eq!(accounts.all().await.1.as_deref(), Some("5@x"));
    println!("{error}");
}

async fn scripts_are_made_known_again_after_a_flush() {
    let accounts = alone().await;
    for at in 1..=3 {
        assert_eq!(accounts.append("x", "5@x", Pass::Again).await.unwrap(), at);
        let () = accounts.place.command(&["SCRIPT", "FLUSH"]).await;
    }
    assert!(accounts.append("late", "4@x", Pass::Again).await.is_err());
    println!("3 flushes, {:?}", accounts.all().await);
}

async fn an_answer_that_comes_too_late_is_an_unknown_outcome() {
    let accounts = alone().await;
    let hurried = RedisFences::builder(accounts.place.url()).prefix(&accounts.place.prefix);
    let hurried = hurried.operation_timeout(std::time::Duration::from_millis(200)).build().await.unwrap();
    let slow = "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end
        local till = now() + 600000
        repeat until now() > till
        return redis.call('RPUSH', KEYS[1], 'slow')";
    let slow = hurried.script(slow);
    let error = slow.key(accounts.data()).run::<u64>(&accounts.resource, &fence("5@x"), Pass::Again).await.unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe);
    let error = store_error(error);
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    // It was under way, and was not sent a second time.
    pass(seconds(2)).await;
    assert_eq!(accounts.all().await, (vec!["slow".to_owned()], Some("5@x".to_owned())));
    println!("{error}; there are {:?}", accounts.all().await);
}

async fn a_server_that_takes_no_writes_has_done_nothing() {
    let accounts = alone().await;
    accounts.append("before", "5@x", Pass::Again).await.unwrap();
    let before = accounts.all().await;
    for (setting, on, off, kind) in
        [("maxmemory", "1mb", "0", ErrorKind::NotReady), ("min-replicas-to-write", "1", "0", ErrorKind::Contention)]
    {
        let () = accounts.place.command(&["CONFIG", "SET", setting, on]).await;
        for by in ["5@x", "6@x"] {
            let error = store_error(accounts.append("refused", by, Pass::Again).await.unwrap_err());
            assert_eq!((error.kind(), error.applied()), (kind, Applied::No), "{error}");
            println!("{error}");
        }
        let () = accounts.place.command(&["CONFIG", "SET", setting, off]).await;
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
    a_script_is_given_its_own_and_its_reply_comes_back_unchanged,
    what_a_failing_script_wrote_stays_and_so_does_the_raise,
    scripts_are_made_known_again_after_a_flush,
    an_answer_that_comes_too_late_is_an_unknown_outcome,
    a_server_that_takes_no_writes_has_done_nothing,
    durability_and_rights_are_told_at_the_connect,
    an_application_hands_in_its_connection,
);
