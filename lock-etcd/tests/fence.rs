//! The register: a write and its check are one step, and what is refused leaves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use common::{AsServer, Place, accounts, fence, name, start, unique};
use conformance_tests::Proxy;
use futures_util::future::join_all;
use lock_core::{Applied, ErrorKind, Fence, FenceError, FenceRegister, FencingToken, Pass, Resource, StoreError};
use lock_etcd::{
    EtcdFences,
    etcd_client::{Client, Compare, CompareOp, DeleteOptions, Txn, TxnOp},
};

fn register(place: &Place<impl AsServer>, resource: &Resource) -> String {
    format!("{}f/{resource}", place.prefix)
}

fn store_error(error: FenceError) -> StoreError {
    match error {
        FenceError::Store(error) => error,
        other => panic!("not the store's: {other:?}"),
    }
}

fn is_stale(error: &FenceError, highest: u64) -> bool {
    matches!(error, FenceError::Stale(stale) if stale.highest.get() == highest)
}

async fn what_is_refused_writes_nothing() {
    let place = Place::shared().await;
    // One that has seen the register, and one that hasn't.
    let (knowing, fresh) = (place.fences().await, place.fences().await);
    let accounts = accounts();
    let answer = knowing.write(&accounts, &fence("x", 5), Pass::Again, [place.put("a", "1")]).await.unwrap();
    assert_eq!(answer.op_responses().len(), 2, "the caller's first, then the register's");
    let before = place.all().await;
    assert_eq!(before.len(), 2);
    for fences in [&knowing, &fresh] {
        for (bad, pass) in [
            (fence("x", 4), Pass::Again),
            (fence("x", 1), Pass::Once),
            (fence("x", 5), Pass::Once),
            (fence("y", 5), Pass::Again),
            (fence("y", 6), Pass::Once),
            (fence("X", FencingToken::MAX.get()), Pass::Again),
        ] {
            let by_write = fences.write(&accounts, &bad, pass, [place.put("a", "bad"), place.put("b", "bad")]).await;
            let by_raise = fences.raise(&accounts, &bad, pass).await;
            for error in [by_write.unwrap_err(), by_raise.unwrap_err()] {
                match &error {
                    FenceError::Stale(stale) => {
                        assert!(bad.lock().as_str() == "x" && stale.token == bad.token() && stale.highest.get() == 5);
                    }
                    FenceError::OtherLock(other) => assert!(other.fenced_by == name("x") && &other.lock == bad.lock()),
                    other => panic!("{other:?}"),
                }
                assert!(error.is_refusal() && error.applied() == Applied::No);
            }
        }
    }
    assert_eq!(place.all().await, before);
    // The same fence goes on.
    fresh.write(&accounts, &fence("x", 5), Pass::Again, [place.put("a", "2")]).await.unwrap();
    assert_eq!(fresh.highest(&accounts).await.unwrap(), Some(fence("x", 5)));
}

/// Byte order alone would let some of these pass for lower tokens.
async fn a_register_that_no_version_writes_is_corrupt() {
    let place = Place::shared().await;
    let (knowing, fresh) = (place.fences().await, place.fences().await);
    let (accounts, mut operator) = (accounts(), place.operator().await);
    let key = register(&place, &accounts);
    knowing.raise(&accounts, &fence("x", 5), Pass::Again).await.unwrap();
    let junk: [&[u8]; 18] = [
        b"",
        b"5",
        b"-5@x",
        b"0@x",
        b"05@x",
        b"+5@x",
        b" 5@x",
        b"5@x ",
        b"5@x\n",
        b"5 @x",
        b"5@",
        b"abc@x",
        b"abc",
        b"5.0@x",
        b"x\x0000000000000000000005",
        b"9223372036854775808@x",
        b"99999999999999999999999@x",
        b"5@x\xff",
    ];
    for junk in junk {
        operator.put(key.as_str(), junk, None).await.unwrap();
        let before = place.all().await;
        for fences in [&knowing, &fresh] {
            for pass in [Pass::Again, Pass::Once] {
                for bad in [fence("x", 5), fence("x", FencingToken::MAX.get())] {
                    let by_write = fences.write(&accounts, &bad, pass, [place.put("a", "bad")]).await.unwrap_err();
                    let by_raise = fences.raise(&accounts, &bad, pass).await.unwrap_err();
                    let by_look = fences.highest(&accounts).await.unwrap_err();
                    for error in [by_write, by_raise, by_look].map(store_error) {
                        assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{error}");
                        assert!(error.to_string().contains("accounts"), "{error}");
                    }
                }
            }
        }
        assert_eq!(place.all().await, before, "{junk:?}");
    }
    assert!(fresh.forget(&accounts).await.unwrap(), "people can set it right");
    fresh.write(&accounts, &fence("x", 5), Pass::Once, [place.put("a", "1")]).await.unwrap();
}

/// The new holder raises, reads, and may rely on what it read: what the one before sends now is refused.
async fn a_raise_before_the_first_read_refuses_the_one_before() {
    let place = Place::shared().await;
    let (old, new) = (place.fences().await, place.fences().await);
    let accounts = accounts();
    old.write(&accounts, &fence("x", 5), Pass::Again, [place.put("a", "old")]).await.unwrap();
    new.raise(&accounts, &fence("x", 6), Pass::Again).await.unwrap();
    let read = place.all().await;
    let late = old.write(&accounts, &fence("x", 5), Pass::Again, [place.put("a", "late")]).await.unwrap_err();
    assert!(is_stale(&late, 6), "{late}");
    assert!(is_stale(&old.raise(&accounts, &fence("x", 5), Pass::Again).await.unwrap_err(), 6));
    assert_eq!(place.all().await, read);
    // A raise uses up a token that passes once.
    assert!(is_stale(&new.write(&accounts, &fence("x", 6), Pass::Once, []).await.unwrap_err(), 6));
    new.write(&accounts, &fence("x", 6), Pass::Again, [place.put("a", "new")]).await.unwrap();
}

async fn the_largest_tokens_compare_rightly() {
    let place = Place::shared().await;
    let (fences, accounts) = (place.fences().await, accounts());
    let max = FencingToken::MAX.get();
    let rising = [1, 2, 9, 10, 11, 99, 100, 1 << 32, (1 << 53) + 1, 999_999_999_999_999_999, max - 1, max];
    for (at, token) in rising.into_iter().enumerate() {
        fences.write(&accounts, &fence("x", token), Pass::Once, [place.put("a", &token.to_string())]).await.unwrap();
        for pass in [Pass::Again, Pass::Once] {
            for lower in &rising[..at] {
                let refused = fences.write(&accounts, &fence("x", *lower), pass, [place.put("a", "bad")]).await;
                assert!(is_stale(&refused.unwrap_err(), token), "{lower} after {token}");
            }
        }
        assert_eq!(fences.highest(&accounts).await.unwrap(), Some(fence("x", token)));
    }
}

/// Of many at once, those that are accepted rise in the order in which the store did them. Each task comes with a new token,
/// as a new holder does, and then with its old one again.
async fn many_at_once_end_at_the_highest() {
    const TASKS: u64 = 8;
    const TOKENS: u64 = 400;
    let place = Place::shared().await;
    let accounts = accounts();
    let clients = [place.fences().await, place.fences().await, place.fences().await, place.fences().await];
    for pass in [Pass::Again, Pass::Once] {
        clients[0].forget(&accounts).await.unwrap();
        place.delete("data/").await;
        let next = Arc::new(AtomicU64::new(1));
        let tasks = (0..TASKS).map(|task| {
            let (fences, accounts) = (clients[usize::try_from(task % 4).unwrap()].clone(), accounts.clone());
            let (next, data) = (Arc::clone(&next), place.data(""));
            tokio::spawn(async move {
                let (mut accepted, mut refused) = (0, 0);
                loop {
                    let token = next.fetch_add(1, Ordering::SeqCst);
                    if token > TOKENS {
                        return (accepted, refused);
                    }
                    for again in [0, 1] {
                        let put = TxnOp::put(format!("{data}{token}/{again}"), "", None);
                        match fences.write(&accounts, &fence("x", token), pass, [put]).await {
                            Ok(_) => accepted += 1,
                            Err(FenceError::Stale(stale)) => {
                                assert!(stale.highest.get() >= token);
                                refused += 1;
                            }
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                }
            })
        });
        let (mut accepted, mut refused) = (0, 0);
        for done in join_all(tasks).await {
            let (more_accepted, more_refused) = done.unwrap();
            accepted += more_accepted;
            refused += more_refused;
        }
        let written = place.all().await;
        let tokens: Vec<u64> =
            written.iter().filter_map(|row| row.key.strip_prefix("data/")?.split_once('/')?.0.parse().ok()).collect();
        println!("{pass:?}: {accepted} accepted in the order of their tokens, {refused} refused");
        assert_eq!(tokens.len(), accepted, "what was accepted is there, and nothing else");
        let rising = |pair: &[u64]| if pass == Pass::Once { pair[0] < pair[1] } else { pair[0] <= pair[1] };
        assert!(tokens.windows(2).all(rising), "{tokens:?}");
        assert!(accepted > 0 && refused > 0);
        assert_eq!(tokens.last(), Some(&TOKENS));
        assert_eq!(clients[1].highest(&accounts).await.unwrap(), Some(fence("x", TOKENS)));
    }
}

async fn a_lost_answer_leaves_a_doubt_and_is_not_sent_again() {
    let place = Place::shared().await;
    let proxy = Proxy::start(place.host_port()).await.unwrap();
    let far = EtcdFences::builder(format!("etcd://{}", proxy.address())).prefix(&place.prefix).build().await.unwrap();
    let accounts = accounts();
    far.raise(&accounts, &fence("x", 5), Pass::Again).await.unwrap();
    let before = place.all().await;
    let lost = proxy.lose_reply_to("the-one-that-is-lost");
    let put = place.put("a", "the-one-that-is-lost");
    let error = store_error(far.write(&accounts, &fence("x", 5), Pass::Again, [put]).await.unwrap_err());
    lost.await.unwrap();
    println!("{error}");
    assert_eq!(error.applied(), Applied::Maybe, "{error}");
    assert!(error.to_string().starts_with("etcd: fence"), "{error}");
    let after = place.all().await;
    let written = after.iter().find(|row| row.value == b"the-one-that-is-lost").expect("it was applied");
    assert_eq!(written.version, 1, "and once");
    assert_eq!(after.len(), before.len() + 1);
    // Nobody listens: it can't have been applied, and that is told.
    far.raise(&accounts, &fence("x", 5), Pass::Again).await.unwrap();
    drop(proxy);
    let before = place.all().await;
    let error = loop {
        // The first may find the connection breaking under it.
        let error = store_error(far.write(&accounts, &fence("x", 5), Pass::Again, []).await.unwrap_err());
        if error.applied() == Applied::No {
            break error;
        }
    };
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!(place.all().await, before);
}

async fn what_was_forgotten_is_fenced_anew() {
    let place = Place::shared().await;
    let (fences, accounts) = (place.fences().await, accounts());
    assert!(!fences.forget(&accounts).await.unwrap());
    assert_eq!(fences.highest(&accounts).await.unwrap(), None);
    fences.raise(&accounts, &fence("x", 5), Pass::Again).await.unwrap();
    let other = place.fences().await;
    assert!(other.forget(&accounts).await.unwrap());
    // The one that remembers is not led astray.
    fences.write(&accounts, &fence("y", 1), Pass::Once, [place.put("a", "1")]).await.unwrap();
    assert_eq!(other.highest(&accounts).await.unwrap(), Some(fence("y", 1)));
    // Names are apart, whatever they are made of.
    for odd in ["accounts/", "Accounts", "a%", "🔒", "accounts\u{1}"] {
        let odd = Resource::new(odd).unwrap();
        assert_eq!(fences.highest(&odd).await.unwrap(), None);
        fences.raise(&odd, &fence("ein Schloss/é", 3), Pass::Once).await.unwrap();
        assert_eq!(other.highest(&odd).await.unwrap(), Some(fence("ein Schloss/é", 3)));
    }
    assert_eq!(other.highest(&accounts).await.unwrap(), Some(fence("y", 1)));
}

/// What the caller's operations are, and what they may not be.
async fn the_register_is_not_the_callers_to_write() {
    let place = Place::shared().await;
    let (fences, accounts) = (place.fences().await, accounts());
    let key = register(&place, &accounts);
    fences.write(&accounts, &fence("x", 5), Pass::Again, [place.put("a", "1")]).await.unwrap();
    let before = place.all().await;
    for bad in [
        TxnOp::put(key.as_str(), "7@x", None),
        TxnOp::delete(key.as_str(), None),
        TxnOp::delete(place.prefix.as_str(), Some(DeleteOptions::new().with_prefix())),
        TxnOp::txn(Txn::new().and_then([TxnOp::put(key.as_str(), "7@x", None)])),
        TxnOp::txn(Txn::new().or_else([TxnOp::delete(key.as_str(), None)])),
    ] {
        for token in [5, 6] {
            let both = [place.put("b", "2"), bad.clone()];
            let error = store_error(fences.write(&accounts, &fence("x", token), Pass::Again, both).await.unwrap_err());
            assert_eq!(error.applied(), Applied::No, "{error}");
            assert!(error.to_string().contains("may not touch its register"), "{error}");
        }
    }
    assert_eq!(place.all().await, before);
    // One of those that the server takes at once is the register's.
    let many = |number: usize| (0..number).map(|at| place.put(&format!("many/{at}"), "")).collect::<Vec<_>>();
    let error = store_error(fences.write(&accounts, &fence("x", 5), Pass::Again, many(128)).await.unwrap_err());
    assert!(error.applied() == Applied::No && error.to_string().contains("send fewer"), "{error}");
    assert_eq!(place.all().await, before);
    fences.write(&accounts, &fence("x", 5), Pass::Again, many(127)).await.unwrap();
    assert_eq!(place.delete("data/many/").await, 127);
    // Compares of the caller's own, in a transaction of its own below.
    let unless_there = Txn::new()
        .when([Compare::create_revision(place.data("c"), CompareOp::Equal, 0)])
        .and_then([place.put("c", "3")]);
    let answer = fences.write(&accounts, &fence("x", 6), Pass::Once, [TxnOp::txn(unless_there)]).await.unwrap();
    assert!(answer.succeeded());
    assert_eq!(place.keys("data/").await, ["data/a", "data/c"]);
}

async fn the_callers_own_transaction_can_take_part() {
    let place = Place::shared().await;
    let (fences, accounts) = (place.fences().await, accounts());
    let mut operator = place.operator().await;
    let mut write = async |by: &Fence, value: &str| {
        let (mut when, raise) = fences.admit(&accounts, by).unwrap();
        when.push(Compare::version(place.data("b"), CompareOp::Equal, 0));
        let txn = Txn::new().when(when).and_then([place.put("a", value), raise]);
        operator.txn(txn).await.unwrap().succeeded()
    };
    assert!(!write(&fence("x", 5), "unraised").await, "the register has to be there");
    fences.raise(&accounts, &fence("x", 5), Pass::Again).await.unwrap();
    assert!(write(&fence("x", 5), "1").await && write(&fence("x", 5), "2").await);
    for bad in [fence("x", 4), fence("x", 6), fence("y", 5)] {
        assert!(!write(&bad, "bad").await, "{bad}");
    }
    fences.raise(&accounts, &fence("x", 6), Pass::Again).await.unwrap();
    assert!(!write(&fence("x", 5), "late").await);
    assert!(write(&fence("x", 6), "3").await);
    let found = place.operator().await.get(place.data("a"), None).await.unwrap();
    assert_eq!(found.kvs()[0].value(), b"3");
    let (when, raise) = fences.admit(&accounts, &fence("x", 6)).unwrap();
    let twice = Txn::new().when(when).and_then([TxnOp::put(register(&place, &accounts), "1@x", None), raise]);
    place.operator().await.txn(twice).await.unwrap_err();
}

/// With a user that may do no more than what is said in the documentation, and with the application's own client.
async fn rights_on_the_prefix_are_enough() {
    let server = start(testbed::etcd_auth).await;
    let prefix = format!("leasehold/{}/", unique());
    let fences = EtcdFences::builder(server.url()).prefix(&prefix).build().await.unwrap();
    let accounts = accounts();
    fences.raise(&accounts, &fence("x", 5), Pass::Again).await.unwrap();
    fences.write(&accounts, &fence("x", 6), Pass::Once, [TxnOp::put(format!("{prefix}a"), "1", None)]).await.unwrap();
    assert!(fences.forget(&accounts).await.unwrap());
    let shown = format!("{fences:?} {:?}", EtcdFences::builder(server.url()));
    assert!(!shown.contains("leasehold:leasehold"), "{shown}");
    // Where it may not write, that is told without a password.
    let elsewhere = EtcdFences::builder(server.url()).prefix(unique()).build().await.unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::Denied, "{elsewhere}");
    let place = Place::shared().await;
    let client = Client::connect([place.host_port()], None).await.unwrap();
    let theirs = EtcdFences::builder(client).prefix(&place.prefix).build().await.unwrap();
    theirs.raise(&accounts, &fence("x", 5), Pass::Again).await.unwrap();
    assert_eq!(place.fences().await.highest(&accounts).await.unwrap(), Some(fence("x", 5)));
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    what_is_refused_writes_nothing,
    a_register_that_no_version_writes_is_corrupt,
    a_raise_before_the_first_read_refuses_the_one_before,
    the_largest_tokens_compare_rightly,
    many_at_once_end_at_the_highest,
    a_lost_answer_leaves_a_doubt_and_is_not_sent_again,
    what_was_forgotten_is_fenced_anew,
    the_register_is_not_the_callers_to_write,
    the_callers_own_transaction_can_take_part,
    rights_on_the_prefix_are_enough,
);
