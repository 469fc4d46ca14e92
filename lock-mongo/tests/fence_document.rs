//! Documents that carry their own fence.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Place, unique};
use lock_core::{
    Applied, Clock, Entropy, ErrorKind, Fence, FenceError, FencingToken, LockName, OsEntropy, Pass, RefusalReason,
    SystemClock, TestObserver,
};
use lock_mongo::DocumentFence;
use mongodb::{
    Collection,
    bson::{Binary, Bson, Document, doc, oid::ObjectId, spec::BinarySubtype},
    options::{Collation, CollationStrength, UpdateModifications},
};

fn fence(lock: &str, token: u64) -> Fence {
    Fence::new(LockName::new(lock).unwrap(), FencingToken::new(token)).unwrap()
}

fn under(lock: &str, token: u64, pass: Pass) -> DocumentFence {
    DocumentFence::new(&fence(lock, token), pass).unwrap()
}

async fn get(data: &Collection<Document>, id: impl Into<Bson>) -> Document {
    data.find_one(doc! { "_id": id.into() }).await.unwrap().unwrap()
}

async fn the_document_lets_only_the_highest_write() {
    let place = Place::new().await;
    let data = place.database.collection::<Document>("data");
    let names = ["x", "$lock", "a 🔒 ' \" \\ \n.$b"];
    for id in [Bson::from(7), "$id".into(), ObjectId::new().into()] {
        for lock in names {
            data.replace_one(doc! { "_id": &id }, doc! { "n": 0 }).upsert(true).await.unwrap();
            let write = async |fence: DocumentFence, update: UpdateModifications| {
                fence.update_one(&data, id.clone(), update).await
            };
            let inc = || UpdateModifications::from(doc! { "$inc": { "n": 1 } });
            let piped = || UpdateModifications::from(vec![doc! { "$set": { "n": { "$add": ["$n", 1] } } }]);
            // A first read, and then three writes.
            assert!(write(under(lock, 5, Pass::Again), doc! {}.into()).await.unwrap());
            assert!(write(under(lock, 5, Pass::Again), inc()).await.unwrap());
            assert!(write(under(lock, 5, Pass::Again), piped()).await.unwrap());
            assert!(write(under(lock, 6, Pass::Once), doc! { "$set": { "n": 3, "m": 1 } }.into()).await.unwrap());
            let before = get(&data, id.clone()).await;
            assert_eq!((before.get_i32("n").unwrap(), before.get_i32("m").unwrap()), (3, 1));
            for (refused, by_another) in [
                (under(lock, 5, Pass::Again), false),
                (under(lock, 6, Pass::Once), false),
                (under("y", 9, Pass::Again), true),
            ] {
                for update in [inc(), piped()] {
                    let error = write(refused.clone(), update).await.unwrap_err();
                    assert_eq!(error.applied(), Applied::No);
                    match &error {
                        FenceError::Stale(stale) => assert!(!by_another && stale.highest.get() == 6),
                        FenceError::OtherLock(_) => assert!(by_another),
                        _ => panic!("{error}"),
                    }
                }
                // A command of one's own.
                let own = data.delete_one(refused.filter(doc! { "_id": &id })).await.unwrap();
                assert_eq!(own.deleted_count, 0);
                assert_eq!(get(&data, id.clone()).await, before);
            }
        }
    }
    assert!(!under("x", 5, Pass::Again).update_one(&data, unique(), doc! { "$set": { "n": 1 } }).await.unwrap());
    assert_eq!(data.count_documents(doc! {}).await.unwrap(), 3);
    place.clear().await;
}

async fn what_no_version_writes_refuses_all() {
    let place = Place::new().await;
    let data = place.database.collection::<Document>("data");
    let bytes = |lock: &str| Binary { subtype: BinarySubtype::Generic, bytes: lock.as_bytes().to_vec() };
    let sound = || doc! { "lock": "x", "lock_bytes": bytes("x"), "token": 5_i64 };
    for stands in [
        Bson::Null,
        Bson::from(5_i64),
        "5@x".into(),
        vec![Bson::from(sound())].into(),
        doc! { "lock": "x", "lock_bytes": bytes("x"), "token": -5_i64 }.into(),
        doc! { "lock": "x", "lock_bytes": bytes("x"), "token": 5 }.into(),
        doc! { "lock": "x", "lock_bytes": bytes("x"), "token": "5" }.into(),
        doc! { "lock": "x", "lock_bytes": bytes("x"), "token": [5_i64] }.into(),
        doc! { "lock": ["x"], "lock_bytes": bytes("x"), "token": 5_i64 }.into(),
        doc! { "lock": "x", "lock_bytes": [bytes("x")], "token": 5_i64 }.into(),
        doc! { "lock": "x", "lock_bytes": bytes("y"), "token": 5_i64 }.into(),
        doc! { "lock": "x", "lock_bytes": "x", "token": 5_i64 }.into(),
        doc! { "lock": "x", "token": 5_i64 }.into(),
        doc! { "token": 5_i64 }.into(),
        doc! {}.into(),
    ] {
        data.replace_one(doc! { "_id": 1 }, doc! { "n": 0, "fence": &stands }).upsert(true).await.unwrap();
        let before = get(&data, 1).await;
        let error = under("x", 9, Pass::Again).update_one(&data, 1, doc! { "$set": { "n": 1 } }).await.unwrap_err();
        let FenceError::Store(error) = error else { panic!("{stands}: {error}") };
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{stands}: {error}");
        assert_eq!(get(&data, 1).await, before);
    }
    // Nor can a write take the fence away.
    data.replace_one(doc! { "_id": 1 }, doc! { "n": 0, "fence": sound() }).await.unwrap();
    for update in [
        UpdateModifications::from(doc! { "$unset": { "fence": "" } }),
        doc! { "$set": { "fence": { "lock": "y", "token": 1_i64 } } }.into(),
        doc! { "$set": { "fence.token": 1_i64 } }.into(),
        doc! { "$rename": { "fence": "was" } }.into(),
        doc! { "n": 1 }.into(),
        vec![doc! { "$unset": "fence" }].into(),
        vec![doc! { "$replaceWith": { "_id": "$_id", "fence": "gone" } }].into(),
    ] {
        let written = under("x", 9, Pass::Again).update_one(&data, 1, update.clone()).await;
        let found = get(&data, 1).await;
        let token = found.get_document("fence").unwrap().get_i64("token").unwrap();
        assert!(token == 9 || (written.is_err() && token == 5), "{update:?}: {written:?}, {found}");
    }
    place.clear().await;
}

async fn locks_that_a_collation_takes_for_one_stay_two() {
    let place = Place::new().await;
    let folds = Collation::builder().locale("en").strength(CollationStrength::Secondary).numeric_ordering(true).build();
    place.database.create_collection("data").collation(folds).await.unwrap();
    let data = place.database.collection::<Document>("data");
    data.insert_one(doc! { "_id": "a", "n": 0 }).await.unwrap();
    assert!(under("x1", 5, Pass::Again).update_one(&data, "a", doc! {}).await.unwrap());
    let before = get(&data, "a").await;
    for other in ["X1", "x01"] {
        assert_eq!(data.count_documents(doc! { "fence.lock": other }).await.unwrap(), 1, "it is folded");
        let set = doc! { "$set": { "n": 1 } };
        let error = under(other, 9, Pass::Again).update_one(&data, "a", set).await.unwrap_err();
        assert!(matches!(&error, FenceError::OtherLock(error) if error.fenced_by.as_str() == "x1"), "{error}");
        assert_eq!(get(&data, "a").await, before);
    }
    assert!(under("x1", 6, Pass::Once).update_one(&data, "a", doc! {}).await.unwrap());
    place.clear().await;
}

async fn a_refusal_is_told_whatever_the_document_is_called() {
    let place = Place::new().await;
    let data = place.database.collection::<Document>("data");
    for id in ["a\0b".to_owned(), "\0".repeat(2000), "é\n".repeat(500)] {
        data.insert_one(doc! { "_id": &id }).await.unwrap();
        assert!(under("x", 5, Pass::Again).update_one(&data, &id, doc! {}).await.unwrap());
        let error = under("x", 4, Pass::Again).update_one(&data, &id, doc! {}).await.unwrap_err();
        assert!(matches!(error, FenceError::Stale(_)), "{error}");
    }
    place.clear().await;
}

/// While another transaction has the document, the write waits at the server.
async fn a_write_that_takes_too_long_is_given_up() {
    let place = Place::new().await;
    let data = place.database.collection::<Document>("data");
    data.insert_one(doc! { "_id": 1 }).await.unwrap();
    let mut session = place.client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    data.update_one(doc! { "_id": 1 }, doc! { "$set": { "n": 1 } }).session(&mut session).await.unwrap();
    let hasty = under("x", 5, Pass::Again).operation_timeout(Duration::from_millis(300));
    let error = hasty.update_one(&data, 1, doc! { "$set": { "n": 2 } }).await.unwrap_err();
    let FenceError::Store(error) = error else { panic!("{error}") };
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Timeout, Applied::Maybe), "{error}");
    session.commit_transaction().await.unwrap();
    assert!(hasty.update_one(&data, 1, doc! { "$set": { "n": 2 } }).await.unwrap());
    place.clear().await;
}

async fn written_tokens_never_fall() {
    let place = Place::new().await;
    let data = place.database.collection::<Document>("data");
    data.insert_one(doc! { "_id": 1, "tokens": [] }).await.unwrap();
    let tasks = (0..16).map(|_| {
        let data = data.clone();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for round in 0..20 {
                let token = round * 5 + 1 + OsEntropy.next_u64() % 30;
                let push = doc! { "$push": { "tokens": i64::try_from(token).unwrap() } };
                match under("x", token, Pass::Again).update_one(&data, 1, push).await {
                    Ok(true) => kept.push(i64::try_from(token).unwrap()),
                    Err(FenceError::Stale(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
            kept
        })
    });
    let mut kept: Vec<i64> = Vec::new();
    for task in futures_util::future::join_all(tasks).await {
        kept.extend(task.unwrap());
    }
    let found = get(&data, 1).await;
    let tokens: Vec<i64> = found.get_array("tokens").unwrap().iter().map(|token| token.as_i64().unwrap()).collect();
    println!("{} of 320 kept", tokens.len());
    assert!(tokens.is_sorted() && tokens.len() > 5, "{tokens:?}");
    kept.sort_unstable();
    assert_eq!(kept, tokens);
    place.clear().await;
}

async fn a_standalone_does_it_too_and_it_costs_no_command_more() {
    for place in [Place::standalone().await, Place::new().await] {
        let data = place.database.collection::<Document>("data");
        data.insert_many([doc! { "_id": 1, "n": 0 }, doc! { "_id": 2, "n": 0 }]).await.unwrap();
        let (mut plain, mut fenced) = (Vec::new(), Vec::new());
        let majority = mongodb::options::WriteConcern::majority();
        for _ in 0..100 {
            let inc = || doc! { "$inc": { "n": 1 } };
            let start = SystemClock.now();
            data.update_one(doc! { "_id": 1 }, inc()).write_concern(majority.clone()).await.unwrap();
            let between = SystemClock.now();
            assert!(under("x", 5, Pass::Again).update_one(&data, 2, inc()).await.unwrap());
            plain.push(between.since(start));
            fenced.push(SystemClock.now().since(between));
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        let (plain, fenced) = (median(plain), median(fenced));
        println!(
            "a plain update {plain:?}, a fenced one {fenced:?}: {:.2}x",
            fenced.as_secs_f64() / plain.as_secs_f64()
        );
        assert!(fenced < plain * 10);
        place.clear().await;
    }
}

async fn a_refusal_is_told_once_with_its_reason() {
    let (place, told) = (Place::new().await, Arc::new(TestObserver::default()));
    let data = place.database.collection::<Document>("data");
    data.insert_one(doc! { "_id": 7 }).await.unwrap();
    for (fence, refusals) in [
        (under("x", 5, Pass::Again), None),
        (under("x", 4, Pass::Again), Some(RefusalReason::Stale)),
        (under("x", 5, Pass::Once), Some(RefusalReason::Used)),
        (under("y", 6, Pass::Again), Some(RefusalReason::OtherLock)),
    ] {
        let written = fence.observer(told.clone()).update_one(&data, 7, doc! {}).await;
        assert_eq!(told.refusals(), Vec::from_iter(refusals), "{written:?}");
    }
    place.clear().await;
}

testbed::server_tests!(testbed::mongo =>
    the_document_lets_only_the_highest_write,
    what_no_version_writes_refuses_all,
    locks_that_a_collation_takes_for_one_stay_two,
    a_refusal_is_told_whatever_the_document_is_called,
    a_write_that_takes_too_long_is_given_up,
    written_tokens_never_fall,
    a_standalone_does_it_too_and_it_costs_no_command_more,
    a_refusal_is_told_once_with_its_reason,
);
