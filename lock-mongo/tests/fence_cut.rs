//! Checks that are broken off: whoever goes on in the session all the same writes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{
    Place,
    cut::Line,
    guarded::{begun, count, data, fence, transactions},
    name, take,
};
use futures_util::FutureExt;
use lock_core::{Fence, FenceError, FenceRegister, FencingToken, Pass, Resource};
use lock_mongo::{MongoFences, MongoTransactions};
use mongodb::{
    ClientSession, Collection,
    bson::{Document, doc},
};

/// Each thing that one may go on with.
async fn nothing_is_written(session: &mut ClientSession, inside: &Collection<Document>) {
    let seen = inside.find_one(doc! {}).session(&mut *session).await;
    assert!(seen.is_err(), "{seen:?}");
    let piped = vec![doc! { "$match": {} }];
    assert!(inside.aggregate(piped).session(&mut *session).await.is_err());
    for round in 0..3 {
        let id = doc! { "_id": round };
        assert!(inside.insert_one(&id).session(&mut *session).await.is_err());
        assert!(inside.insert_many([&id]).session(&mut *session).await.is_err());
        let set = doc! { "$set": { "n": 1 } };
        assert!(inside.update_one(id.clone(), set.clone()).upsert(true).session(&mut *session).await.is_err());
        assert!(inside.find_one_and_update(id.clone(), set).upsert(true).session(&mut *session).await.is_err());
        assert!(inside.delete_many(doc! {}).session(&mut *session).await.is_err());
        let all = inside.client().database(&inside.namespace().db);
        let insert = doc! { "insert": inside.name(), "documents": [&id] };
        assert!(all.run_command(insert).session(&mut *session).await.is_err());
    }
    session.commit_transaction().await.unwrap_err();
}

async fn a_line_that_breaks_after_a_refusal_leaves_nothing_to_write_with() {
    let place = Place::new().await;
    let kept = data(&place).await;
    kept.insert_one(doc! { "_id": "kept" }).await.unwrap();
    let line = Line::breaking_at(&place, "abortTransaction").await;
    let inside = line.database(&place).collection::<Document>("data");
    let transactions = MongoTransactions::new(line.client().clone()).database(place.database.name());
    let fences = MongoFences::builder(&place.database).build().await.unwrap();
    let resource = Resource::new("r").unwrap();
    let under = |token| Fence::new(name("x"), FencingToken::new(token)).unwrap();
    fences.raise(&resource, &under(9), Pass::Again).await.unwrap();
    for (sends, registered) in [(false, false), (true, false), (false, true), (true, true)] {
        line.arm(sends);
        let mut session = line.client().start_session().await.unwrap();
        session.start_transaction().with_options(transactions.options()).await.unwrap();
        inside.insert_one(doc! { "_id": "before" }).session(&mut session).await.unwrap();
        let refused = if registered {
            fences.admit(&mut session, &resource, &under(8), Pass::Again).await
        } else {
            transactions.hold(&mut session, &under(8)).await
        };
        let error = refused.unwrap_err();
        assert!(matches!(error, FenceError::NotHeld(_) | FenceError::Stale(_)), "{error}");
        assert!(line.is_broken());
        line.mend().await;
        nothing_is_written(&mut session, &inside).await;
        assert_eq!(count(&kept).await, 1, "sent: {sends}, the register: {registered}");
    }
    place.clear().await;
}

async fn a_check_that_is_dropped_leaves_nothing_to_write_with() {
    let place = Place::new().await;
    let (transactions, kept, locks) = (transactions(&place), data(&place).await, place.locks().await);
    kept.insert_one(doc! { "_id": "kept" }).await.unwrap();
    let (request, grant) = take(&locks, "x").await;
    let fences = MongoFences::builder(&place.database).build().await.unwrap();
    for registered in [false, true] {
        let fence = fence(&request, grant);
        // On a machine that is late the answer may be there at once.
        let mut session = loop {
            let mut session = begun(&place, &transactions).await;
            kept.insert_one(doc! { "_id": "before" }).session(&mut session).await.unwrap();
            let ended = if registered {
                let resource = Resource::new("r").unwrap();
                fences.admit(&mut session, &resource, &fence, Pass::Again).now_or_never()
            } else {
                transactions.hold(&mut session, &fence).now_or_never()
            };
            match ended {
                None => break session,
                Some(_) => session.abort_transaction().await.unwrap(),
            }
        };
        nothing_is_written(&mut session, &kept).await;
        assert_eq!(count(&kept).await, 1);
    }
    place.clear().await;
}

/// Though the fence passes once only, and the second attempt finds its token used.
async fn a_raise_whose_answer_was_lost_recognises_itself() {
    let place = Place::new().await;
    let line = Line::breaking_at(&place, "changed_by").await;
    let fences = MongoFences::builder(line.database(&place)).build().await.unwrap();
    let resource = Resource::new("r").unwrap();
    for token in [5, 6] {
        let fence = Fence::new(name("x"), FencingToken::new(token)).unwrap();
        line.arm(true);
        let (raised, ()) = tokio::join!(fences.raise(&resource, &fence, Pass::Once), line.mend_once_broken());
        raised.unwrap();
        assert_eq!(fences.highest(&resource).await.unwrap(), Some(fence.clone()));
        // Another one isn't taken for it.
        let error = fences.raise(&resource, &fence, Pass::Once).await.unwrap_err();
        assert!(matches!(error, FenceError::Stale(_)), "{error}");
    }
    place.clear().await;
}

testbed::server_tests!(testbed::mongo =>
    a_line_that_breaks_after_a_refusal_leaves_nothing_to_write_with,
    a_check_that_is_dropped_leaves_nothing_to_write_with,
    a_raise_whose_answer_was_lost_recognises_itself,
);
