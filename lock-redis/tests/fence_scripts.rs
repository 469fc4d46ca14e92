//! The application's scripts behind a register: they run as they were written, and not twice.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{
    accounts::{alone, fence, shared, store_error},
    in_time,
    lossy::Lossy,
    pass, seconds,
};
use lock_core::{Applied, ErrorKind, FenceError, FenceRegister, Pass};
use lock_redis::{
    RedisFences,
    redis::{self, Client, RedisError, Value, aio::ConnectionManager},
};

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
    let only_reads = accounts.fences.script("#!lua flags=no-writes\nreturn redis.call('INCR', KEYS[1])").key("x");
    let error = only_reads.run::<u64>(&accounts.resource, &fence("5@x"), Pass::Again).await.unwrap_err();
    assert!(error.to_string().contains("not allowed from read-only scripts"), "the register can't be written: {error}");
    println!("{error}");
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
    // The time-out is that of what is asked at the connect, too, and each write of this server waits for its disk.
    let hurried = in_time(async {
        loop {
            let hurried = RedisFences::builder(accounts.place.url()).prefix(&accounts.place.prefix);
            match hurried.operation_timeout(std::time::Duration::from_millis(300)).build().await {
                Ok(hurried) => return hurried,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout, "{error}"),
            }
        }
    })
    .await;
    let slow = "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end
        local till = now() + 1500000
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

async fn an_answer_that_is_lost_is_an_unknown_outcome_and_nothing_is_sent_again() {
    let accounts = alone().await;
    let lossy = Lossy::before([accounts.place.server.host_port()]).await;
    let by_url = RedisFences::builder(lossy.url(accounts.place.url())).prefix(&accounts.place.prefix);
    let manager = ConnectionManager::new(Client::open(lossy.url(accounts.place.url())).unwrap()).await.unwrap();
    let by_manager = RedisFences::builder(manager).prefix(&accounts.place.prefix);
    for (at, builder) in [by_url, by_manager].into_iter().enumerate() {
        let fences = builder.build().await.unwrap();
        let key = format!("{}count-{at}", accounts.place.prefix);
        let increment = fences.script("return redis.call('INCR', KEYS[1])").key(&key);
        let by = fence("5@x");
        let run = || increment.clone().run::<u64>(&accounts.resource, &by, Pass::Again);
        let count = async || -> u64 { accounts.place.command(&["GET", &key]).await };
        assert_eq!(run().await.unwrap(), 1);
        lossy.lose_the_next_answer();
        let error = store_error(run().await.unwrap_err());
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Unreachable, Applied::Maybe), "{error}");
        assert_eq!(count().await, 2, "it ran once");
        println!("{error}; it ran once");
    }
    // A raise is sent again, which changes nothing the second time.
    let fences =
        RedisFences::builder(lossy.url(accounts.place.url())).prefix(&accounts.place.prefix).build().await.unwrap();
    // The server knows the scripts by now, so that it is their answers that are lost.
    assert!(fences.forget(&accounts.resource).await.unwrap());
    fences.raise(&accounts.resource, &fence("5@x"), Pass::Again).await.unwrap();
    lossy.lose_the_next_answer();
    fences.raise(&accounts.resource, &fence("6@x"), Pass::Again).await.unwrap();
    lossy.lose_the_next_answer();
    let error = fences.raise(&accounts.resource, &fence("7@x"), Pass::Once).await.unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe, "{error}");
    assert!(matches!(fences.raise(&accounts.resource, &fence("7@x"), Pass::Once).await, Err(FenceError::Stale(_))));
    lossy.lose_the_next_answer();
    let error = store_error(fences.forget(&accounts.resource).await.unwrap_err());
    assert_eq!(error.applied(), Applied::Maybe, "by this or since before: {error}");
    assert_eq!(fences.highest(&accounts.resource).await.unwrap(), None);
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    a_script_is_given_its_own_and_its_reply_comes_back_unchanged,
    what_a_failing_script_wrote_stays_and_so_does_the_raise,
    scripts_are_made_known_again_after_a_flush,
    an_answer_that_comes_too_late_is_an_unknown_outcome,
    an_answer_that_is_lost_is_an_unknown_outcome_and_nothing_is_sent_again,
);
