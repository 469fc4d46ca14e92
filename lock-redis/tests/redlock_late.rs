//! Messages that reach a master late, and once more: no two calls get one token by that.
//!
//! The ways are those that the search through the model of Redlock found (`lock-verify`), with the masters' tokens ahead of
//! their clocks, which would hide what the two phases do. One call's messages are brought by hand; the others', and the forced
//! release, are the provider's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::sync::{Arc, Mutex};

use common::{ask, command, give_back, granted, name, seconds, start};
use lock_core::{AcquireRequest, Acquired, Clock, FencingToken, Grant, LockProvider, OwnerId, SystemClock};
use lock_redis::{Redlock, redis::Value};
use testbed::PrivateServer;

const LOCK: &str = "late";
const KEY: &str = "leasehold:redlock:{late}";

/// Three masters that lose nothing, and were a day ahead once.
struct Three {
    masters: Arc<Vec<PrivateServer>>,
    last: FencingToken,
}

impl Three {
    async fn ahead() -> Self {
        let masters = start(|| (0..3).map(|_| testbed::redis_private()).collect::<Result<Vec<_>, _>>()).await;
        let last = FencingToken::new(SystemClock.wall_micros() + 86_400_000_000);
        for master in &masters {
            let _: u64 = command(master.url(), &["HSET", KEY, "token", &last.get().to_string()]).await;
        }
        Self { masters: Arc::new(masters), last }
    }

    async fn locks(&self) -> Redlock {
        let masters = self.masters.iter().map(|master| master.url());
        Redlock::builder(masters).node_timeout(seconds(5)).build().await.unwrap()
    }

    async fn kill(&self, master: usize) {
        self.at(master, |master| master.kill().unwrap()).await;
    }

    async fn revive(&self, master: usize) {
        let revive = |master: &PrivateServer| {
            master.start().unwrap();
            master.await_ready(seconds(30)).unwrap();
        };
        self.at(master, revive).await;
    }

    /// Off the runtime.
    async fn at(&self, master: usize, action: impl Fn(&PrivateServer) + Send + 'static) {
        let masters = Arc::clone(&self.masters);
        tokio::task::spawn_blocking(move || action(&masters[master])).await.unwrap();
    }

    /// Somebody else's whole grant, by the two masters that are left.
    async fn somebody_elses(&self, away: usize) -> Grant {
        self.kill(away).await;
        let (locks, wish) = (self.locks().await, ask(LOCK, seconds(30)));
        let grant = granted(locks.acquire(&wish).await.unwrap());
        locks.release(&give_back(&wish, grant)).await.unwrap();
        self.revive(away).await;
        grant
    }
}

/// The messages of one attempt.
struct Attempt<'a> {
    three: &'a Three,
    owner: String,
}

impl<'a> Attempt<'a> {
    const NUMBER: &'static str = "1";

    fn of(owner: OwnerId, three: &'a Three) -> Self {
        Self { three, owner: owner.to_string() }
    }

    /// The last token that this master tells.
    async fn claim(&self, master: usize) -> FencingToken {
        let script = include_str!("../src/redlock/lua/claim.lua");
        let words = ["500000", "86400000000", Self::NUMBER, &self.owner, "30000000", "0", "{}", ""];
        match self.run(master, script, &words).await {
            Value::Array(told) => match told.as_slice() {
                [Value::Int(1), Value::BulkString(last), ..] => {
                    FencingToken::new(String::from_utf8_lossy(last).parse().unwrap())
                }
                other => panic!("not claimed: {other:?}"),
            },
            other => panic!("no list: {other:?}"),
        }
    }

    async fn accept(&self, master: usize, token: FencingToken) -> bool {
        let script = include_str!("../src/redlock/lua/accept.lua");
        let words = [Self::NUMBER, &self.owner, &token.get().to_string(), ""];
        self.run(master, script, &words).await == Value::Int(1)
    }

    async fn take_back(&self, master: usize) -> bool {
        let script = include_str!("../src/redlock/lua/release.lua");
        let words = ["", "86400000000", Self::NUMBER, LOCK, &self.owner, "", "0", ""];
        self.run(master, script, &words).await == Value::Int(1)
    }

    async fn run(&self, master: usize, script: &str, words: &[&str]) -> Value {
        let url = self.three.masters[master].url();
        let words: Vec<&str> = ["EVAL", script, "1", KEY].into_iter().chain(words.iter().copied()).collect();
        let Value::Array(mut answers) = command(url, &words).await else { panic!("no list") };
        answers.remove(0)
    }
}

/// The lease ends early between two runs of a claim, the second of which makes its owner the owner again.
async fn a_claim_that_comes_again_after_a_forced_release_gets_no_token_that_another_has() {
    let three = Three::ahead().await;
    let attempt = Attempt::of(ask(LOCK, seconds(30)).owner, &three);
    let told = [attempt.claim(0).await, attempt.claim(1).await];
    assert_eq!(told, [three.last; 2]);
    let chosen = FencingToken::next(told.into_iter().max(), 0);
    let mut accepted = u32::from(attempt.accept(0, chosen).await);
    assert_eq!(accepted, 1);

    assert!(three.locks().await.force_release(&name(LOCK)).await.unwrap());
    // Away is the one master that knows of the token.
    let theirs = three.somebody_elses(0).await;
    assert_eq!(theirs.token, chosen, "the others can't know that it was chosen before");

    assert_eq!(attempt.claim(1).await, theirs.token);
    accepted += u32::from(attempt.accept(1, chosen).await);
    assert!(accepted < 2, "a majority accepted {chosen} for one call, and {} was granted to another", theirs.token);
}

/// The claim, and the token to accept, come again to one master after the attempt has failed and was taken back.
async fn an_attempt_that_comes_again_after_its_take_back_gives_no_token_away_twice() {
    let three = Three::ahead().await;
    let wish: AcquireRequest = ask(LOCK, seconds(30));
    let attempt = Attempt::of(wish.owner, &three);
    let chosen = FencingToken::next(Some(attempt.claim(0).await.max(attempt.claim(1).await)), 0);
    assert!(attempt.take_back(0).await && attempt.take_back(1).await);

    let theirs = three.somebody_elses(2).await;
    assert_eq!(theirs.token, chosen, "it was accepted nowhere");

    attempt.claim(0).await;
    attempt.accept(0, chosen).await;
    // The call tries again. It hears the master that it got through to, and the one that knows nothing of the other's grant.
    three.kill(1).await;
    let ours = granted(three.locks().await.acquire(&wish).await.unwrap());
    assert!(ours.token > theirs.token, "{} was granted to another call before, and now {}", theirs.token, ours.token);
}

/// What was claimed may be gone before its token is accepted: then there is no grant, whatever was claimed before.
async fn tokens_are_unique_where_locks_are_taken_away_amid_grants() {
    const GRANTS: usize = 30;
    let three = Three::ahead().await;
    let tokens: Arc<Mutex<Vec<FencingToken>>> = Arc::default();
    let enough = |tokens: &Mutex<Vec<FencingToken>>| tokens.lock().unwrap().len() >= GRANTS;
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let (locks, granted) = (three.locks().await, Arc::clone(&tokens));
        tasks.push(tokio::spawn(async move {
            while !enough(&granted) {
                let wish = ask(LOCK, seconds(30));
                if let Acquired::Granted(grant) = locks.acquire(&wish).await.unwrap() {
                    granted.lock().unwrap().push(grant.token);
                    locks.release(&give_back(&wish, grant)).await.unwrap();
                }
            }
        }));
        let (people, granted) = (three.locks().await, Arc::clone(&tokens));
        tasks.push(tokio::spawn(async move {
            while !enough(&granted) {
                people.force_release(&name(LOCK)).await.unwrap();
            }
        }));
    }
    futures_util::future::try_join_all(tasks).await.unwrap();
    let mut tokens = std::mem::take(&mut *tokens.lock().unwrap());
    tokens.sort_unstable();
    let twice: Vec<_> = tokens.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert!(twice.is_empty(), "granted twice, of {} grants: {twice:?}", tokens.len());
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    tokens_are_unique_where_locks_are_taken_away_amid_grants,
    a_claim_that_comes_again_after_a_forced_release_gets_no_token_that_another_has,
    an_attempt_that_comes_again_after_its_take_back_gives_no_token_away_twice,
);
