//! Ticks: what uses one up, and what it takes to be told so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::sync::{Arc, Mutex};

use common::{Place, ask, give_back, granted, name, seconds, take};
use lock_core::{
    AcquireRequest, Acquired, Applied, ErrorKind, FencingToken, LockProvider, ReleaseRequest, Released, Tick, TickUse,
    Waiting,
};
use lock_mongo::MongoLocks;
use mongodb::{
    Client,
    bson::{Bson, doc},
    event::{EventHandler, command::CommandEvent},
    options::ClientOptions,
};

fn at_grant(lock: &str, tick: u64) -> AcquireRequest {
    AcquireRequest { tick: Some(Tick(tick)), ..ask(lock, seconds(30)) }
}

fn at_release(lock: &str, tick: u64) -> AcquireRequest {
    AcquireRequest { tick_use: TickUse::AtRelease, ..at_grant(lock, tick) }
}

async fn last_tick(place: &Place, lock: &str) -> Option<Bson> {
    place.record(lock).await.unwrap().get("last_tick").cloned()
}

/// `granted`, `held` or the tick that was told.
fn in_short(answer: &Acquired) -> String {
    match answer {
        Acquired::Granted(_) => "granted".to_owned(),
        Acquired::Held(_) => "held".to_owned(),
        Acquired::Finished(Tick(last)) => last.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn answers(locks: &MongoLocks, requests: &[AcquireRequest]) -> Vec<String> {
    locks.acquire_many(requests).await.iter().map(|answer| in_short(answer.as_ref().unwrap())).collect()
}

async fn each_of_a_group_is_judged_by_its_own_tick() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let mine = at_grant("mine", 5);
    let first = [mine.clone(), at_grant("used", 5), at_release("open", 5), ask("plain", seconds(30))];
    assert_eq!(answers(&locks, &first).await, ["granted"; 4]);
    for (lock, last) in [("mine", Some(5)), ("used", Some(5)), ("open", None), ("plain", None)] {
        assert_eq!(last_tick(&place, lock).await, last.map(Bson::Int64), "{lock}");
    }
    let next = [
        // The owner's own call, once more, whatever its tick.
        mine.clone(),
        at_grant("used", 5),
        at_grant("open", 5),
        ask("used", seconds(30)),
        at_grant("used", 6),
        at_release("used", 4),
        AcquireRequest { tick: Some(Tick(1)), ..mine },
        at_grant("plain", 5),
        at_grant("fresh", 5),
    ];
    let told = ["granted", "5", "held", "held", "held", "5", "granted", "held", "granted"];
    assert_eq!(answers(&locks, &next).await, told);
    let freed = ["used", "open"].map(name);
    for lock in &freed {
        assert!(locks.force_release(lock).await.unwrap());
    }
    // One lock twice: the one without a tick takes it, or the one whose tick is not over.
    let twice = [at_grant("used", 5), ask("used", seconds(30)), at_grant("open", 7), at_grant("open", 6)];
    assert_eq!(answers(&locks, &twice).await, ["5", "granted", "granted", "7"]);
    assert_eq!(last_tick(&place, "used").await, Some(Bson::Int64(5)));
    place.clear().await;
}

async fn a_release_uses_a_tick_up_if_it_gives_the_lease_back_and_never_an_earlier_one() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let done = |release: ReleaseRequest, tick| ReleaseRequest { done: Some(Tick(tick)), ..release };
    // Alone, and in a group.
    for others in [vec![], vec![ReleaseRequest::new(name("nobodys"), ask("x", seconds(1)).owner, None)]] {
        let release = async |release: ReleaseRequest| {
            let all: Vec<_> = [release].into_iter().chain(others.clone()).collect();
            locks.release_many(&all).await.into_iter().next().unwrap().unwrap()
        };
        let lock = format!("lock-{}", others.len());
        let (request, grant) = take(&locks, &lock).await;
        let mine = give_back(&request, grant);
        let stale = FencingToken::new(grant.token.get() - 1);
        for stranger in
            [ReleaseRequest { token: Some(stale), ..mine.clone() }, give_back(&ask(&lock, seconds(1)), grant)]
        {
            assert_eq!(release(done(stranger, 9)).await, Released::NotHeld);
        }
        assert_eq!(last_tick(&place, &lock).await, None);
        assert_eq!(
            release(done(ReleaseRequest { keep_for: seconds(60), ..mine.clone() }, 5)).await,
            Released::Released
        );
        assert_eq!(release(done(mine, 9)).await, Released::NotHeld);
        // It rests, and is told finished all the same.
        assert_eq!(answers(&locks, &[at_grant(&lock, 5)]).await, ["5"]);
        assert_eq!(answers(&locks, &[at_grant(&lock, 6)]).await, ["held"]);
        assert!(!locks.force_release(&name(&lock)).await.unwrap());
        for (tick, last) in [(Some(4), 5), (None, 5), (Some(6), 6)] {
            let (request, grant) = take(&locks, &lock).await;
            let release_it = ReleaseRequest { done: tick.map(Tick), ..give_back(&request, grant) };
            assert_eq!(release(release_it).await, Released::Released);
            assert_eq!(last_tick(&place, &lock).await, Some(Bson::Int64(last)), "after {tick:?}");
        }
    }
    place.clear().await;
}

async fn what_is_no_tick_is_never_judged() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let bad = [Bson::Null, "9".into(), 5.5.into(), Bson::MinKey, (1_i64 << 53).into(), vec![5_i64].into()];
    for (at, bad) in bad.into_iter().enumerate() {
        let lock = format!("{at}");
        place.records().insert_one(doc! { "_id": &lock, "token": 7_i64, "last_tick": &bad }).await.unwrap();
        let before = place.record(&lock).await;
        let waits = AcquireRequest { waiting: Waiting::Wake(seconds(30)), ..at_grant(&lock, 5) };
        let alone = locks.acquire(&at_grant(&lock, 5)).await;
        let waiting = locks.acquire(&waits).await;
        let group = locks.acquire_many(&[at_release(&lock, 5), ask("good", seconds(30))]).await;
        for answer in [&alone, &waiting, &group[0]] {
            let error = answer.as_ref().unwrap_err();
            assert!(error.kind() == ErrorKind::Corrupt && error.applied() == Applied::No, "{bad}: {error}");
        }
        assert_eq!(place.record(&lock).await, before, "{bad}");
        // Who has no tick doesn't mind it, nor changes it.
        let (request, grant) = take(&locks, &lock).await;
        assert_eq!(last_tick(&place, &lock).await, Some(bad.clone()));
        assert_eq!(locks.acquire(&waits).await.unwrap_err().kind(), ErrorKind::Corrupt, "{bad}, while it is held");
        assert_eq!(locks.release(&give_back(&request, grant)).await.unwrap(), Released::Released);
    }
    // By hand, as a shell writes small numbers.
    place.records().insert_one(doc! { "_id": "short", "token": 7, "last_tick": 5 }).await.unwrap();
    let told = answers(&locks, &[at_grant("short", 5), at_grant("short", Tick::MAX.0)]).await;
    assert_eq!(told, ["5", "granted"]);
    assert_eq!(answers(&locks, &[at_grant("short", Tick::MAX.0)]).await, [Tick::MAX.0.to_string()]);
    place.clear().await;
}

/// By the commands that a client sends.
async fn a_tick_costs_no_command_more_and_is_told_finished_by_what_a_majority_has() {
    let place = Place::new().await;
    let sent = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sent);
    let mut options = ClientOptions::parse(&place.url).await.unwrap();
    options.command_event_handler = Some(EventHandler::callback(move |event| {
        if let CommandEvent::Started(started) = event {
            let level = started.command.get_document("readConcern").and_then(|concern| concern.get_str("level"));
            let level = level.map_or(String::new(), |level| format!(" {level}"));
            seen.lock().unwrap().push(format!("{}{level}", started.command_name));
        }
    }));
    let client = Client::with_options(options).unwrap();
    let locks = MongoLocks::builder(client.database(place.database.name())).build().await.unwrap();
    let sent_for = async |requests: &[AcquireRequest], told: &[&str]| {
        sent.lock().unwrap().clear();
        assert_eq!(answers(&locks, requests).await, told);
        sent.lock().unwrap().clone()
    };
    let waits = |request| AcquireRequest { waiting: Waiting::Wake(seconds(30)), ..request };
    assert_eq!(sent_for(&[ask("plain", seconds(30))], &["granted"]).await, ["findAndModify"]);
    assert_eq!(sent_for(&[at_grant("x", 5)], &["granted"]).await, ["findAndModify"]);
    assert_eq!(sent_for(&[at_grant("x", 5)], &["5"]).await, ["findAndModify"]);
    assert_eq!(sent_for(&[at_grant("x", 6)], &["held"]).await, ["findAndModify"]);
    assert_eq!(sent_for(&[waits(at_grant("x", 6))], &["held"]).await, ["find local"]);
    assert_eq!(sent_for(&[waits(at_grant("x", 5))], &["5"]).await, ["find local", "findAndModify"]);
    let group = [ask("a", seconds(30)), ask("x", seconds(30))];
    assert_eq!(sent_for(&group, &["granted", "held"]).await, ["update", "find local"]);
    let group = [ask("b", seconds(30)), at_grant("x", 5), at_grant("c", 5), at_grant("plain", 5)];
    assert_eq!(sent_for(&group, &["granted", "5", "granted", "held"]).await, ["update", "find majority"]);

    let request = at_release("done", 5);
    let grant = granted(locks.acquire(&request).await.unwrap());
    sent.lock().unwrap().clear();
    let release = ReleaseRequest { done: request.tick, ..give_back(&request, grant) };
    assert_eq!(locks.release(&release).await.unwrap(), Released::Released);
    assert_eq!(*sent.lock().unwrap(), ["findAndModify"]);
    place.clear().await;
}

testbed::server_tests!(testbed::mongo =>
    each_of_a_group_is_judged_by_its_own_tick,
    a_release_uses_a_tick_up_if_it_gives_the_lease_back_and_never_an_earlier_one,
    what_is_no_tick_is_never_judged,
    a_tick_costs_no_command_more_and_is_told_finished_by_what_a_majority_has,
);
