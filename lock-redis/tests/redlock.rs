//! A majority of masters, some of which stand still, die and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lock_core::{
    AcquireRequest, Acquired, Applied, Clock, Entropy, FencingToken, LockName, LockProvider, Locks, Moment, OsEntropy,
    OwnerId, ReleaseRequest, RenewRequest, Renewed, SystemClock,
};
use lock_redis::Redlock;
use redis::Value;
use testbed::PrivateServer;

fn masters(count: usize, settings: &[&str]) -> Vec<PrivateServer> {
    (0..count).map(|_| testbed::redis_private_with(settings).unwrap()).collect()
}

async fn over(masters: &[PrivateServer]) -> Redlock {
    Redlock::builder(masters.iter().map(|master| master.url())).build().await.unwrap()
}

fn ask(name: &str) -> AcquireRequest {
    let owner = OwnerId::random(&OsEntropy);
    AcquireRequest::new(LockName::new(name).unwrap(), owner, Duration::from_secs(30))
}

async fn ask_master(master: &PrivateServer, command: &[&str]) -> Value {
    let client = redis::Client::open(master.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut asked = redis::cmd(command[0]);
    asked.arg(&command[1..]);
    asked.query_async(&mut connection).await.unwrap()
}

async fn two_of_five_may_stand_still_and_three_leave_nothing_behind() {
    let masters = masters(5, &["--appendonly", "no"]);
    let locks = over(&masters).await;
    assert!(matches!(locks.acquire(&ask("warm")).await.unwrap(), Acquired::Granted(_)));
    masters[1].pause().unwrap();
    masters[3].pause().unwrap();
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        let sent = SystemClock.now();
        let granted = locks.acquire(&ask(&format!("x{round}"))).await.unwrap();
        longest = longest.max(SystemClock.now().since(sent));
        assert!(matches!(granted, Acquired::Granted(_)), "{granted:?}");
    }
    println!("two of five stand still: acquired in at most {longest:.1?}, 20 times");
    assert!(longest < Duration::from_millis(300), "{longest:?}");

    masters[4].pause().unwrap();
    let vain = ask("vain");
    let sent = SystemClock.now();
    let error = locks.acquire(&vain).await.unwrap_err();
    let took = SystemClock.now().since(sent);
    println!("three of five stand still: told after {took:.1?}: {error}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(error.applied(), Applied::Maybe);
    assert!(error.to_string().contains("2 of 5"), "{error}");
    for master in [&masters[0], &masters[2]] {
        let owner = ask_master(master, &["HGET", "leasehold:redlock:{vain}", "owner"]).await;
        assert_eq!(owner, Value::Nil, "nothing is left");
    }
    for paused in [1, 3, 4] {
        masters[paused].unpause().unwrap();
    }
    // What the three still had in their ears is theirs for a ttl at most, and the owner can take it back.
    locks.release(&ReleaseRequest::new(vain.name.clone(), vain.owner, None)).await.unwrap();
    let locks = Locks::new(locks);
    assert!(locks.lock("vain").wait_at_most(Duration::from_secs(40)).acquire().await.is_ok());
}

/// One grant as its holder saw it.
#[derive(Debug)]
struct Belief {
    token: FencingToken,
    from: Moment,
    until: Moment,
}

async fn two_hundred_contended_grants_under_faults_rise_and_never_overlap() {
    let masters = Arc::new(masters(5, &[]));
    // One master's clock was a day ahead once. From when a grant has met it, no clock raises the tokens: only what the
    // masters tell one another's askers does.
    let ahead = (SystemClock.wall_micros() + 86_400_000_000).to_string();
    ask_master(&masters[0], &["HSET", "leasehold:redlock:{contended}", "token", &ahead]).await;
    let (left, over_now) = (Arc::new(AtomicUsize::new(200)), Arc::new(AtomicBool::new(false)));
    let contenders: Vec<_> = (0..4)
        .map(|_| {
            let (masters, left) = (Arc::clone(&masters), Arc::clone(&left));
            tokio::spawn(async move {
                let locks = Locks::new(over(&masters).await);
                let mut beliefs = Vec::new();
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let lock = locks.lock("contended").ttl(Duration::from_millis(1500));
                    let guard = lock.wait_at_most(Duration::from_secs(120)).acquire().await.unwrap();
                    let (token, from) = (guard.token(), SystemClock.now());
                    let work = from + Duration::from_millis(3 + OsEntropy.next_u64() % 10);
                    tokio::select! {
                        _ = guard.lost() => {}
                        () = SystemClock.sleep_until(work) => {}
                    }
                    let until = SystemClock.now().min(guard.deadline());
                    beliefs.push(Belief { token, from, until });
                    // A release that fails leaves the lock to its ttl.
                    drop(guard.release().await);
                }
                beliefs
            })
        })
        .collect();
    let chaos = {
        let (masters, over_now) = (Arc::clone(&masters), Arc::clone(&over_now));
        tokio::task::spawn_blocking(move || {
            let (mut freezes, mut deaths) = (0, 0);
            while !over_now.load(Ordering::Relaxed) {
                let first = OsEntropy.next_u64() as usize % masters.len();
                let second = (first + 1 + OsEntropy.next_u64() as usize % (masters.len() - 1)) % masters.len();
                if OsEntropy.next_u64().is_multiple_of(3) {
                    masters[first].kill().unwrap();
                    masters[first].start().unwrap();
                    masters[first].await_ready(Duration::from_secs(30)).unwrap();
                    deaths += 1;
                } else {
                    masters[first].pause().unwrap();
                    masters[second].pause().unwrap();
                    freezes += 1;
                    std::thread::sleep(Duration::from_millis(OsEntropy.next_u64() % 400));
                    masters[first].unpause().unwrap();
                    masters[second].unpause().unwrap();
                }
            }
            (freezes, deaths)
        })
    };
    let begun = SystemClock.now();
    let mut beliefs = Vec::new();
    for contender in contenders {
        beliefs.extend(contender.await.unwrap());
    }
    over_now.store(true, Ordering::Relaxed);
    let (freezes, deaths) = chaos.await.unwrap();
    let took = SystemClock.now().since(begun);
    println!("{} grants in {took:.1?}, through {freezes} freezes of two masters and {deaths} deaths", beliefs.len());
    assert_eq!(beliefs.len(), 200);
    assert!(freezes > 0 && deaths > 0, "there were faults");
    let above = FencingToken::new(ahead.parse().unwrap());
    assert!(beliefs.iter().filter(|belief| belief.token > above).count() > 100, "most grants were above the clocks");
    beliefs.sort_by_key(|belief| belief.from);
    for pair in beliefs.windows(2) {
        assert!(pair[0].until <= pair[1].from, "two believed at once: {pair:?}");
        assert!(pair[0].token < pair[1].token, "the tokens didn't rise: {pair:?}");
    }
}

/// At one master: a message of an attempt that was given up comes late.
async fn what_an_attempt_takes_back_is_not_what_a_later_one_relies_on() {
    let server = testbed::redis().unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("attempts:{{{}}}", OsEntropy.next_u64());
    let mut run = async |script: &str, arguments: &[&str]| -> Vec<Value> {
        let mut call = redis::cmd("EVAL");
        call.arg(script).arg(1).arg(&key).arg(arguments);
        call.query_async(&mut connection).await.unwrap()
    };
    let claim = include_str!("../src/redlock/lua/claim.lua");
    let accept = include_str!("../src/redlock/lua/accept.lua");
    let release = include_str!("../src/redlock/lua/release.lua");
    let (yes, no) = (vec![Value::Int(1)], vec![Value::Int(0)]);
    let claimed = |attempt| ["0", "86400000000", attempt, "me", "30000000", "0", "{}", ""];
    let taken_back = |attempt| ["", "86400000000", attempt, "x", "me", "", "0", ""];

    run(claim, &claimed("1")).await;
    run(claim, &claimed("2")).await;
    assert_eq!(run(release, &taken_back("1")).await, no, "the first attempt's is the second's now");
    assert_eq!(run(accept, &["1", "me", "100", ""]).await, no, "a token that was given up");
    assert_eq!(run(accept, &["2", "me", "101", ""]).await, yes);
    // Even the claim itself may come again, and from now on no attempt takes it back.
    run(claim, &claimed("1")).await;
    assert_eq!(run(release, &taken_back("1")).await, no);
    assert_eq!(run(release, &taken_back("2")).await, no);
    // The owner asks once more, and in vain elsewhere.
    run(claim, &claimed("3")).await;
    assert_eq!(run(release, &taken_back("3")).await, no, "an earlier call relies on it");
    assert_eq!(run(accept, &["3", "me", "101", ""]).await, yes, "the same token again");
    assert_eq!(run(release, &["", "86400000000", "", "x", "other", "", "0", ""]).await, no, "a stranger");
    assert_eq!(run(release, &["", "86400000000", "", "x", "me", "100", "0", ""]).await, no, "another token");
    assert_eq!(run(release, &["", "86400000000", "", "x", "me", "101", "0", ""]).await, yes);
    assert_eq!(run(release, &["", "86400000000", "", "x", "me", "101", "0", ""]).await, no, "twice");
    let Value::Array(told) = run(claim, &claimed("4")).await.remove(0) else { panic!("no list") };
    assert_eq!(told[1], Value::BulkString(b"101".to_vec()), "the last token is remembered");
    // A renewal relies on a master whose acceptance was lost.
    let renew = include_str!("../src/redlock/lua/renew.lua");
    assert_eq!(run(renew, &["0", "86400000000", "me", "102", "30000000"]).await, yes);
    assert_eq!(run(release, &taken_back("4")).await, no, "a renewal relies on it");
}

async fn a_master_that_is_named_under_two_names_is_found_out() {
    let masters = masters(2, &["--appendonly", "no"]);
    let again = masters[0].url().replace("127.0.0.1", "localhost");
    let urls = [masters[0].url(), masters[1].url(), &again];
    let error = Redlock::builder(urls).build().await.unwrap_err();
    assert!(error.to_string().contains("the same server"), "{error}");
}

async fn it_is_durable_if_every_master_is() {
    let mut masters = masters(3, &[]);
    assert_eq!(over(&masters).await.capabilities().durability, lock_core::Durability::Durable);
    masters[1] = testbed::redis_private_with(&["--appendfsync", "everysec"]).unwrap();
    assert_eq!(over(&masters).await.capabilities().durability, lock_core::Durability::Volatile);
}

async fn a_key_of_somebody_elses_costs_that_name_and_no_other() {
    let masters = masters(3, &["--appendonly", "no"]);
    for master in &masters {
        ask_master(master, &["SET", "leasehold:redlock:{theirs}", "x"]).await;
    }
    let locks = over(&masters).await;
    let mut answers = locks.acquire_many(&[ask("ours"), ask("theirs")]).await;
    let error = answers.remove(1).unwrap_err();
    assert_eq!((error.kind(), error.applied()), (lock_core::ErrorKind::Corrupt, Applied::No), "{error}");
    assert!(matches!(answers.remove(0).unwrap(), Acquired::Granted(_)));
}

/// Held for longer than the retention, renewal by renewal, it must not be forgotten under its holder.
async fn a_record_outlives_its_lease_however_long_that_is_held() {
    let masters = masters(3, &["--appendonly", "no"]);
    let day = 24 * 3600;
    let urls = masters.iter().map(|master| master.url());
    let locks = Redlock::builder(urls).retention(Duration::from_secs(day)).build().await.unwrap();
    let mut request = ask("x");
    let Acquired::Granted(grant) = locks.acquire(&request).await.unwrap() else { panic!("not granted") };
    let hold: [(u64, bool); 4] = [(3600, true), (7200, false), (10_800, true), (60, true)];
    for (longest, (ttl, renews)) in [3600, 7200, 10_800, 10_800].into_iter().zip(hold) {
        request.ttl = Duration::from_secs(ttl);
        if renews {
            let renewal = RenewRequest::new(request.name.clone(), request.owner, grant.token, request.ttl);
            assert_eq!(locks.renew(&renewal).await.unwrap(), Renewed::Held(request.ttl));
        } else {
            let again = locks.acquire(&request).await.unwrap();
            assert!(matches!(again, Acquired::Granted(again) if again.token == grant.token), "{again:?}");
        }
        // A majority was heard; the third may be told a moment later.
        let mut long_enough = 0;
        for master in &masters {
            let Value::Int(left) = ask_master(master, &["PTTL", "leasehold:redlock:{x}"]).await else {
                panic!("no number")
            };
            long_enough += u32::from(u64::try_from(left).unwrap() > (day + longest) * 1000 - 10_000);
        }
        assert!(long_enough >= 2, "{long_enough} masters keep the record of a lease that ends in {longest} s");
    }
}

async fn one_master_that_evicts_locks_is_too_many() {
    let mut masters = masters(2, &["--appendonly", "no"]);
    let evicting = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    masters.push(testbed::redis_private_with(&evicting).unwrap());
    let urls = || masters.iter().map(|master| master.url());
    let error = Redlock::builder(urls()).build().await.unwrap_err();
    assert!(error.to_string().contains("maxmemory-policy"), "{error}");
    assert!(Redlock::builder(urls()).allow_eviction(true).build().await.is_ok());
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    two_of_five_may_stand_still_and_three_leave_nothing_behind,
    two_hundred_contended_grants_under_faults_rise_and_never_overlap,
    what_an_attempt_takes_back_is_not_what_a_later_one_relies_on,
    a_master_that_is_named_under_two_names_is_found_out,
    a_record_outlives_its_lease_however_long_that_is_held,
    a_key_of_somebody_elses_costs_that_name_and_no_other,
    one_master_that_evicts_locks_is_too_many,
    it_is_durable_if_every_master_is,
);
