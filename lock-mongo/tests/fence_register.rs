//! The register: what passes and what doesn't, in a transaction of the caller's and outside of one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Place, pass, seconds};
use lock_core::{
    Applied, Clock, Entropy, ErrorKind, Fence, FenceError, FenceRegister, LockName, OsEntropy, Pass, Resource,
    SystemClock,
};
use lock_mongo::MongoFences;
use mongodb::{
    ClientSession, Collection,
    bson::{Bson, Document, doc},
};

const REGISTER: &str = "leasehold_fences";

fn fence(lock: &str, token: u64) -> Fence {
    Fence::new(LockName::new(lock).unwrap(), lock_core::FencingToken::new(token)).unwrap()
}

fn resource(name: &str) -> Resource {
    Resource::new(name).unwrap()
}

async fn register(place: &Place) -> MongoFences {
    MongoFences::connect(&place.url).await.unwrap()
}

fn data(place: &Place) -> Collection<Document> {
    place.database.collection("data")
}

async fn begun(place: &Place, fences: &MongoFences) -> ClientSession {
    let mut session = place.client.start_session().await.unwrap();
    session.start_transaction().with_options(fences.options()).await.unwrap();
    session
}

fn kind(error: &FenceError) -> Option<ErrorKind> {
    if let FenceError::Store(error) = error { Some(error.kind()) } else { None }
}

/// What refuses a fence, by the rule.
#[derive(Clone, Copy, Debug, PartialEq)]
enum No {
    Stale,
    Other,
    Corrupt,
}

fn says(error: &FenceError, no: No) -> bool {
    assert_eq!(error.applied(), Applied::No, "{error}");
    match no {
        No::Stale => matches!(error, FenceError::Stale(_)),
        No::Other => matches!(error, FenceError::OtherLock(_)),
        No::Corrupt => kind(error) == Some(ErrorKind::Corrupt),
    }
}

async fn the_highest_passes_again_or_once_and_lower_ones_never() {
    let place = Place::new().await;
    let fences = register(&place).await;
    let long = "ä".repeat(256);
    for name in ["accounts", "a$b.c 🔒 ' \" \\ \n", "$lock", &long] {
        let at = resource(name);
        let raise = async |fence: Fence, pass| fences.raise(&at, &fence, pass).await;
        assert_eq!(fences.highest(&at).await.unwrap(), None);
        assert!(!fences.forget(&at).await.unwrap());
        raise(fence(name, 5), Pass::Again).await.unwrap();
        raise(fence(name, 5), Pass::Again).await.unwrap();
        for (refused, how, no) in [
            (fence(name, 4), Pass::Again, No::Stale),
            (fence(name, 5), Pass::Once, No::Stale),
            (fence("y", 6), Pass::Again, No::Other),
            (fence("y", 4), Pass::Once, No::Other),
        ] {
            let error = raise(refused, how).await.unwrap_err();
            assert!(says(&error, no), "{error}");
            assert_eq!(fences.highest(&at).await.unwrap(), Some(fence(name, 5)));
        }
        raise(fence(name, 6), Pass::Once).await.unwrap();
        let most = fence(name, lock_core::FencingToken::MAX.get());
        raise(most.clone(), Pass::Again).await.unwrap();
        assert_eq!(fences.highest(&at).await.unwrap(), Some(most));
        assert!(fences.forget(&at).await.unwrap());
        raise(fence("y", 1), Pass::Once).await.unwrap();
        assert_eq!(fences.highest(&at).await.unwrap(), Some(fence("y", 1)));
    }
    place.clear().await;
}

async fn a_refusal_undoes_the_whole_transaction_even_if_nobody_heeds_it() {
    let place = Place::new().await;
    let (fences, data) = (register(&place).await, data(&place));
    place.database.create_collection("data").await.unwrap();
    let records = place.database.collection::<Document>(REGISTER);
    for (stands, refused, how, no) in [
        (doc! { "lock": "x", "token": 5_i64 }, fence("x", 4), Pass::Again, No::Stale),
        (doc! { "lock": "x", "token": 5_i64 }, fence("x", 5), Pass::Once, No::Stale),
        (doc! { "lock": "x", "token": 5_i64 }, fence("y", 6), Pass::Again, No::Other),
        (doc! { "lock": "x", "token": -5_i64 }, fence("x", 4), Pass::Again, No::Corrupt),
        (doc! { "lock": "x", "token": 0_i64 }, fence("x", 4), Pass::Again, No::Corrupt),
        (doc! { "lock": "x", "token": 3 }, fence("x", 4), Pass::Again, No::Corrupt),
        (doc! { "lock": "x", "token": 3.0 }, fence("x", 4), Pass::Again, No::Corrupt),
        (doc! { "lock": "x", "token": "3" }, fence("x", 4), Pass::Again, No::Corrupt),
        (doc! { "lock": "x", "token": [3_i64, 9_i64] }, fence("x", 4), Pass::Again, No::Corrupt),
        (doc! { "lock": "x", "token": Bson::Null }, fence("x", 4), Pass::Again, No::Corrupt),
        (doc! { "lock": "x" }, fence("x", 4), Pass::Again, No::Corrupt),
        (doc! { "lock": ["x"], "token": 3_i64 }, fence("x", 4), Pass::Again, No::Corrupt),
        (doc! { "lock": 7, "token": 3_i64 }, fence("x", 4), Pass::Again, No::Corrupt),
    ] {
        let mut stands = stands;
        stands.insert("_id", "r");
        records.replace_one(doc! { "_id": "r" }, &stands).upsert(true).await.unwrap();
        let mut session = begun(&place, &fences).await;
        data.insert_one(doc! { "_id": "before" }).session(&mut session).await.unwrap();
        let error = fences.admit(&mut session, &resource("r"), &refused, how).await.unwrap_err();
        assert!(says(&error, no), "{stands}: {error}");
        data.insert_one(doc! { "_id": "after" }).session(&mut session).await.unwrap_err();
        session.commit_transaction().await.unwrap_err();
        // The same outside of a transaction.
        let error = fences.raise(&resource("r"), &refused, how).await.unwrap_err();
        assert!(says(&error, no), "{stands}: {error}");
        if no == No::Corrupt {
            let error = fences.highest(&resource("r")).await.unwrap_err();
            assert!(says(&error, no), "{stands}: {error}");
        }
        assert_eq!(records.find_one(doc! { "_id": "r" }).await.unwrap(), Some(stands.clone()));
        assert_eq!(records.count_documents(doc! {}).await.unwrap(), 1);
        assert_eq!(data.count_documents(doc! {}).await.unwrap(), 0, "{stands}");
    }
    place.clear().await;
}

async fn what_passes_is_kept_with_the_commit_and_not_before() {
    let place = Place::new().await;
    let (fences, data) = (register(&place).await, data(&place));
    place.database.create_collection("data").await.unwrap();
    for (token, commits) in [(5, false), (5, true), (5, true), (9, false), (6, true)] {
        let before = fences.highest(&resource("r")).await.unwrap();
        let mut session = begun(&place, &fences).await;
        fences.admit(&mut session, &resource("r"), &fence("x", token), Pass::Again).await.unwrap();
        data.insert_one(doc! { "token": i64::try_from(token).unwrap() }).session(&mut session).await.unwrap();
        assert_eq!(fences.highest(&resource("r")).await.unwrap(), before);
        if commits {
            session.commit_transaction().await.unwrap();
            assert_eq!(fences.highest(&resource("r")).await.unwrap(), Some(fence("x", token)));
        } else {
            session.abort_transaction().await.unwrap();
            assert_eq!(fences.highest(&resource("r")).await.unwrap(), before);
        }
    }
    assert_eq!(data.count_documents(doc! {}).await.unwrap(), 3);
    place.clear().await;
}

/// Also where the token stays, so that nothing but the register tells the two of each other.
async fn a_later_grant_gets_through_only_after_an_open_write_of_the_one_before() {
    let place = Place::new().await;
    let (fences, data) = (register(&place).await, data(&place));
    place.database.create_collection("data").await.unwrap();
    fences.raise(&resource("r"), &fence("x", 5), Pass::Again).await.unwrap();
    let mut session = begun(&place, &fences).await;
    fences.admit(&mut session, &resource("r"), &fence("x", 5), Pass::Again).await.unwrap();
    data.insert_one(doc! { "by": 5 }).session(&mut session).await.unwrap();
    let raising = tokio::spawn({
        let (fences, start) = (fences.clone(), SystemClock.now());
        async move { fences.raise(&resource("r"), &fence("x", 6), Pass::Again).await.map(|()| (start, SystemClock.now())) }
    });
    // A transaction doesn't wait: it is told at once.
    let mut other = begun(&place, &fences).await;
    let error = fences.admit(&mut other, &resource("r"), &fence("x", 6), Pass::Again).await.unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::Contention), "{error}");
    pass(seconds(1)).await;
    assert!(!raising.is_finished());
    let ending = SystemClock.now();
    session.commit_transaction().await.unwrap();
    let (start, raised) = raising.await.unwrap().unwrap();
    println!(
        "a raise asked for at +0 ms came through at +{:?}, the write before it ended at +{:?}",
        raised.since(start),
        ending.since(start)
    );
    assert!(raised >= ending);
    let mut session = begun(&place, &fences).await;
    let error = fences.admit(&mut session, &resource("r"), &fence("x", 5), Pass::Again).await.unwrap_err();
    assert!(says(&error, No::Stale), "{error}");
    assert_eq!(data.count_documents(doc! {}).await.unwrap(), 1);
    place.clear().await;
}

async fn a_transaction_that_read_before_a_raise_is_not_let_through_after_it() {
    let place = Place::new().await;
    let (fences, data) = (register(&place).await, data(&place));
    place.database.create_collection("data").await.unwrap();
    fences.raise(&resource("r"), &fence("x", 5), Pass::Again).await.unwrap();
    // What is there, and what isn't there yet.
    for name in ["r", "new"] {
        let mut session = begun(&place, &fences).await;
        data.find_one(doc! {}).session(&mut session).await.unwrap();
        fences.raise(&resource(name), &fence("x", 6), Pass::Again).await.unwrap();
        let error = fences.admit(&mut session, &resource(name), &fence("x", 5), Pass::Again).await.unwrap_err();
        assert!(kind(&error) == Some(ErrorKind::Contention) || says(&error, No::Stale), "{error}");
        session.commit_transaction().await.unwrap_err();
        assert_eq!(fences.highest(&resource(name)).await.unwrap(), Some(fence("x", 6)));
    }
    place.clear().await;
}

async fn committed_tokens_never_fall() {
    const TASKS: u64 = 8;
    const ROUNDS: u64 = 12;
    let place = Place::new().await;
    let (fences, data) = (register(&place).await, data(&place));
    data.insert_one(doc! { "_id": "list", "tokens": [] }).await.unwrap();
    let place = Arc::new(place);
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (place, fences, data) = (Arc::clone(&place), fences.clone(), data.clone());
            tokio::spawn(async move {
                let (mut kept, mut stale, mut contended) = (Vec::new(), 0, 0);
                for round in 0..ROUNDS {
                    let token = round * 5 + 1 + OsEntropy.next_u64() % 20;
                    let mut session = begun(&place, &fences).await;
                    match fences.admit(&mut session, &resource("r"), &fence("x", token), Pass::Again).await {
                        Ok(()) => {}
                        Err(error) if kind(&error) == Some(ErrorKind::Contention) => {
                            contended += 1;
                            continue;
                        }
                        Err(error) => {
                            assert!(says(&error, No::Stale), "{error}");
                            stale += 1;
                            continue;
                        }
                    }
                    let token = i64::try_from(token).unwrap();
                    let push = doc! { "$push": { "tokens": token } };
                    let pushed = data.update_one(doc! { "_id": "list" }, push).session(&mut session).await;
                    if pushed.is_err() || session.commit_transaction().await.is_err() {
                        contended += 1;
                        continue;
                    }
                    kept.push(token);
                }
                (kept, stale, contended)
            })
        })
        .collect();
    let (mut kept, mut stale, mut contended) = (Vec::new(), 0, 0);
    for task in tasks {
        let (of_one, refused, again) = task.await.unwrap();
        kept.extend(of_one);
        stale += refused;
        contended += again;
    }
    let list = data.find_one(doc! { "_id": "list" }).await.unwrap().unwrap();
    let tokens: Vec<i64> = list.get_array("tokens").unwrap().iter().map(|token| token.as_i64().unwrap()).collect();
    println!("{} kept, {stale} stale, {contended} in each other's way: {tokens:?}", tokens.len());
    assert!(tokens.is_sorted(), "{tokens:?}");
    kept.sort_unstable();
    assert_eq!(kept, tokens, "what was acknowledged is there, and nothing else");
    assert!(stale > 0 && kept.len() > 5);
    Arc::into_inner(place).unwrap().clear().await;
}

async fn concurrent_first_raises_all_end_under_the_highest() {
    let place = Place::new().await;
    let fences = register(&place).await;
    let raises = (1..=32).map(|token| {
        let fences = fences.clone();
        async move { fences.raise(&resource("r"), &fence("x", token), Pass::Again).await }
    });
    for raised in futures_util::future::join_all(raises).await {
        if let Err(error) = raised {
            assert!(says(&error, No::Stale), "{error}");
        }
    }
    assert_eq!(fences.highest(&resource("r")).await.unwrap(), Some(fence("x", 32)));
    place.clear().await;
}

async fn outside_of_a_transaction_nothing_is_admitted() {
    let place = Place::new().await;
    let fences = register(&place).await;
    let mut session = place.client.start_session().await.unwrap();
    for _ in 0..2 {
        let error = fences.admit(&mut session, &resource("r"), &fence("x", 5), Pass::Again).await.unwrap_err();
        assert_eq!((kind(&error), error.applied()), (Some(ErrorKind::Other), Applied::No), "{error}");
        assert!(error.to_string().contains("start_transaction"), "{error}");
        assert_eq!(fences.highest(&resource("r")).await.unwrap(), None);
        session.start_transaction().await.unwrap();
        session.commit_transaction().await.unwrap();
    }
    place.clear().await;
    // A standalone keeps a register as well, and has no transactions.
    let place = Place::standalone().await;
    let fences = register(&place).await;
    fences.raise(&resource("r"), &fence("x", 5), Pass::Again).await.unwrap();
    assert!(says(&fences.raise(&resource("r"), &fence("x", 4), Pass::Again).await.unwrap_err(), No::Stale));
    let mut session = begun(&place, &fences).await;
    let error = fences.admit(&mut session, &resource("r"), &fence("x", 6), Pass::Again).await.unwrap_err();
    assert_eq!((kind(&error), error.applied()), (Some(ErrorKind::Unsupported), Applied::No), "{error}");
    println!("{error}");
    assert_eq!(fences.highest(&resource("r")).await.unwrap(), Some(fence("x", 5)));
    place.clear().await;
}

async fn what_is_admitted_costs_one_command_more() {
    let place = Place::new().await;
    let (fences, data) = (register(&place).await, data(&place));
    data.insert_one(doc! { "_id": 1, "n": 0 }).await.unwrap();
    let (mut plain, mut fenced) = (Vec::new(), Vec::new());
    for round in 0..120 {
        let start = SystemClock.now();
        let mut session = begun(&place, &fences).await;
        if round % 2 == 0 {
            fences.admit(&mut session, &resource("r"), &fence("x", 5), Pass::Again).await.unwrap();
        }
        data.update_one(doc! { "_id": 1 }, doc! { "$inc": { "n": 1 } }).session(&mut session).await.unwrap();
        session.commit_transaction().await.unwrap();
        let took = SystemClock.now().since(start);
        if round % 2 == 0 {
            fenced.push(took)
        } else {
            plain.push(took)
        };
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (plain, fenced) = (median(plain), median(fenced));
    println!(
        "a plain transaction {plain:?}, with admit {fenced:?}: {:.2}x",
        fenced.as_secs_f64() / plain.as_secs_f64()
    );
    assert!(fenced < plain * 10);
    place.clear().await;
}

testbed::server_tests!(testbed::mongo =>
    the_highest_passes_again_or_once_and_lower_ones_never,
    a_refusal_undoes_the_whole_transaction_even_if_nobody_heeds_it,
    what_passes_is_kept_with_the_commit_and_not_before,
    a_later_grant_gets_through_only_after_an_open_write_of_the_one_before,
    a_transaction_that_read_before_a_raise_is_not_let_through_after_it,
    committed_tokens_never_fall,
    concurrent_first_raises_all_end_under_the_highest,
    outside_of_a_transaction_nothing_is_admitted,
    what_is_admitted_costs_one_command_more,
);
