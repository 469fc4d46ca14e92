//! Ticks: who uses one up and when, what is kept of it, and what a lost answer leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{AsServer, Counts, Place, ask, give_back, granted, in_time, is_held, pass, queue, seconds, take};
use conformance_tests::Proxy;
use lock_core::{
    AcquireRequest, Acquired, Applied, ErrorKind, LockProvider, OwnerId, ReleaseRequest, Released, Tick, TickUse,
    Waiting,
};
use lock_etcd::EtcdLocks;

/// A wish for a tick that its grant uses up.
fn at_once(tick: u64) -> AcquireRequest {
    AcquireRequest { tick: Some(Tick(tick)), ..ask("job", seconds(30)) }
}

/// The same, by one who waits in line.
fn in_line(tick: u64) -> AcquireRequest {
    AcquireRequest { tick: Some(Tick(tick)), ..queue("job", seconds(30)) }
}

#[track_caller]
fn is_finished(answer: &Acquired, last: u64) {
    assert!(matches!(answer, Acquired::Finished(Tick(told)) if *told == last), "{last} wasn't told: {answer:?}");
}

/// As it is written where a grant of this owner's used a tick up.
fn used(tick: u64, owner: OwnerId) -> String {
    format!("{tick:020} {owner}")
}

impl<S: AsServer> Place<S> {
    async fn last_tick(&self) -> Option<String> {
        let found = self.operator().await.get(format!("{}t/job", self.prefix), None).await.unwrap();
        found.kvs().first().map(|kv| kv.value_str().unwrap().to_owned())
    }

    async fn write_tick(&self, value: &str) {
        self.operator().await.put(format!("{}t/job", self.prefix), value, None).await.unwrap();
    }
}

/// Each grant uses up its tick and those before it, and no other, however near that is.
async fn a_grant_uses_up_its_tick_and_those_before() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    for (tick, waits) in [(0, false), (1, true), (9, false), (10, true), (11, false), (Tick::MAX.0, true)] {
        let wish = |tick| if waits { in_line(tick) } else { at_once(tick) };
        let request = wish(tick);
        let grant = granted(locks.acquire(&request).await.unwrap());
        assert_eq!(place.last_tick().await, Some(used(tick, request.owner)));
        for held in [true, false] {
            for earlier in [tick, tick.saturating_sub(1), 0] {
                is_finished(&locks.acquire(&wish(earlier)).await.unwrap(), tick);
            }
            assert_eq!(place.keys("l/").await.len(), usize::from(held), "who was told so waits no longer");
            assert_eq!(locks.release(&give_back(&request, grant)).await.unwrap() == Released::Released, held);
        }
    }
    assert_eq!(place.keys("").await, ["t/job"], "a tick outlives its lock's other keys");
}

/// A tick that was finished, or one before it, is granted to nobody again.
async fn a_finished_tick_stays_finished() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let ask_for = |tick: u64, waits: bool| AcquireRequest {
        tick: Some(Tick(tick)),
        tick_use: TickUse::AtRelease,
        waiting: if waits { Waiting::InLine(seconds(10)) } else { Waiting::No },
        ..ask("job", seconds(5))
    };
    let finish =
        |request: &AcquireRequest, grant, tick| ReleaseRequest { done: Some(Tick(tick)), ..give_back(request, grant) };
    for (tick, waits) in [(0, false), (9, true), (10, false), (1_767_225_600_000_000, true)] {
        let request = ask_for(tick, waits);
        let grant = granted(locks.acquire(&request).await.unwrap());
        // Whoever doesn't finish it leaves it to others.
        locks.release(&give_back(&request, grant)).await.unwrap();
        let request = ask_for(tick, waits);
        let grant = granted(locks.acquire(&request).await.unwrap());
        assert_eq!(locks.release(&finish(&request, grant, tick)).await.unwrap(), Released::Released);
        for earlier in [tick, tick.saturating_sub(1), 0] {
            for waits in [true, false] {
                let answer = locks.acquire(&ask_for(earlier, waits)).await.unwrap();
                assert!(matches!(answer, Acquired::Finished(done) if done == Tick(tick)), "{answer:?}");
            }
        }
    }
    // A late report of an earlier one changes nothing.
    let (request, grant) = take(&locks, "job", seconds(5)).await;
    locks.release(&finish(&request, grant, 3)).await.unwrap();
    let answer = locks.acquire(&ask_for(10, false)).await.unwrap();
    assert!(matches!(answer, Acquired::Finished(Tick(1_767_225_600_000_000))), "{answer:?}");
}

/// A tick of an earlier version names no owner; what is no tick is told of, and grants nothing.
async fn what_is_kept_of_a_tick_is_read_with_care() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    place.write_tick("00000000000000000100").await;
    for tick in [99, 100] {
        is_finished(&locks.acquire(&at_once(tick)).await.unwrap(), 100);
        is_finished(&locks.acquire(&in_line(tick)).await.unwrap(), 100);
    }
    let request = at_once(101);
    let grant = granted(locks.acquire(&request).await.unwrap());
    locks.release(&give_back(&request, grant)).await.unwrap();
    for strange in ["yesterday", "99999999999999999999", "00000000000000000102 me"] {
        place.write_tick(strange).await;
        for wish in [at_once(102), in_line(102)] {
            let error = locks.acquire(&wish).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{strange}: {error}");
        }
        assert!(place.keys("l/").await.is_empty());
    }
    // Work without a tick doesn't mind.
    let (mine, grant) = take(&locks, "job", seconds(30)).await;
    locks.release(&give_back(&mine, grant)).await.unwrap();
}

/// Who waits uses nothing up before his turn; who waits for the same is told so while the lock is held, and leaves.
async fn a_waiters_turn_uses_its_tick_up() {
    let place = Place::shared().await;
    let (one, two) = (place.locks().await, place.locks().await);
    let (holder, grant) = take(&one, "job", seconds(30)).await;
    let [first, second, later] = [in_line(100), in_line(100), in_line(101)];
    for request in [&first, &second, &later] {
        assert!(is_held(&two.acquire(request).await.unwrap()));
    }
    assert_eq!(place.last_tick().await, None);
    let mut turn = two.watch(&first.name, first.owner).await.unwrap();
    one.release(&give_back(&holder, grant)).await.unwrap();
    in_time(turn.woken()).await;
    let mine = granted(two.acquire(&first).await.unwrap());
    assert_eq!(place.last_tick().await, Some(used(100, first.owner)));
    assert_eq!(granted(two.acquire(&first).await.unwrap()).token, mine.token, "asked again");
    // Another process that knows of the call is told so, too.
    assert_eq!(granted(one.acquire(&first).await.unwrap()).token, mine.token);
    is_finished(&two.acquire(&second).await.unwrap(), 100);
    assert_eq!(place.keys("l/").await.len(), 2, "the holder, and who waits for the next tick");
    assert!(is_held(&two.acquire(&later).await.unwrap()));
    assert_eq!(two.release(&give_back(&first, mine)).await.unwrap(), Released::Released);
    let next = granted(two.acquire(&later).await.unwrap());
    assert!(next.token > mine.token);
    two.release(&give_back(&later, next)).await.unwrap();
    assert_eq!(place.last_tick().await, Some(used(101, later.owner)));
    assert_eq!(place.keys("").await, ["t/job"]);
}

/// His turn comes, and his tick was used up by those before him: he leaves, and those behind him come.
async fn a_waiter_whose_tick_is_gone_lets_others_pass() {
    let place = Place::shared().await;
    let (one, two) = (place.locks().await, place.locks().await);
    let (holder, grant) = take(&one, "job", seconds(30)).await;
    let waiting = [in_line(100), in_line(100), AcquireRequest { tick_use: TickUse::AtRelease, ..in_line(100) }];
    let behind = queue("job", seconds(30));
    for request in waiting.iter().chain([&behind]) {
        assert!(is_held(&two.acquire(request).await.unwrap()));
    }
    one.release(&give_back(&holder, grant)).await.unwrap();
    let grant = granted(two.acquire(&waiting[0]).await.unwrap());
    two.release(&give_back(&waiting[0], grant)).await.unwrap();
    for request in &waiting[1..] {
        is_finished(&two.acquire(request).await.unwrap(), 100);
    }
    let grant = granted(two.acquire(&behind).await.unwrap());
    two.release(&give_back(&behind, grant)).await.unwrap();
    assert_eq!(place.keys("").await, ["t/job"]);
}

/// A client whose server can be kept from it.
async fn far(place: &Place<impl AsServer>, limit: Duration) -> (Proxy, EtcdLocks) {
    let proxy = Proxy::start(place.host_port()).await.unwrap();
    let builder = EtcdLocks::builder(format!("etcd://{}/", proxy.address())).prefix(&place.prefix);
    let locks = builder.operation_timeout(limit).build().await.unwrap();
    (proxy, locks)
}

/// Asks, loses the answer to the request that holds this, and what follows it finds no server, until the store has it in
/// writing: what came from the server first, and broke the connection, may have been no answer yet.
async fn unanswered(
    (proxy, locks): (&Proxy, &EtcdLocks),
    request: &AcquireRequest,
    pattern: String,
    written: impl AsyncFn() -> bool,
) {
    while !written().await {
        let lost = proxy.lose_reply_to(pattern.as_str());
        let cut = async {
            lost.await.unwrap();
            proxy.refuse(true);
        };
        let (answer, ()) = tokio::join!(locks.acquire(request), in_time(cut));
        proxy.refuse(false);
        match answer {
            Err(error) => assert_eq!(error.applied(), Applied::Maybe, "{error}"),
            // The second attempt was quicker than the refusal.
            Ok(answer) => assert!(!matches!(answer, Acquired::Finished(_)), "a call's own tick: {answer:?}"),
        }
    }
}

/// The transaction that used the tick up went unanswered: the call that asks again has its grant, for as long as that lives.
async fn a_turn_that_went_unanswered_is_that_calls() {
    let place = Place::shared().await;
    let (proxy, far) = far(&place, Duration::from_millis(900)).await;
    let near = place.locks().await;
    for round in 1..=3 {
        let (holder, grant) = take(&near, "job", seconds(30)).await;
        let request = in_line(round);
        assert!(is_held(&far.acquire(&request).await.unwrap()));
        near.release(&give_back(&holder, grant)).await.unwrap();
        let mine = used(round, request.owner);
        unanswered((&proxy, &far), &request, mine.clone(), async || place.last_tick().await == Some(mine.clone()))
            .await;
        is_finished(&near.acquire(&in_line(round)).await.unwrap(), round);
        let token = granted(far.acquire(&request).await.unwrap()).token;
        assert!(token > grant.token && is_held(&near.acquire(&at_once(round + 1)).await.unwrap()));
        // Once it is over, it is over for that call as well.
        assert!(near.force_release(&request.name).await.unwrap());
        is_finished(&far.acquire(&request).await.unwrap(), round);
    }
    assert_eq!(place.keys("").await, ["t/job"]);
}

/// A place in line that its asker never learned of, and whose turn has come: it uses the tick up, or leaves if that is gone.
async fn a_place_that_nobody_knew_of_is_no_grant_of_its_tick() {
    let place = Place::shared().await;
    let (proxy, far) = far(&place, Duration::from_millis(900)).await;
    let near = place.locks().await;
    for (tick, tick_use, done) in
        [(1, TickUse::AtGrant, true), (2, TickUse::AtGrant, false), (3, TickUse::AtRelease, true)]
    {
        let (holder, grant) = take(&near, "job", seconds(30)).await;
        let request = AcquireRequest { tick_use, ..in_line(tick) };
        let queued = async || place.keys("l/").await.len() == 2;
        unanswered((&proxy, &far), &request, request.owner.to_string(), queued).await;
        let done = done.then_some(Tick(tick));
        near.release(&ReleaseRequest { done, ..give_back(&holder, grant) }).await.unwrap();
        match (far.acquire(&request).await.unwrap(), done) {
            (Acquired::Granted(grant), None) => {
                assert_eq!(place.last_tick().await, Some(used(tick, request.owner)));
                far.release(&give_back(&request, grant)).await.unwrap();
            }
            (answer, Some(_)) => is_finished(&answer, tick),
            (answer, None) => panic!("a new tick was answered with {answer:?}"),
        }
        assert_eq!(place.keys("").await, ["t/job"]);
    }
}

/// What becomes of an entry whose turn has come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It is taken away, and the lock is another's.
    Anothers,
    /// The same, and the lock is its owner's again by another process.
    TakenAnew,
    /// It is given back, and the lock kept taken.
    Rests,
}

/// Between the look and the transaction that uses the tick up, the entry goes: nothing is used up for it.
async fn a_turn_whose_entry_is_gone_uses_nothing_up() {
    let place = Place::alone().await;
    let (proxy, far) = far(&place, seconds(30)).await;
    let near = place.locks().await;
    for fate in [Fate::Anothers, Fate::TakenAnew, Fate::Rests] {
        let (holder, grant) = take(&near, "job", seconds(60)).await;
        let request = AcquireRequest { ttl: seconds(60), ..in_line(100) };
        assert!(is_held(&far.acquire(&request).await.unwrap()));
        near.release(&give_back(&holder, grant)).await.unwrap();
        let before = Counts::of(place.host_port()).await.transactions();
        // The look's answer, and what follows it, are on their way for so long each, at least; the others take that away
        // in between.
        proxy.delay(Duration::from_millis(700));
        let asking = tokio::spawn({
            let (far, request) = (far.clone(), request.clone());
            async move { far.acquire(&request).await }
        });
        in_time(async {
            while Counts::of(place.host_port()).await.transactions() == before {
                pass(Duration::from_millis(5)).await;
            }
        })
        .await;
        let given_back = ReleaseRequest::new(request.name.clone(), request.owner, None);
        let now = match fate {
            Fate::Rests => {
                let rest = ReleaseRequest { keep_for: seconds(60), ..given_back.clone() };
                assert_eq!(near.release(&rest).await.unwrap(), Released::Released);
                None
            }
            Fate::Anothers | Fate::TakenAnew => {
                assert!(near.force_release(&request.name).await.unwrap());
                let owner = if fate == Fate::TakenAnew { request.owner } else { ask("job", seconds(60)).owner };
                let wish = AcquireRequest { owner, ..ask("job", seconds(60)) };
                Some(granted(near.acquire(&wish).await.unwrap()).token)
            }
        };
        match in_time(asking).await.unwrap().unwrap() {
            Acquired::Granted(grant) if fate == Fate::TakenAnew => assert_eq!(Some(grant.token), now),
            Acquired::Held(_) if fate != Fate::TakenAnew => assert_eq!(place.last_tick().await, None, "{fate:?}"),
            answer => panic!("{fate:?}: the answer was {answer:?}"),
        }
        proxy.delay(Duration::ZERO);
        far.release(&given_back).await.unwrap();
        near.force_release(&request.name).await.unwrap();
        place.delete("t/").await;
    }
}

/// Kept taken after its release, it isn't its owner's any more: neither is the tick.
async fn a_lock_that_rests_forgets_no_tick() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let request = at_once(100);
    let grant = granted(locks.acquire(&request).await.unwrap());
    let rest = ReleaseRequest { keep_for: seconds(60), ..give_back(&request, grant) };
    assert_eq!(locks.release(&rest).await.unwrap(), Released::Released);
    for again in [&request, &at_once(100), &in_line(99)] {
        is_finished(&locks.acquire(again).await.unwrap(), 100);
    }
    assert!(is_held(&locks.acquire(&at_once(101)).await.unwrap()));
    assert!(!locks.force_release(&request.name).await.unwrap());
    is_finished(&locks.acquire(&request).await.unwrap(), 100);
    granted(locks.acquire(&at_once(101)).await.unwrap());
}

/// With ticks and without, of one lock and of several.
async fn a_group_judges_each_by_its_tick() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let of = |lock: &str, tick: Option<u64>| AcquireRequest { tick: tick.map(Tick), ..ask(lock, seconds(30)) };
    let (mine, free) = (of("a", Some(7)), AcquireRequest { tick: Some(Tick(3)), ..queue("c", seconds(30)) });
    let later = AcquireRequest { tick_use: TickUse::AtRelease, ..of("d", Some(5)) };
    let requests = [
        mine.clone(),
        of("b", None),
        free,
        later.clone(),
        of("a", Some(7)),
        of("a", Some(8)),
        mine,
        of("a", None),
        of("d", Some(5)),
        AcquireRequest { tick: Some(Tick(3)), ..queue("c", seconds(30)) },
    ];
    let answers: Vec<_> = locks.acquire_many(&requests).await.into_iter().map(Result::unwrap).collect();
    let told: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Acquired::Granted(_) => "granted".to_owned(),
            Acquired::Finished(Tick(last)) => last.to_string(),
            _ => "held".to_owned(),
        })
        .collect();
    let [yes, no] = ["granted", "held"];
    assert_eq!(told, [yes, yes, yes, yes, "7", no, yes, no, no, "3"]);
    assert_eq!(granted(answers[0].clone()).token, granted(answers[6].clone()).token);
    assert_eq!(place.keys("t/").await, ["t/a", "t/c"]);
    let release = |at: usize| give_back(&requests[at], granted(answers[at].clone()));
    let releases = [release(0), release(1), release(2), ReleaseRequest { done: Some(Tick(5)), ..release(3) }];
    assert!(locks.release_many(&releases).await.into_iter().all(|answer| answer.unwrap() == Released::Released));
    assert_eq!(place.keys("").await, ["t/a", "t/c", "t/d"]);
    is_finished(&locks.acquire(&later).await.unwrap(), 5);
}

/// A tick costs no transaction of its own where the lock is free.
async fn a_tick_goes_with_its_grant() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let (warm, grant) = take(&locks, "warm", seconds(30)).await;
    locks.release(&give_back(&warm, grant)).await.unwrap();
    for request in [at_once(1), in_line(2)] {
        let before = Counts::of(place.host_port()).await.transactions();
        let grant = granted(locks.acquire(&request).await.unwrap());
        is_finished(&locks.acquire(&in_line(1)).await.unwrap(), request.tick.unwrap().0);
        locks.release(&give_back(&request, grant)).await.unwrap();
        assert_eq!(Counts::of(place.host_port()).await.transactions() - before, 3.0);
    }
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    a_grant_uses_up_its_tick_and_those_before,
    a_finished_tick_stays_finished,
    what_is_kept_of_a_tick_is_read_with_care,
    a_waiters_turn_uses_its_tick_up,
    a_waiter_whose_tick_is_gone_lets_others_pass,
    a_turn_that_went_unanswered_is_that_calls,
    a_place_that_nobody_knew_of_is_no_grant_of_its_tick,
    a_turn_whose_entry_is_gone_uses_nothing_up,
    a_lock_that_rests_forgets_no_tick,
    a_group_judges_each_by_its_tick,
    a_tick_goes_with_its_grant,
);
