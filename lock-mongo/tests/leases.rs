//! Leases on the server's clock, and what becomes of their records.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{COLLECTION, Place, again, ask, give_back, granted, name, pass, seconds, take};
use lock_core::{
    Acquired, Clock, Durability, ListRequest, LockProvider, LockState, OwnerId, ReleaseRequest, Released, Renewed,
    SystemClock, Waiting, Wake,
};
use mongodb::bson::{Bson, DateTime, doc};

const HOUR: i64 = 3_600_000;

async fn an_expired_lease_is_nobodys_and_rests_for_its_grace() {
    let place = Place::new().await;
    let locks = place.builder().grace(seconds(1)).build().await.unwrap();
    let request = ask("x", Duration::from_millis(100));
    let asked = SystemClock.now();
    let first = granted(locks.acquire(&request).await.unwrap());
    pass(Duration::from_millis(200)).await;
    assert_eq!(locks.renew(&again(&request, first)).await.unwrap(), Renewed::Lost);
    assert_eq!(locks.release(&give_back(&request, first)).await.unwrap(), Released::NotHeld);
    for waiting in [Waiting::No, Waiting::Wake(seconds(10))] {
        let mut other = ask("x", seconds(30));
        other.waiting = waiting;
        let Acquired::Held(held) = locks.acquire(&other).await.unwrap() else { panic!("it rests") };
        assert_eq!(held.holder, None);
        let rest = held.remaining.unwrap();
        assert!(rest > Duration::from_millis(200) && rest <= Duration::from_millis(902), "{rest:?}");
    }
    // Its own owner has to wait as well.
    assert!(matches!(locks.acquire(&request).await.unwrap(), Acquired::Held(_)));
    let status = locks.inspect(&name("x")).await.unwrap().unwrap();
    let LockState::Resting(rest) = status.state else { panic!("{status:?}") };
    pass(rest).await;
    let (_, second) = take(&locks, "x").await;
    assert!(second.token > first.token);
    assert!(SystemClock.now().since(asked) >= Duration::from_millis(1100));
    place.clear().await;
}

async fn asking_again_and_late_renewals_never_shorten_a_lease_or_change_its_token() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (mut request, grant) = take(&locks, "x").await;
    request.ttl = seconds(1);
    for waiting in [Waiting::No, Waiting::Wake(seconds(10))] {
        request.waiting = waiting;
        assert_eq!(granted(locks.acquire(&request).await.unwrap()).token, grant.token);
    }
    assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(seconds(1)));
    let status = locks.inspect(&name("x")).await.unwrap().unwrap();
    let LockState::Held(holding) = status.state else { panic!("{status:?}") };
    assert!(holding.remaining > seconds(25), "{holding:?}");
    assert_eq!(holding.token, grant.token);
    place.clear().await;
}

async fn at_least_for_is_kept_by_the_server() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let (request, grant) = take(&locks, "x").await;
    let release = ReleaseRequest { keep_for: seconds(60), ..give_back(&request, grant) };
    assert_eq!(locks.release(&release).await.unwrap(), Released::Released);
    assert_eq!(locks.release(&release).await.unwrap(), Released::NotHeld);
    let Acquired::Held(held) = locks.acquire(&ask("x", seconds(30))).await.unwrap() else { panic!("it is kept") };
    assert!(held.remaining.unwrap() > seconds(55), "{held:?}");
    assert!(!locks.force_release(&name("x")).await.unwrap(), "nobody holds it");
    let (_, next) = take(&locks, "x").await;
    assert!(next.token > grant.token);
    assert!(locks.force_release(&name("x")).await.unwrap());
    let (_, last) = take(&locks, "x").await;
    assert!(last.token > next.token);
    place.clear().await;
}

async fn tokens_rise_over_a_dropped_collection() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let mut last = 0;
    for round in 0..20 {
        // A drop takes the server longer than the millisecond in which tokens could be alike.
        let token = if round % 2 == 0 {
            place.records().drop().await.unwrap();
            take(&locks, "x").await.1.token.get()
        } else {
            assert!(locks.force_release(&name("x")).await.unwrap());
            take(&locks, "x").await.1.token.get()
        };
        assert!(token > last, "{token} after {last}");
        last = token;
    }
    place.clear().await;
}

async fn a_refused_request_changes_nothing_and_makes_no_record() {
    let place = Place::new().await;
    let locks = place.locks().await;
    take(&locks, "x").await;
    let before = place.record("x").await.unwrap();
    let mut waits = ask("x", seconds(30));
    waits.waiting = Waiting::Wake(seconds(30));
    for request in [ask("x", seconds(3000)), waits] {
        assert!(matches!(locks.acquire(&request).await.unwrap(), Acquired::Held(_)));
    }
    let stranger = ask("y", seconds(30));
    let token = lock_core::FencingToken::new(1);
    let renewal = lock_core::RenewRequest::new(name("y"), stranger.owner, token, seconds(30));
    assert_eq!(locks.renew(&renewal).await.unwrap(), Renewed::Lost);
    assert_eq!(locks.release(&ReleaseRequest::new(name("y"), stranger.owner, None)).await.unwrap(), Released::NotHeld);
    assert!(!locks.force_release(&name("y")).await.unwrap());
    assert_eq!(place.record("x").await.unwrap(), before);
    assert_eq!(place.records().count_documents(doc! {}).await.unwrap(), 1);
    place.clear().await;
}

async fn the_index_never_sweeps_a_lease() {
    let place = Place::new().await;
    let locks = place.builder().retention(seconds(48 * 3600)).build().await.unwrap();
    let index = place.records().list_indexes().await.unwrap();
    let indexes: Vec<_> = futures_util::TryStreamExt::try_collect(index).await.unwrap();
    let sweeping: Vec<_> = indexes
        .iter()
        .filter_map(|index: &mongodb::IndexModel| index.options.as_ref()?.expire_after.map(|_| &index.keys))
        .collect();
    assert_eq!(sweeping, [&doc! { "forget_at": 1 }]);

    let later = |record: &mongodb::bson::Document, field| {
        let at = |field| record.get_datetime(field).unwrap().timestamp_millis();
        at("forget_at") - at(field)
    };
    let day_and_hour = |late: i64| (48 * HOUR..=49 * HOUR).contains(&late);
    let (request, grant) = take(&locks, "x").await;
    let record = place.record("x").await.unwrap();
    assert!(day_and_hour(later(&record, "free_at")), "{record}");
    // A long lease is as far from being swept, and so is a lock that stays taken after it.
    let longer = lock_core::RenewRequest { ttl: seconds(20 * 3600), ..again(&request, grant) };
    locks.renew(&longer).await.unwrap();
    let record = place.record("x").await.unwrap();
    assert!(day_and_hour(later(&record, "free_at")) && later(&record, "granted_at") > 67 * HOUR, "{record}");
    let kept = ReleaseRequest { keep_for: ReleaseRequest::KEEP_FOR_MAX, ..give_back(&request, grant) };
    locks.release(&kept).await.unwrap();
    let record = place.record("x").await.unwrap();
    assert!(day_and_hour(later(&record, "free_at")) && later(&record, "granted_at") > 366 * 24 * HOUR, "{record}");
    // Asking in vain, with another retention, changes nothing of it.
    let other = place.locks().await;
    assert!(matches!(other.acquire(&ask("x", seconds(1))).await.unwrap(), Acquired::Held(_)));
    assert_eq!(place.record("x").await.unwrap(), record);
    place.clear().await;
}

async fn a_list_is_in_byte_order_and_shows_only_our_records() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let mut names = ["a", "A", "a.b", "a/", "a\u{10ffff}z", "ä", "b", "a$b", "aa"];
    for name in names {
        take(&locks, name).await;
    }
    place.records().insert_one(doc! { "_id": 5, "forget_at": Bson::Null }).await.unwrap();
    names.sort_unstable();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = locks.list(&ListRequest { prefix: "a".to_owned(), after: after.clone(), limit: 2 }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        seen.extend(page.into_iter().map(|status| status.name.to_string()));
    }
    let expected: Vec<_> = names.into_iter().filter(|name| name.starts_with('a')).collect();
    assert_eq!(seen, expected);
    assert_eq!(locks.list(&ListRequest { prefix: String::new(), after: None, limit: 100 }).await.unwrap().len(), 9);
    // A record that nobody of us wrote is told as such.
    place.records().insert_one(doc! { "_id": "bad", "free_at": DateTime::MAX, "token": "9" }).await.unwrap();
    let error = locks.inspect(&name("bad")).await.unwrap_err();
    assert_eq!(error.kind(), lock_core::ErrorKind::Corrupt, "{error}");
    // It hides none of the others in a list, not even in a page that it would be all of.
    let ask = |prefix: &str, limit| ListRequest { prefix: prefix.to_owned(), after: Some(name("b")), limit };
    assert_eq!(locks.list(&ask("b", 1)).await.unwrap().len(), 0);
    assert_eq!(locks.list(&ask("", 1)).await.unwrap()[0].name, name("ä"));
    place.clear().await;
}

async fn what_is_no_time_or_no_token_is_never_handed_out() {
    let place = Place::new().await;
    let locks = place.locks().await;
    let over = DateTime::from_millis(1000);
    for (at, (free_at, token)) in [
        (Bson::from("2020"), Bson::from(7_i64)),
        (5.into(), 7_i64.into()),
        (false.into(), 7_i64.into()),
        (Bson::Null, 7_i64.into()),
        (Bson::MaxKey, 7_i64.into()),
        // Above the clock, so that the next token would be a fraction.
        (over.into(), 9e18.into()),
        (over.into(), "9".into()),
    ]
    .into_iter()
    .enumerate()
    {
        let lock = format!("{at}");
        place.records().insert_one(doc! { "_id": &lock, "free_at": &free_at, "token": &token }).await.unwrap();
        let before = place.record(&lock).await;
        let alone = locks.acquire(&ask(&lock, seconds(30))).await;
        let group = locks.acquire_many(&[ask(&lock, seconds(30)), ask("good", seconds(30))]).await;
        for answer in [&alone, &group[0]] {
            let error = answer.as_ref().unwrap_err();
            assert!(
                error.kind() == lock_core::ErrorKind::Corrupt && error.applied() == lock_core::Applied::No,
                "{error}"
            );
        }
        assert_eq!(place.record(&lock).await, before, "{free_at} {token}");
        if token == Bson::Int64(7) {
            assert!(!locks.force_release(&name(&lock)).await.unwrap(), "nobody held it");
            assert!(take(&locks, &lock).await.1.token.get() > 7, "{free_at}");
        }
    }
    place.clear().await;
}

async fn dropped_futures_leave_the_client_usable() {
    let place = Place::new().await;
    let locks = place.builder().connections(2).build().await.unwrap();
    for round in 0..200_u64 {
        let request = ask(&format!("dropped-{}", round % 20), seconds(30));
        drop(tokio::time::timeout(Duration::from_micros(50 * (round % 40)), locks.acquire(&request)).await);
    }
    let (request, grant) = take(&locks, "x").await;
    assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(seconds(30)));
    assert_eq!(locks.release(&give_back(&request, grant)).await.unwrap(), Released::Released);
    place.clear().await;
}

async fn an_applications_own_client_and_database_will_do() {
    let place = Place::new().await;
    // Concerns that are wrong for locks, and reads that prefer a secondary.
    let mut options = mongodb::options::ClientOptions::parse(&place.url).await.unwrap();
    let secondary = mongodb::options::ReadPreference::SecondaryPreferred { options: None };
    options.selection_criteria = Some(mongodb::options::SelectionCriteria::ReadPreference(secondary));
    let weak = mongodb::options::Acknowledgment::Nodes(0);
    options.write_concern = Some(mongodb::options::WriteConcern::builder().w(weak).build());
    let client = mongodb::Client::with_options(options).unwrap();
    let by_client = lock_mongo::MongoLocks::builder(&client).build().await.unwrap();
    let by_database = lock_mongo::MongoLocks::builder(client.database(place.database.name())).build().await.unwrap();
    let by_name = lock_mongo::MongoLocks::builder(client).database("leasehold_test_named").collection("other");
    let by_name = by_name.build().await.unwrap();
    let (request, grant) = take(&by_client, "x").await;
    assert!(matches!(by_database.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Held(_)));
    assert_eq!(by_database.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(seconds(30)));
    let mut watch = by_database.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    assert_eq!(by_client.release(&give_back(&request, grant)).await.unwrap(), Released::Released);
    tokio::time::timeout(seconds(10), watch.woken()).await.unwrap();
    take(&by_name, "x").await;
    let named = place.client.database("leasehold_test_named");
    assert_eq!(named.list_collection_names().await.unwrap(), ["other"]);
    assert!(place.database.list_collection_names().await.unwrap().contains(&COLLECTION.to_owned()));
    let can = by_client.capabilities();
    assert_eq!((can.durability, can.wake), (Durability::Durable, Wake::Event));
    named.drop().await.unwrap();
    drop((by_client, by_database, by_name));
    place.clear().await;
}

testbed::server_tests!(testbed::mongo =>
    an_expired_lease_is_nobodys_and_rests_for_its_grace,
    asking_again_and_late_renewals_never_shorten_a_lease_or_change_its_token,
    at_least_for_is_kept_by_the_server,
    tokens_rise_over_a_dropped_collection,
    a_refused_request_changes_nothing_and_makes_no_record,
    the_index_never_sweeps_a_lease,
    a_list_is_in_byte_order_and_shows_only_our_records,
    what_is_no_time_or_no_token_is_never_handed_out,
    dropped_futures_leave_the_client_usable,
    an_applications_own_client_and_database_will_do,
);
