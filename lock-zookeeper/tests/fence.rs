//! The register: which writes it lets through, and that it lets nothing else through whatever happens to it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use common::{
    OPEN,
    fences::{Log, fence, fences, is_corrupt, is_stale, resource},
    fresh_path, operator, start, until, url,
};
use conformance_tests::Proxy;
use futures_util::future::join_all;
use lock_core::{Applied, ErrorKind, FenceError, FenceRegister, Pass};
use lock_zookeeper::{
    ZooKeeperFences,
    zookeeper_client::{Acls, CheckWriter, Client, CreateMode, Error, MultiWriteError, MultiWriteResult},
};
use testbed::ZooKeeper;

async fn the_highest_and_higher_ones_write_and_nothing_else_does() {
    let server = start(testbed::zookeeper).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("a/b %42.."));
    let log = Log::new(&operator, &path).await;
    let (ours, theirs) = (fences(&server, &path).await, fences(&server, &path).await);
    assert_eq!(ours.highest(&accounts).await.unwrap(), None);
    let answers = ours.write(&accounts, &fence("a lock/ü", 5), Pass::Again, log.entry(5)).await.unwrap();
    assert!(matches!(&*answers, [MultiWriteResult::Create { path, .. }] if path.starts_with(&log.path)), "{answers:?}");
    ours.write(&accounts, &fence("a lock/ü", 5), Pass::Again, log.entry(5)).await.unwrap();
    theirs.write(&accounts, &fence("a lock/ü", 7), Pass::Again, log.entry(7)).await.unwrap();
    let kept = operator.list_children(&format!("{path}/fences")).await.unwrap();
    for refused in [&ours, &theirs] {
        is_stale(refused.write(&accounts, &fence("a lock/ü", 6), Pass::Again, log.entry(6)).await, 6, 7);
        is_stale(refused.raise(&accounts, &fence("a lock/ü", 6), Pass::Again).await, 6, 7);
        let other = refused.write(&accounts, &fence("another", 8), Pass::Again, log.entry(8)).await;
        assert!(
            matches!(&other, Err(FenceError::OtherLock(other)) if other.fenced_by.as_str() == "a lock/ü"),
            "{other:?}"
        );
        assert_eq!(refused.highest(&accounts).await.unwrap(), Some(fence("a lock/ü", 7)));
    }
    // Other resources are on their own.
    ours.write(&resource("a"), &fence("another", 1), Pass::Again, log.entry(1)).await.unwrap();
    assert_eq!(log.entries().await, ["5", "5", "7", "1"]);
    assert_eq!(kept, ["a%2Fb %2542.."]);
}

async fn each_grant_passes_once_where_that_is_asked_for() {
    let server = start(testbed::zookeeper).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    let log = Log::new(&operator, &path).await;
    let (ours, theirs) = (fences(&server, &path).await, fences(&server, &path).await);
    let five = fence("x", 5);
    let both = [&ours, &theirs].map(|fences| fences.write(&accounts, &five, Pass::Once, log.entry(5)));
    let passed = join_all(both).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(passed, 1);
    is_stale(ours.write(&accounts, &fence("x", 5), Pass::Once, log.entry(5)).await, 5, 5);
    ours.write(&accounts, &fence("x", 6), Pass::Once, log.entry(6)).await.unwrap();
    is_stale(theirs.write(&accounts, &fence("x", 6), Pass::Once, log.entry(6)).await, 6, 6);
    theirs.raise(&accounts, &fence("x", 7), Pass::Again).await.unwrap();
    is_stale(ours.raise(&accounts, &fence("x", 7), Pass::Once).await, 7, 7);
    assert_eq!(log.entries().await, ["5", "6"]);
}

async fn a_raise_before_the_first_read_refuses_the_late_write_of_the_one_before() {
    let server = start(testbed::zookeeper).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    let log = Log::new(&operator, &path).await;
    let (old, new) = (fences(&server, &path).await, fences(&server, &path).await);
    old.write(&accounts, &fence("x", 5), Pass::Again, log.entry("old")).await.unwrap();
    // What it knows of the register is right up to here.
    new.raise(&accounts, &fence("x", 6), Pass::Again).await.unwrap();
    let read = log.entries().await;
    is_stale(old.write(&accounts, &fence("x", 5), Pass::Again, log.entry("late")).await, 5, 6);
    assert_eq!(log.entries().await, read);
}

async fn what_no_version_writes_is_told_and_left_alone() {
    let server = start(testbed::zookeeper).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    let log = Log::new(&operator, &path).await;
    let ours = fences(&server, &path).await;
    let node = format!("{path}/fences/accounts");
    let nonsense: [&[&str]; 9] = [
        &[],
        &["-1@x"],
        &["0@x"],
        &["9223372036854775808@x"],
        &["5"],
        &["5@a b"],
        &["text that is none"],
        &["5@x", "6@x"],
        &["5@x%2fy"],
    ];
    for children in nonsense {
        operator.create(&node, b"", &OPEN).await.unwrap();
        for child in children {
            operator.create(&format!("{node}/{child}"), b"", &OPEN).await.unwrap();
        }
        for pass in [Pass::Again, Pass::Once] {
            is_corrupt(ours.write(&accounts, &fence("x", 100), pass, log.entry("?")).await);
        }
        is_corrupt(ours.raise(&accounts, &fence("x", 5), Pass::Again).await);
        is_corrupt(ours.highest(&accounts).await);
        let mut left = operator.list_children(&node).await.unwrap();
        left.sort_unstable();
        assert_eq!(left, children);
        assert!(ours.forget(&accounts).await.unwrap());
        assert!(!ours.forget(&accounts).await.unwrap());
    }
    // Also what becomes nonsense when it is known already.
    ours.write(&accounts, &fence("x", 5), Pass::Again, log.entry(5)).await.unwrap();
    operator.create(&format!("{node}/6@x"), b"", &OPEN).await.unwrap();
    is_corrupt(ours.write(&accounts, &fence("x", 6), Pass::Again, log.entry("?")).await);
    operator.delete(&format!("{node}/6@x"), None).await.unwrap();
    operator.create(&format!("{node}/5@x/z"), b"", &OPEN).await.unwrap();
    is_corrupt(ours.write(&accounts, &fence("x", 6), Pass::Again, log.entry("?")).await);
    is_corrupt(ours.forget(&accounts).await);
    assert_eq!(log.entries().await, ["5"]);
}

async fn delete_all(operator: &Client, path: &str) {
    for child in operator.list_children(path).await.unwrap() {
        Box::pin(delete_all(operator, &format!("{path}/{child}"))).await;
    }
    operator.delete(path, None).await.unwrap();
}

/// A version begins at zero again in a node that was deleted and made anew. What is remembered isn't a version.
async fn nothing_passes_by_what_is_remembered_of_a_register_that_was_deleted() {
    let server = start(testbed::zookeeper).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    let log = Log::new(&operator, &path).await;
    let (old, new) = (fences(&server, &path).await, fences(&server, &path).await);
    for by_hand in [true, false] {
        old.write(&accounts, &fence("x", 5), Pass::Again, log.entry(5)).await.unwrap();
        if by_hand {
            delete_all(&operator, &format!("{path}/fences")).await;
        } else {
            assert!(new.forget(&accounts).await.unwrap());
        }
        new.write(&accounts, &fence("x", 6), Pass::Again, log.entry(6)).await.unwrap();
        is_stale(old.write(&accounts, &fence("x", 5), Pass::Again, log.entry("late")).await, 5, 6);
        // Nor is anything refused by it.
        assert!(old.forget(&accounts).await.unwrap());
        new.write(&accounts, &fence("y", 1), Pass::Again, log.entry(1)).await.unwrap();
        assert!(old.forget(&accounts).await.unwrap());
    }
    assert_eq!(log.entries().await, ["5", "6", "1", "5", "6", "1"]);
}

async fn writes_at_once_are_kept_in_the_order_of_their_tokens() {
    const CLIENTS: u64 = 8;
    const TOKENS: u64 = 60;
    let server = start(testbed::zookeeper).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    let log = Log::new(&operator, &path).await;
    let looker = fences(&server, &path).await;
    let write = |client: u64| {
        let (server, path, accounts, log) = (&server, &path, &accounts, &log);
        async move {
            let fences = fences(server, path).await;
            let mut accepted = Vec::new();
            for round in 1..=TOKENS {
                // Each has tokens of its own, some of them behind those of others.
                let token = round * CLIENTS + client;
                match fences.write(accounts, &fence("x", token), Pass::Again, log.entry(token)).await {
                    Ok(_) => accepted.push(token),
                    Err(FenceError::Stale(stale)) => assert!(stale.highest > stale.token),
                    Err(error) => panic!("{error}"),
                }
            }
            accepted
        }
    };
    let done = std::cell::Cell::new(false);
    let writing = async {
        let accepted: Vec<_> = join_all((0..CLIENTS).map(write)).await.into_iter().flatten().collect();
        done.set(true);
        accepted
    };
    // A look never sees a raise half done.
    let looking = async {
        let (mut looks, mut last) = (0, 0);
        while !done.get() {
            let seen = looker.highest(&accounts).await.unwrap().map_or(0, |fence| fence.token().get());
            assert!(seen >= last, "{seen} after {last}");
            (looks, last) = (looks + 1, seen);
        }
        looks
    };
    let (mut accepted, looks) = tokio::join!(writing, looking);
    let kept: Vec<u64> = log.entries().await.iter().map(|entry| entry.parse().unwrap()).collect();
    println!("{} of {} writes accepted, {looks} looks meanwhile", kept.len(), CLIENTS * TOKENS);
    assert!(kept.is_sorted(), "{kept:?}");
    accepted.sort_unstable();
    assert_eq!(accepted, kept);
    let most = TOKENS * CLIENTS + CLIENTS - 1;
    assert_eq!(looker.highest(&accounts).await.unwrap(), Some(fence("x", most)));
    // Which shows something only if they were in each other's way.
    assert!((kept.len() as u64) < CLIENTS * TOKENS && kept.len() > 20, "{kept:?}");
}

async fn all_that_a_holder_writes_at_once_passes() {
    let server = start(testbed::zookeeper).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    let log = Log::new(&operator, &path).await;
    let ours = fences(&server, &path).await;
    for token in [5, 6] {
        // All of them find that the fence is to be raised, and one does it.
        let five = fence("x", token);
        let write = |_| ours.write(&accounts, &five, Pass::Again, log.entry(token));
        join_all((0..100).map(write)).await.into_iter().for_each(|written| _ = written.unwrap());
    }
    assert_eq!(log.entries().await, [["5"; 100], ["6"; 100]].concat());
}

async fn the_longest_and_strangest_names_are_kept_apart() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    let log = Log::new(&operator, &path).await;
    let ours = fences(&server, &path).await;
    let names = ["%".repeat(512), "é".repeat(256), "/".repeat(512), ".".to_owned(), "..".to_owned(), "a\nb".to_owned()];
    for (name, token) in names.iter().zip(1..) {
        ours.write(&resource(name), &fence(name, token), Pass::Again, log.entry(token)).await.unwrap();
    }
    for (name, token) in names.iter().zip(1..) {
        assert_eq!(ours.highest(&resource(name)).await.unwrap(), Some(fence(name, token)));
        ours.write(&resource(name), &fence(name, token + 1), Pass::Once, log.entry(token)).await.unwrap();
        assert!(ours.forget(&resource(name)).await.unwrap());
    }
    assert_eq!(log.entries().await.len(), names.len() * 2);
}

async fn who_may_not_use_the_register_is_told_so() {
    let server = start(testbed::zookeeper).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    let log = Log::new(&operator, &path).await;
    let with_user = url(&server, &path).replace("zookeeper://", "zookeeper://app:s3cret@");
    let ours = ZooKeeperFences::connect(&with_user).await.unwrap();
    ours.write(&accounts, &fence("x", 5), Pass::Again, log.entry(5)).await.unwrap();
    let stranger = ZooKeeperFences::connect(&url(&server, &path)).await.unwrap_err();
    println!("{stranger}");
    assert_eq!(stranger.kind(), ErrorKind::Denied);
    // The register is everybody's, and this resource's node isn't.
    operator.mkdir(&format!("{path}/other/fences"), &OPEN).await.unwrap();
    let other = format!("{path}/other");
    let ours = ZooKeeperFences::builder(with_user.as_str()).path(&other).build().await.unwrap();
    ours.raise(&accounts, &fence("x", 5), Pass::Again).await.unwrap();
    let theirs = ZooKeeperFences::builder(url(&server, &path)).path(&other).build().await.unwrap();
    let Err(FenceError::Store(error)) = theirs.write(&accounts, &fence("x", 6), Pass::Again, log.entry("?")).await
    else {
        panic!("it may not be read")
    };
    println!("{error}");
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Denied, Applied::No));
    assert_eq!(log.entries().await, ["5"]);
}

async fn a_register_goes_on_after_its_session_has_ended() {
    let server = Arc::new(start(testbed::zookeeper).await);
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    let log = Log::new(&operator, &path).await;
    let ours = fences(&server, &path).await;
    // Its own session writes a node that ends with it, so that it can be told.
    let (mark, ephemeral) = (format!("{path}/mark"), CreateMode::Ephemeral.with_acls(Acls::anyone_all()));
    let write = |multi: &mut CheckWriter<'_>| multi.add_create(&mark, b"", &ephemeral);
    ours.write(&accounts, &fence("x", 5), Pass::Again, write).await.unwrap();
    let session = operator.check_stat(&mark).await.unwrap().unwrap().ephemeral_owner;
    until("the session's end", || async {
        let server = Arc::clone(&server);
        tokio::task::spawn_blocking(move || _ = ZooKeeper::of(&server).expire(session)).await.unwrap();
        operator.check_stat(&mark).await.unwrap().is_none()
    })
    .await;
    let tries = AtomicU32::new(0);
    until("the next session", || async {
        tries.fetch_add(1, Ordering::SeqCst);
        ours.write(&accounts, &fence("x", 6), Pass::Again, log.entry(6)).await.is_ok()
    })
    .await;
    println!("written by attempt {}", tries.into_inner());
    is_stale(ours.write(&accounts, &fence("x", 5), Pass::Again, log.entry(5)).await, 5, 6);
    assert_eq!(log.entries().await, ["6"]);
}

async fn a_write_that_the_server_refuses_leaves_the_register_as_it_was() {
    let server = start(testbed::zookeeper).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    let log = Log::new(&operator, &path).await;
    let ours = fences(&server, &path).await;
    for _ in 0..2 {
        let missing = format!("{path}/missing");
        let (entry, five) = (log.entry(5), fence("x", 5));
        let refused = ours.write(&accounts, &five, Pass::Again, |multi| {
            entry(multi)?;
            multi.add_set_data(&missing, b"", None)
        });
        let Err(FenceError::Store(error)) = refused.await else { panic!("it isn't there") };
        println!("{error}");
        let source: &MultiWriteError = error.source().and_then(|source| source.downcast_ref()).unwrap();
        assert_eq!(source, &MultiWriteError::OperationFailed { index: 1, source: Error::NoNode });
        assert_eq!(error.applied(), Applied::No);
        let unsent =
            ours.write(&accounts, &fence("x", 5), Pass::Again, |multi| multi.add_delete("no path", None)).await;
        assert_eq!(unsent.unwrap_err().applied(), Applied::No);
        let before = ours.highest(&accounts).await.unwrap();
        assert!(before.is_none_or(|before| before.token().get() == 4));
        ours.raise(&accounts, &fence("x", 4), Pass::Again).await.unwrap();
    }
    assert!(log.entries().await.is_empty());
}

async fn a_write_whose_answer_is_lost_is_told_as_such_and_done_once() {
    let server = start(testbed::zookeeper).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    let log = Log::new(&operator, &path).await;
    let proxy = Proxy::start(server.host_port().to_owned()).await.unwrap();
    let url = url(&server, &path).replace(server.host_port(), &proxy.address().to_string());
    let ours = ZooKeeperFences::connect(&url).await.unwrap();
    for token in [5, 5, 6] {
        let (lost, token) = (proxy.lose_reply_to("this-entry"), fence("x", token));
        let write = ours.write(&accounts, &token, Pass::Again, log.entry("this-entry"));
        let (outcome, lost) = tokio::join!(write, lost);
        lost.unwrap();
        let Err(FenceError::Store(error)) = outcome else { panic!("{outcome:?}") };
        println!("{error}");
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Unreachable, Applied::Maybe));
        // It goes on by itself, with the same session.
        ours.write(&accounts, &token, Pass::Again, log.entry("next")).await.unwrap();
    }
    assert_eq!(log.entries().await, ["this-entry", "next"].repeat(3));
}

testbed::server_tests!(testbed::zookeeper =>
    the_highest_and_higher_ones_write_and_nothing_else_does,
    each_grant_passes_once_where_that_is_asked_for,
    a_raise_before_the_first_read_refuses_the_late_write_of_the_one_before,
    what_no_version_writes_is_told_and_left_alone,
    nothing_passes_by_what_is_remembered_of_a_register_that_was_deleted,
    writes_at_once_are_kept_in_the_order_of_their_tokens,
    all_that_a_holder_writes_at_once_passes,
    the_longest_and_strangest_names_are_kept_apart,
    who_may_not_use_the_register_is_told_so,
    a_register_goes_on_after_its_session_has_ended,
    a_write_that_the_server_refuses_leaves_the_register_as_it_was,
    a_write_whose_answer_is_lost_is_told_as_such_and_done_once,
);
