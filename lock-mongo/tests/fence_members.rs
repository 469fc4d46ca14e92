//! Guarded and fenced transactions over a primary that steps down. On servers of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use common::{Place, pass, seconds, take};
use lock_core::{Applied, Clock, Fence, FenceError, LockProvider, Pass, Resource, SystemClock, Transactions};
use lock_mongo::{MongoFences, MongoTransactions};
use mongodb::{
    Collection,
    bson::{Document, doc},
    error::TRANSIENT_TRANSACTION_ERROR,
};
use testbed::{MongoMembers, PrivateServer};

/// How a transaction ended, as its writer was told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Kept,
    Undone,
    Unknown,
}

fn told<T>(result: &Result<T, FenceError>) -> Told {
    match result {
        Ok(_) => Told::Kept,
        Err(error) if error.applied() == Applied::No => Told::Undone,
        Err(_) => Told::Unknown,
    }
}

struct Writer {
    transactions: MongoTransactions,
    fences: MongoFences,
    fence: Fence,
    data: [Collection<Document>; 2],
}

impl Writer {
    /// Two documents in two collections, under the lock.
    async fn guarded(&self, id: i64) -> Told {
        let mut session = match self.transactions.begin(&self.fence).await {
            Ok(session) => session,
            error => return told(&error),
        };
        for data in &self.data {
            if data.insert_one(doc! { "_id": id }).session(&mut session).await.is_err() {
                self.transactions.roll_back(session).await.unwrap();
                return Told::Undone;
            }
        }
        told(&self.transactions.commit(session, &self.fence).await)
    }

    /// The same, under the register, with a commit of the application's own.
    async fn fenced(&self, id: i64) -> Told {
        let mut session = self.transactions.client().start_session().await.unwrap();
        session.start_transaction().with_options(self.fences.options()).await.unwrap();
        let resource = Resource::new("r").unwrap();
        let admitted = self.fences.admit(&mut session, &resource, &self.fence, Pass::Again).await;
        if admitted.is_err() {
            return told(&admitted);
        }
        for data in &self.data {
            if data.insert_one(doc! { "_id": id }).session(&mut session).await.is_err() {
                return Told::Undone;
            }
        }
        match session.commit_transaction().await {
            Ok(()) => Told::Kept,
            Err(error) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => Told::Undone,
            Err(_) => Told::Unknown,
        }
    }
}

async fn own() -> Arc<PrivateServer> {
    let server = tokio::task::spawn_blocking(testbed::mongo_private).await.unwrap();
    Arc::new(server.unwrap_or_else(|missing| panic!("no MongoDB for this test: {missing}")))
}

async fn step_down(server: &Arc<PrivateServer>) {
    let server = Arc::clone(server);
    let done = tokio::task::spawn_blocking(move || {
        MongoMembers::of(&server).step_down().unwrap();
        server.await_ready(seconds(45)).unwrap();
        MongoMembers::of(&server).await_all().unwrap();
    });
    done.await.unwrap();
}

async fn a_step_down_in_the_middle_leaves_all_or_nothing() {
    let server = own().await;
    let place = Place::at(&server).await;
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let long = lock_core::RenewRequest { ttl: seconds(600), ..common::again(&request, grant) };
    locks.renew(&long).await.unwrap();
    let data = ["first", "second"].map(|name| place.database.collection::<Document>(name));
    for name in ["first", "second"] {
        place.database.create_collection(name).await.unwrap();
    }
    let writer = Arc::new(Writer {
        transactions: MongoTransactions::new(place.client.clone()).database(place.database.name()),
        fences: MongoFences::builder(&place.database).build().await.unwrap(),
        fence: Fence::new(request.name.clone(), grant.token).unwrap(),
        data: data.clone(),
    });
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (writer, stop) = (Arc::clone(&writer), Arc::clone(&stop));
        async move {
            let mut all = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let id = i64::try_from(all.len()).unwrap();
                all.push(if id % 2 == 0 { writer.guarded(id).await } else { writer.fenced(id).await });
            }
            all
        }
    });
    for _ in 0..2 {
        pass(seconds(1)).await;
        step_down(&server).await;
        pass(seconds(1)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let all = writing.await.unwrap();
    let mut counts = [0, 0, 0];
    for (id, told) in (0_i64..).zip(&all) {
        let mut found = Vec::new();
        for data in &data {
            found.push(data.find_one(doc! { "_id": id }).await.unwrap().is_some());
        }
        assert_eq!(found[0], found[1], "{id}: {told:?}");
        match told {
            Told::Kept => assert!(found[0], "{id}"),
            Told::Undone => assert!(!found[0], "{id}"),
            Told::Unknown => {}
        }
        counts[*told as usize] += 1;
    }
    println!(
        "of {} transactions over two step-downs {} were kept, {} undone, {} unknown",
        all.len(),
        counts[0],
        counts[1],
        counts[2]
    );
    assert!(counts[0] > 10, "{counts:?}");
    assert_eq!(all.last(), Some(&Told::Kept), "it goes on afterwards");

    // One that is open when it happens.
    let mut session = writer.transactions.begin(&writer.fence).await.unwrap();
    data[0].insert_one(doc! { "_id": -1 }).session(&mut session).await.unwrap();
    step_down(&server).await;
    assert!(data[1].insert_one(doc! { "_id": -1 }).session(&mut session).await.is_err());
    let committed = writer.transactions.commit(session, &writer.fence).await;
    assert_eq!(told(&committed), Told::Undone, "{committed:?}");
    println!("{}", committed.unwrap_err());
    for data in &data {
        assert!(data.find_one(doc! { "_id": -1 }).await.unwrap().is_none());
    }
    assert_eq!(writer.guarded(-2).await, Told::Kept);
}

/// It may be kept or not, and nobody is told more than that.
async fn a_commit_that_no_majority_confirms_is_unknown() {
    let server = own().await;
    let place = Place::at(&server).await;
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let fence = Fence::new(request.name.clone(), grant.token).unwrap();
    place.database.create_collection("data").await.unwrap();
    let data = place.database.collection::<Document>("data");
    let transactions = MongoTransactions::new(place.client.clone()).database(place.database.name());
    let transactions = transactions.operation_timeout(seconds(2));
    let mut session = transactions.begin(&fence).await.unwrap();
    data.insert_one(doc! { "_id": 1 }).session(&mut session).await.unwrap();
    let freezing = Arc::clone(&server);
    let frozen = tokio::task::spawn_blocking(move || {
        let members = MongoMembers::of(&freezing);
        let primary = members.primary().unwrap();
        let others: Vec<_> = (0..3).filter(|member| *member != primary).collect();
        others.iter().for_each(|member| members.freeze(*member).unwrap());
        others
    });
    let frozen = frozen.await.unwrap();
    let start = SystemClock.now();
    let committed = transactions.commit(session, &fence).await;
    println!("{:?}: {}", SystemClock.now().since(start), committed.as_ref().unwrap_err());
    assert_eq!(told(&committed), Told::Unknown);
    assert!(SystemClock.now().since(start) < seconds(6));
    let thawing = Arc::clone(&server);
    let thawed = tokio::task::spawn_blocking(move || {
        let members = MongoMembers::of(&thawing);
        frozen.iter().for_each(|member| members.thaw(*member).unwrap());
        thawing.await_ready(seconds(45)).unwrap();
    });
    thawed.await.unwrap();
    println!("it was kept: {}", data.find_one(doc! { "_id": 1 }).await.unwrap().is_some());
}

testbed::server_tests!(testbed::tests::private_mongo_can_be_had =>
    a_step_down_in_the_middle_leaves_all_or_nothing,
    a_commit_that_no_majority_confirms_is_unknown,
);
