//! Ticks over several masters: what a majority has recorded is used up, what a minority has isn't.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{ask, command, give_back, granted, name, pass, seconds, start, unique};
use futures_util::future::join_all;
use lock_core::{
    AcquireRequest, Acquired, Applied, Entropy, LockProvider, OsEntropy, ReleaseRequest, Released, Tick, TickUse,
};
use lock_redis::{Redlock, redis::Value, redlock::Builder};
use testbed::PrivateServer;

/// Three masters whose every write is on the disk before its answer.
struct Three(Arc<Vec<PrivateServer>>);

impl Three {
    async fn masters() -> Self {
        Self(Arc::new(start(|| (0..3).map(|_| testbed::redis_private()).collect()).await))
    }

    fn builder(&self) -> Builder {
        Redlock::builder(self.0.iter().map(|master| master.url()))
    }

    async fn locks(&self) -> Redlock {
        self.builder().build().await.unwrap()
    }

    /// What an attempt leaves that went no further than this master.
    async fn record(&self, master: usize, lock: &str, tick: &str) {
        let _: u64 = command(self.0[master].url(), &["HSET", &key(lock), "last_tick", tick]).await;
    }

    async fn recorded(&self, lock: &str) -> Vec<Option<String>> {
        join_all(
            self.0.iter().map(|master| async move { command(master.url(), &["HGET", &key(lock), "last_tick"]).await }),
        )
        .await
    }

    async fn kill(&self, which: &'static [usize]) {
        self.each(which, |master| master.kill().unwrap()).await;
    }

    async fn revive(&self, which: &'static [usize]) {
        let revive = |master: &PrivateServer| {
            master.start().unwrap();
            master.await_ready(seconds(30)).unwrap();
        };
        self.each(which, revive).await;
    }

    /// Off the runtime.
    async fn each(&self, which: &'static [usize], action: impl Fn(&PrivateServer) + Send + 'static) {
        let masters = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || which.iter().for_each(|at| action(&masters[*at])));
        done.await.unwrap();
    }
}

fn key(lock: &str) -> String {
    format!("leasehold:redlock:{{{lock}}}")
}

fn for_tick(lock: &str, tick: u64) -> AcquireRequest {
    AcquireRequest { tick: Some(Tick(tick)), ..ask(lock, seconds(30)) }
}

async fn finished(locks: &Redlock, lock: &str, tick: u64) -> Option<u64> {
    match locks.acquire(&for_tick(lock, tick)).await.unwrap() {
        Acquired::Finished(Tick(last)) => Some(last),
        _ => None,
    }
}

async fn what_a_minority_has_recorded_is_granted_and_then_used_up() {
    let three = Three::masters().await;
    let locks = three.locks().await;
    three.record(0, "x", "100").await;
    let wish = for_tick("x", 100);
    let grant = granted(locks.acquire(&wish).await.unwrap());
    assert_eq!(three.recorded("x").await, ["100", "100", "100"].map(|tick| Some(tick.to_owned())));
    // The call's own, though each master has the tick recorded or is refused.
    assert_eq!(granted(locks.acquire(&wish).await.unwrap()).token, grant.token);
    assert_eq!(finished(&locks, "x", 100).await, Some(100), "while it is held");
    locks.release(&give_back(&wish, grant)).await.unwrap();
    assert_eq!(finished(&locks, "x", 100).await, Some(100));

    // A minority tells of a later one, which is not yet used up.
    three.record(0, "y", "105").await;
    three.record(1, "y", "103").await;
    assert_eq!(finished(&locks, "y", 100).await, Some(103));
    let wish = for_tick("y", 104);
    let grant = granted(locks.acquire(&wish).await.unwrap());
    locks.release(&give_back(&wish, grant)).await.unwrap();
    assert_eq!(finished(&locks, "y", 100).await, Some(104));

    // Nor does what nobody can have written use anything up, or keep a tick from being recorded.
    for (odd, kept) in [("nan", "7"), ("noon", "7"), ("9007199254740992", "9007199254740992")] {
        let lock = format!("odd-{odd}");
        three.record(0, &lock, odd).await;
        let wish = for_tick(&lock, 7);
        granted(locks.acquire(&wish).await.unwrap());
        assert_eq!(three.recorded(&lock).await, [kept, "7", "7"].map(|tick| Some(tick.to_owned())));
        assert_eq!(finished(&locks, &lock, 7).await, Some(7));
    }
}

async fn where_no_majority_can_be_had_it_is_held() {
    let three = Three::masters().await;
    let locks = three.locks().await;
    let (holder, theirs) = (ask("held", seconds(30)), ["lone", "both", "held"]);
    let grant = granted(locks.acquire(&holder).await.unwrap());
    for lock in theirs {
        three.record(0, lock, "100").await;
    }
    three.record(2, "both", "100").await;
    let answer = locks.acquire(&for_tick("held", 100)).await.unwrap();
    assert!(matches!(&answer, Acquired::Held(held) if held.holder.is_some()), "{answer:?}");

    three.kill(&[1]).await;
    let answer = locks.acquire(&for_tick("lone", 100)).await.unwrap();
    assert!(matches!(answer, Acquired::Held(_)), "one has it recorded, one doesn't, one is away: {answer:?}");
    let left: Option<String> = command(three.0[2].url(), &["HGET", &key("lone"), "owner"]).await;
    assert_eq!(left, None, "what was claimed in vain is taken back");
    assert_eq!(finished(&locks, "both", 100).await, Some(100));
    assert!(matches!(locks.acquire(&for_tick("lone", 101)).await.unwrap(), Acquired::Granted(_)));
    three.revive(&[1]).await;
    assert!(matches!(locks.acquire(&for_tick("held", 100)).await.unwrap(), Acquired::Held(_)));
    locks.release(&give_back(&holder, grant)).await.unwrap();
    assert!(matches!(locks.acquire(&for_tick("held", 100)).await.unwrap(), Acquired::Granted(_)), "it is not lost");
}

async fn a_release_that_reached_a_minority_is_told_as_unknown_and_made_good_by_the_next() {
    let three = Three::masters().await;
    let locks = three.locks().await;
    let mut done = Vec::new();
    for lock in ["again", "never"] {
        let wish = AcquireRequest { tick_use: TickUse::AtRelease, ..for_tick(lock, 100) };
        let grant = granted(locks.acquire(&wish).await.unwrap());
        assert_eq!(three.recorded(lock).await, [None, None, None]);
        done.push(ReleaseRequest { done: Some(Tick(100)), ..give_back(&wish, grant) });
    }
    three.kill(&[1, 2]).await;
    for release in &done {
        let error = locks.release(release).await.unwrap_err();
        assert_eq!(error.applied(), Applied::Maybe, "{error}");
    }
    three.revive(&[1, 2]).await;
    for lock in ["again", "never"] {
        let recorded = three.recorded(lock).await;
        assert_eq!(recorded, [Some("100".to_owned()), None, None]);
        let answer = locks.acquire(&for_tick(lock, 100)).await.unwrap();
        assert!(matches!(answer, Acquired::Held(_)), "used up at one master, held at two: {answer:?}");
    }
    assert_eq!(locks.release(&done[0]).await.unwrap(), Released::Released);
    assert_eq!(finished(&locks, "again", 100).await, Some(100));
    assert_eq!(locks.release(&done[0]).await.unwrap(), Released::NotHeld);
    // Who doesn't ask again has not used it up: it runs once more when the lock can be had.
    locks.force_release(&name("never")).await.unwrap();
    let wish = for_tick("never", 100);
    let grant = granted(locks.acquire(&wish).await.unwrap());
    assert_eq!(locks.release(&done[1]).await.unwrap(), Released::NotHeld, "not by the owner of an earlier grant");
    assert_eq!(locks.release(&give_back(&wish, grant)).await.unwrap(), Released::Released);
}

/// At one master: what an acceptance used up is used up no more once it is taken back, and only then.
async fn an_attempt_takes_back_the_tick_that_it_used_up_and_no_other() {
    let server = start(testbed::redis).await;
    let key = format!("attempts:{{{}}}", unique());
    let run = async |script: &str, arguments: &[&str]| -> Value {
        let words: Vec<&str> = ["EVAL", script, "1", &key].into_iter().chain(arguments.iter().copied()).collect();
        let Value::Array(mut answers) = command(server.url(), &words).await else { panic!("no list") };
        answers.remove(0)
    };
    let claim = async |attempt: &str, owner: &str, tick: &str| {
        let script = include_str!("../src/redlock/lua/claim.lua");
        let Value::Array(told) = run(script, &["0", "86400000000", attempt, owner, "30000000", "0", "{}", tick]).await
        else {
            panic!("no list")
        };
        match told.as_slice() {
            [Value::Int(1), ..] => "claimed".to_owned(),
            [Value::Int(0), ..] => "held".to_owned(),
            [Value::Int(2), Value::BulkString(last), ..] => String::from_utf8(last.clone()).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let accept = async |attempt: &str, owner: &str, token: &str, tick: &str| {
        run(include_str!("../src/redlock/lua/accept.lua"), &[attempt, owner, token, tick]).await == Value::Int(1)
    };
    let release = async |attempt: &str, owner: &str, done: &str| {
        let arguments = ["", "86400000000", attempt, "x", owner, "", "0", done];
        run(include_str!("../src/redlock/lua/release.lua"), &arguments).await == Value::Int(1)
    };

    assert_eq!(claim("1", "me", "100").await, "claimed");
    assert_eq!(claim("9", "other", "100").await, "held", "a claim uses nothing up");
    assert!(accept("1", "me", "5", "100").await && accept("1", "me", "5", "100").await, "twice is as good as once");
    assert_eq!(claim("9", "other", "99").await, "100");
    assert_eq!(claim("9", "other", "101").await, "held");
    assert!(release("1", "me", "").await);
    assert!(!accept("1", "me", "5", "100").await, "late");
    assert_eq!(claim("9", "other", "0").await, "claimed", "nothing is used up");

    assert!(accept("9", "other", "6", "50").await && release("", "other", "").await, "the owner's release");
    assert_eq!(claim("2", "me", "50").await, "50");
    assert_eq!(claim("2", "me", "60").await, "claimed");
    assert!(accept("2", "me", "7", "60").await && release("2", "me", "").await);
    assert_eq!(claim("3", "me", "40").await, "50", "as it was before");
    assert_eq!(claim("3", "me", "60").await, "claimed");
    assert!(accept("3", "me", "8", "60").await);
    // The owner asks again, and may be told that it has it: from now on no attempt takes it back.
    assert_eq!(claim("4", "me", "60").await, "claimed", "its own");
    assert!(!release("3", "me", "").await && !release("4", "me", "").await);
    assert!(release("", "me", "55").await, "done with an earlier one");
    assert_eq!(claim("5", "me", "60").await, "60");

    // A lease that ends by itself: who comes next takes nothing back of it.
    assert_eq!(claim("5", "me", "70").await, "claimed");
    assert!(accept("5", "me", "9", "70").await);
    let _: u64 = command(server.url(), &["HSET", &key, "until", "1", "free_at", "1"]).await;
    assert_eq!(claim("6", "other", "").await, "claimed");
    assert!(accept("6", "other", "10", "").await && release("6", "other", "").await);
    assert_eq!(claim("7", "other", "60").await, "70");
}

async fn of_many_that_ask_while_masters_stand_still_one_runs_each_tick() {
    const TICKS: u64 = 60;
    let three = Three::masters().await;
    let (over, doubts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let chaos = {
        let (masters, over) = (Arc::clone(&three.0), Arc::clone(&over));
        tokio::task::spawn_blocking(move || {
            let mut freezes = 0;
            while !over.load(Ordering::Relaxed) {
                // Two of three: now and then between the claims and the acceptance.
                let spared = OsEntropy.next_u64() as usize % 3;
                let frozen = || (0..3).filter(|at| *at != spared);
                frozen().for_each(|at| masters[at].pause().unwrap());
                std::thread::sleep(Duration::from_millis(OsEntropy.next_u64() % 100));
                frozen().for_each(|at| masters[at].unpause().unwrap());
                std::thread::sleep(Duration::from_millis(OsEntropy.next_u64() % 20));
                freezes += 1;
            }
            freezes
        })
    };
    // So hasty that a freeze leaves most of what it meets in doubt.
    let hasty = || three.builder().node_timeout(Duration::from_millis(20)).build();
    let clients: Vec<Redlock> = join_all((0..3).map(|_| hasty())).await.into_iter().map(Result::unwrap).collect();
    let mut ran = Vec::new();
    for tick in 1..=TICKS {
        let asking = clients.iter().cloned().map(|locks| tokio::spawn(run_once(locks, tick, Arc::clone(&doubts))));
        ran.push(join_all(asking).await);
    }
    over.store(true, Ordering::Relaxed);
    let (freezes, doubts) = (chaos.await.unwrap(), doubts.load(Ordering::Relaxed));
    for (tick, ran) in (1..).zip(ran) {
        let ran: Vec<bool> = ran.into_iter().map(Result::unwrap).collect();
        assert_eq!(ran.iter().filter(|ran| **ran).count(), 1, "tick {tick}: {ran:?}");
    }
    println!("{TICKS} ticks ran once each, through {freezes} freezes of two masters and {doubts} answers in doubt");
    assert!(freezes > 0 && doubts > 0, "there were faults");
}

/// Asks until it is told; whether it was granted.
async fn run_once(locks: Redlock, tick: u64, doubts: Arc<AtomicUsize>) -> bool {
    let wish = AcquireRequest { ttl: seconds(5), ..for_tick("busy", tick) };
    loop {
        match locks.acquire(&wish).await {
            Ok(Acquired::Granted(grant)) => {
                while locks.release(&give_back(&wish, grant)).await.is_err() {}
                return true;
            }
            Ok(Acquired::Finished(_)) => return false,
            Ok(_) => {}
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                doubts.fetch_add(1, Ordering::Relaxed);
            }
        }
        pass(Duration::from_millis(OsEntropy.next_u64() % 20)).await;
    }
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    what_a_minority_has_recorded_is_granted_and_then_used_up,
    where_no_majority_can_be_had_it_is_held,
    a_release_that_reached_a_minority_is_told_as_unknown_and_made_good_by_the_next,
    an_attempt_takes_back_the_tick_that_it_used_up_and_no_other,
    of_many_that_ask_while_masters_stand_still_one_runs_each_tick,
);
