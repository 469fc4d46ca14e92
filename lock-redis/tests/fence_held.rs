//! Scripts that run while a grant holds its lock, and not a moment longer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Place, ask, give_back, granted, in_time, name, pass, seconds, take};
use lock_core::{
    Acquired, Applied, Clock, ErrorKind, Fence, FenceError, FencingToken, Grant, InvalidFence, LockProvider, LockState,
    Locks, Pass, RefusalReason, Resource, SystemClock, TestObserver, ToFence,
};
use lock_redis::{RedisFences, RedisLocks};
use testbed::Server;

struct Ledger {
    place: Place<Server>,
    locks: RedisLocks,
}

impl Ledger {
    async fn new() -> Self {
        let place = Place::shared().await;
        Self { locks: place.builder().grace(Duration::ZERO).build().await.unwrap(), place }
    }

    fn data(&self) -> String {
        format!("{}data", self.place.prefix)
    }

    async fn append(&self, entry: &str, fence: &Fence) -> Result<u64, FenceError> {
        let append = self.locks.script("return redis.call('RPUSH', KEYS[1], ARGV[1])");
        append.key(self.data()).arg(entry).run(fence).await
    }

    async fn entries(&self) -> Vec<String> {
        self.place.command(&["LRANGE", &self.data(), "0", "-1"]).await
    }

    /// A write of somebody who doesn't hold the lock, and what comes of it.
    async fn refuses(&self, what: &str, fence: &Fence) {
        let record: Vec<String> = self.place.command(&["HGETALL", &self.place.key("x")]).await;
        let before = self.entries().await;
        let error = self.append(what, fence).await.unwrap_err();
        let FenceError::NotHeld(not_held) = &error else { panic!("{what}: {error}") };
        assert_eq!((&not_held.lock, not_held.token), (fence.lock(), fence.token()));
        assert_eq!(error.applied(), Applied::No);
        assert_eq!(self.entries().await, before, "{what}");
        assert_eq!(self.place.command::<Vec<String>>(&["HGETALL", &self.place.key("x")]).await, record, "{what}");
        println!("{what}: {error}");
    }
}

fn of(lock: &str, grant: Grant) -> Fence {
    Fence::new(name(lock), grant.token).unwrap()
}

async fn who_does_not_hold_the_lock_writes_nothing() {
    let ledger = Ledger::new().await;
    let never = Fence::new(name("x"), FencingToken::new(5)).unwrap();
    ledger.refuses("before any grant", &never).await;

    let (request, grant) = take(&ledger.locks, "x").await;
    let mine = of("x", grant);
    assert_eq!(ledger.append("mine", &mine).await.unwrap(), 1);
    assert_eq!(ledger.append("mine again", &mine).await.unwrap(), 2);
    for token in [grant.token.get() - 1, grant.token.get() + 1, 1, (1 << 53) + 1, FencingToken::MAX.get()] {
        ledger.refuses("another token", &Fence::new(name("x"), FencingToken::new(token)).unwrap()).await;
    }
    ledger.refuses("of another lock", &of("y", grant)).await;
    ledger.refuses("of another lock", &of("X", grant)).await;

    ledger.locks.release(&give_back(&request, grant)).await.unwrap();
    ledger.refuses("after the release", &mine).await;
    let (_, next) = take(&ledger.locks, "x").await;
    ledger.refuses("after the take-over", &mine).await;
    assert_eq!(ledger.append("next", &of("x", next)).await.unwrap(), 3);
    ledger.locks.force_release(&name("x")).await.unwrap();
    ledger.refuses("after the forced release", &of("x", next)).await;
    println!("there are {:?}", ledger.entries().await);
}

async fn an_expired_lease_writes_nothing_though_nobody_took_over() {
    let ledger = Ledger::new().await;
    // Long enough that the first write is in time on a machine that is busy.
    let grant = granted(ledger.locks.acquire(&ask("x", seconds(4))).await.unwrap());
    let mine = of("x", grant);
    assert_eq!(ledger.append("in time", &mine).await.unwrap(), 1);
    in_time(async {
        while let LockState::Held(_) = ledger.locks.inspect(&name("x")).await.unwrap().unwrap().state {
            pass(Duration::from_millis(20)).await;
        }
    })
    .await;
    ledger.refuses("after the end", &mine).await;
    let (_, next) = take(&ledger.locks, "x").await;
    ledger.refuses("after the end and the take-over", &mine).await;
    assert_eq!(ledger.append("next", &of("x", next)).await.unwrap(), 2);
}

async fn nobody_takes_over_before_the_script_has_ended() {
    let ledger = Ledger::new().await;
    let (ttl, longer) = (Duration::from_millis(1500), Duration::from_millis(300));
    let other = ledger.place.locks().await;
    let begun = SystemClock.now();
    let grant = granted(ledger.locks.acquire(&ask("x", ttl)).await.unwrap());
    let slow = "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end
        local till = redis.call('HGET', KEYS[2], 'until') + ARGV[1]
        repeat until now() > till
        return redis.call('RPUSH', KEYS[1], 'slow')";
    let slow =
        ledger.locks.script(slow).key(ledger.data()).key(ledger.place.key("x")).arg(longer.as_micros().to_string());
    let writing = tokio::spawn(async move { slow.run::<u64>(&of("x", grant)).await });
    // Asked for while the script runs: the answer comes after it.
    pass(Duration::from_millis(200)).await;
    let next = in_time(async {
        loop {
            if let Acquired::Granted(grant) = other.acquire(&ask("x", seconds(30))).await.unwrap() {
                return grant;
            }
        }
    })
    .await;
    let after = SystemClock.now().since(begun);
    assert_eq!(ledger.entries().await, ["slow"], "what the next holder reads is there before it holds the lock");
    assert!(next.token > grant.token);
    assert_eq!(writing.await.unwrap().unwrap(), 1);
    assert!(after >= ttl + longer, "{after:?}");
    println!("a lease of {ttl:?}, and a script that ends {longer:?} after it: taken over after {after:?}");
}

async fn a_record_that_cannot_be_read_lets_nothing_pass() {
    let ledger = Ledger::new().await;
    let key = ledger.place.key("x");
    let later = (SystemClock.wall_micros() + 60_000_000).to_string();
    for token in ["-5", "x", "5.5", "1e300", "9007199254740993", "nan"] {
        let _: u64 = ledger.place.command(&["HSET", &key, "token", token, "owner", "o", "until", &later]).await;
        for by in [5, 1 << 53, (1 << 53) + 1] {
            let error = ledger.append(token, &Fence::new(name("x"), FencingToken::new(by)).unwrap()).await.unwrap_err();
            match &error {
                FenceError::Store(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
                // A number, but none that a grant has.
                error => {
                    assert!(token == "5.5" && matches!(error, FenceError::NotHeld(_)) || by == 0, "{token}: {error}")
                }
            }
            assert_eq!(error.applied(), Applied::No, "{error}");
        }
    }
    let () = ledger.place.command(&["SET", &key, "nonsense"]).await;
    let error = ledger.append("on a string", &Fence::new(name("x"), FencingToken::new(5)).unwrap()).await.unwrap_err();
    assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::Corrupt), "{error}");
    assert!(ledger.entries().await.is_empty());
    println!("{error}");
}

async fn what_goes_on_after_full_memory_may_have_been_applied() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let fences = RedisFences::builder(place.url()).prefix(&place.prefix).build().await.unwrap();
    let (_, grant) = take(&locks, "x").await;
    let (held, keys) = (of("x", grant), ["new", "old"].map(|key| format!("{}{key}", place.prefix)));
    let there = async || -> bool { place.command(&["EXISTS", &keys[1]]).await };
    let goes_on = "local r = redis.pcall('SET', KEYS[1], ARGV[1]) redis.call('DEL', KEYS[2]) ";
    for (before, end) in [("", "return r"), ("", "error(r)"), ("#!lua\n", "return r")] {
        let () = place.command(&["SET", &keys[1], "there"]).await;
        let () = place.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
        let script = format!("{before}{goes_on}{end}");

        // Here the first write is that of the register: the caller's script hasn't begun.
        let by_register = fences.script(&script).key(&keys).arg("x");
        let error = by_register.run::<()>(&Resource::new("x").unwrap(), &held, Pass::Again).await.unwrap_err();
        assert_eq!((error.applied(), there().await), (Applied::No, true), "{script}: {error}");

        let error = locks.script(&script).key(&keys).arg("x").run::<()>(&held).await.unwrap_err();
        assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::NotReady), "{error}");
        assert_eq!(error.applied(), Applied::Maybe, "{script}: {error}");
        // One that says what it is isn't begun, which is told in the same words.
        assert_eq!(there().await, !before.is_empty(), "{script}");
        println!("{end}: {error}");
        let () = place.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    }
}

async fn a_deposed_primary_lets_only_reading_pass() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let (_, grant) = take(&locks, "x").await;
    let (held, key) = (of("x", grant), format!("{}data", place.prefix));
    let () = place.command(&["SET", &key, "5"]).await;
    let () = place.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    // As the documentation says.
    let read = locks.script("return redis.call('GET', KEYS[1])").key(&key);
    assert_eq!(read.run::<u64>(&held).await.unwrap(), 5);
    let both = locks.script("local seen = redis.call('GET', KEYS[1]) redis.call('INCR', KEYS[2]) return seen");
    let error = both.key(&key).key(format!("{key}:reads")).run::<u64>(&held).await.unwrap_err();
    assert_eq!(error.applied(), Applied::No, "{error}");
    println!("{error}");
}

async fn a_guard_is_enough_and_the_reply_is_the_scripts() {
    let ledger = Ledger::new().await;
    let locks = Locks::new(ledger.locks.clone());
    let guard = locks.lock("x").ttl(seconds(30)).acquire().await.unwrap();
    let script = ledger.locks.script("return {KEYS, ARGV, {type(redis.call('TIME')), false, 'not seen'}}");
    let (keys, arguments, rest): (Vec<String>, Vec<String>, Vec<Option<String>>) =
        script.key(&["a", "b"]).arg("1").arg(&["2", ""]).run(&guard).await.unwrap();
    assert_eq!((keys, arguments), (vec!["a".into(), "b".into()], vec!["1".into(), "2".into(), String::new()]));
    assert_eq!(rest, [Some("table".to_owned()), None, Some("not seen".to_owned())]);
    let looks = "local function sees(f) return tostring((pcall(f))) end
        return {sees(function() return now end), sees(function() return look end), sees(function() return record end)}";
    let seen: Vec<String> = ledger.locks.script(looks).call().run(&guard).await.unwrap();
    assert_eq!(seen, ["false"; 3], "what is ours is out of its sight");
    let error = ledger.locks.script("return {err='POOR no funds'}").call().run::<u64>(&guard).await.unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe);
    assert!(error.to_string().contains("POOR no funds"), "{error}");
    println!("{error}");
    guard.release().await.unwrap();
}

/// What is no fence, as a shared lease would be.
struct NoFence;

impl ToFence for NoFence {
    fn to_fence(&self) -> Result<Fence, InvalidFence> {
        "5@".parse()
    }
}

/// By the guard and by the register alike.
async fn a_scripts_refusal_is_told_once_with_its_reason() {
    let (ledger, told) = (Ledger::new().await, Arc::new(TestObserver::default()));
    let held = ledger.locks.clone().observer(told.clone()).script("return 1");
    let (_, grant) = take(&ledger.locks, "x").await;
    held.call().run::<u64>(&of("x", grant)).await.unwrap();
    held.call().run::<u64>(&of("y", grant)).await.unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::NotHeld]);
    held.call().run::<u64>(&NoFence).await.unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::Invalid]);

    let fences = RedisFences::builder(ledger.place.url()).prefix(&ledger.place.prefix).build().await.unwrap();
    let (fenced, accounts) = (fences.observer(told.clone()).script("return 1"), Resource::new("accounts").unwrap());
    fenced.call().run::<u64>(&accounts, &of("x", grant), Pass::Once).await.unwrap();
    fenced.call().run::<u64>(&accounts, &of("x", grant), Pass::Once).await.unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::Used]);
    fenced.call().run::<u64>(&accounts, &of("y", grant), Pass::Again).await.unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::OtherLock]);
    fenced.call().run::<u64>(&accounts, &NoFence, Pass::Again).await.unwrap_err();
    assert_eq!(told.refusals(), [RefusalReason::Invalid]);
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    who_does_not_hold_the_lock_writes_nothing,
    an_expired_lease_writes_nothing_though_nobody_took_over,
    nobody_takes_over_before_the_script_has_ended,
    a_record_that_cannot_be_read_lets_nothing_pass,
    what_goes_on_after_full_memory_may_have_been_applied,
    a_deposed_primary_lets_only_reading_pass,
    a_guard_is_enough_and_the_reply_is_the_scripts,
    a_scripts_refusal_is_told_once_with_its_reason,
);
