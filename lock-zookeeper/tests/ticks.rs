//! A tick that was used up isn't granted again, whichever way the question takes, but to the call whose grant used it up.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{
    OPEN, ask, fresh_path, give_back, in_line, locks, operator, refused, start, take,
    ticks::{entries, finished, forget, kept, with},
};
use lock_core::{AcquireRequest, Acquired, Applied, ErrorKind, LockProvider, ReleaseRequest, Released, Tick, TickUse};
use lock_zookeeper::ZooKeeperLocks;

const TTL: Duration = Duration::from_secs(6);

async fn finish(locks: &ZooKeeperLocks, name: &str, tick: Tick) {
    let request = ask(name, TTL);
    let grant = take(locks, &request).await;
    let mut release = ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token));
    release.done = Some(tick);
    assert_eq!(locks.release(&release).await.unwrap(), Released::Released);
}

async fn a_tick_that_is_finished_while_one_waits_for_it_is_not_granted() {
    let server = start(testbed::zookeeper).await;
    let path = fresh_path();
    let (ours, theirs) = (locks(&server, &path).await, locks(&server, &path).await);
    let request = ask("x", TTL);
    let grant = take(&ours, &request).await;
    let waiters = [5, 6].map(|tick| AcquireRequest { tick: Some(Tick(tick)), ..in_line("x", TTL) });
    for waiter in &waiters {
        refused(&theirs, waiter).await;
    }
    let mut release = ReleaseRequest::new(request.name.clone(), request.owner, Some(grant.token));
    release.done = Some(Tick(5));
    assert_eq!(ours.release(&release).await.unwrap(), Released::Released);
    let answer = theirs.acquire(&waiters[0]).await.unwrap();
    assert!(matches!(answer, Acquired::Finished(Tick(5))), "{answer:?}");
    // Whose place isn't in the way of the next, and the next's tick isn't finished.
    let answer = theirs.acquire(&waiters[1]).await.unwrap();
    assert!(matches!(answer, Acquired::Granted(_)), "{answer:?}");
}

async fn a_tick_that_cannot_be_read_grants_nothing() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let ours = locks(&server, &path).await;
    let node = format!("{path}/ticks/x");
    operator.create(&node, b"", &OPEN).await.unwrap();
    // The last is more than a tick can be.
    for garbage in ["", "garbage", "-5", "5x 12 a", "9007199254740992"] {
        operator.set_data(&node, garbage.as_bytes(), None).await.unwrap();
        for asked in [ask("x", TTL), in_line("x", TTL)] {
            for tick_use in [TickUse::AtGrant, TickUse::AtRelease] {
                let request = AcquireRequest { tick_use, ..with(asked.clone(), Tick(5)) };
                let error = ours.acquire(&request).await.unwrap_err();
                assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{garbage}: {error}");
                assert!(error.to_string().contains(&node), "{error}");
            }
        }
        assert_eq!(kept(&operator, &path).await.0, garbage);
    }
    // It is in nobody's way who asks for no tick.
    let plain = ask("x", TTL);
    let grant = take(&ours, &plain).await;
    // Who waits when it becomes so leaves the line.
    operator.set_data(&node, b"4", None).await.unwrap();
    let waiter = with(in_line("x", TTL), Tick(5));
    refused(&ours, &waiter).await;
    operator.set_data(&node, b"garbage", None).await.unwrap();
    give_back(&ours, &plain, grant).await;
    let error = ours.acquire(&waiter).await.unwrap_err();
    println!("{error}");
    assert_eq!((error.kind(), entries(&operator, &path).await.len()), (ErrorKind::Corrupt, 0), "{error}");
}

async fn a_tick_that_was_granted_is_granted_still() {
    let server = start(testbed::zookeeper).await;
    let path = fresh_path();
    let ours = locks(&server, &path).await;
    finish(&ours, "x", Tick(5)).await;
    let request = AcquireRequest { tick: Some(Tick(6)), ..ask("x", TTL) };
    let grant = take(&ours, &request).await;
    assert_eq!(take(&ours, &request).await.token, grant.token);
    give_back(&ours, &request, grant).await;
    // Who holds the lock isn't asked for a tick any more, and uses none up.
    let plain = ask("x", TTL);
    let grant = take(&ours, &plain).await;
    for tick in [5, 7] {
        assert_eq!(take(&ours, &with(plain.clone(), Tick(tick))).await.token, grant.token);
    }
    finished(&ours, &with(ask("x", TTL), Tick(5)), Tick(6)).await;
}

async fn a_tick_that_an_older_version_wrote_is_known() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let ours = locks(&server, &path).await;
    operator.create(&format!("{path}/ticks/x"), b"5", &OPEN).await.unwrap();
    finished(&ours, &with(ask("x", TTL), Tick(5)), Tick(5)).await;
    let request = with(ask("x", TTL), Tick(6));
    let grant = take(&ours, &request).await;
    let entry = entries(&operator, &path).await.remove(0);
    assert_eq!(kept(&operator, &path).await.0, format!("6 {} {entry}", grant.token));
    give_back(&ours, &request, grant).await;
    // A release that finishes an earlier one leaves it; a later one is written as that version does.
    for (done, last) in [(3, Tick(6)), (8, Tick(8))] {
        finish(&ours, "x", Tick(done)).await;
        finished(&ours, &with(ask("x", TTL), last), last).await;
    }
    assert_eq!(kept(&operator, &path).await.0, "8");
}

async fn who_asks_for_a_used_up_tick_gets_no_place_and_keeps_none() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let (ours, theirs) = (locks(&server, &path).await, locks(&server, &path).await);
    let plain = ask("x", TTL);
    let held = take(&ours, &plain).await;
    let [first, second, third] = [5, 5, 6].map(|tick| with(in_line("x", TTL), Tick(tick)));
    for waiter in [&first, &second, &third] {
        refused(&theirs, waiter).await;
    }
    give_back(&ours, &plain, held).await;
    let grant = take(&theirs, &first).await;
    assert_eq!(entries(&operator, &path).await.len(), 3);
    // Behind who runs it.
    finished(&theirs, &second, Tick(5)).await;
    assert_eq!(entries(&operator, &path).await.len(), 2);
    assert_eq!(refused(&theirs, &third).await.position, Some(0));
    // Who comes now makes no entry: the next one's number says so.
    for asked in [in_line("x", TTL), ask("x", TTL)] {
        finished(&ours, &with(asked, Tick(5)), Tick(5)).await;
    }
    let last = with(in_line("x", TTL), Tick(7));
    refused(&ours, &last).await;
    let entries = entries(&operator, &path).await;
    assert!(entries.len() == 3 && entries.iter().any(|entry| entry.ends_with("-lock-0000000004")), "{entries:?}");
    give_back(&theirs, &first, grant).await;
    take(&theirs, &third).await;
}

async fn a_tick_stays_when_the_locks_own_node_is_gone() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let ours = locks(&server, &path).await;
    let request = with(ask("x", TTL), Tick(5));
    let grant = take(&ours, &request).await;
    give_back(&ours, &request, grant).await;
    // As the servers do after a while.
    forget(&operator, &path).await;
    for asked in [in_line("x", TTL), ask("x", TTL)] {
        finished(&ours, &with(asked, Tick(5)), Tick(5)).await;
    }
    // An administrator may have deleted what all ticks are under.
    operator.delete(&format!("{path}/ticks/x"), None).await.unwrap();
    operator.delete(&format!("{path}/ticks"), None).await.unwrap();
    take(&ours, &with(ask("x", TTL), Tick(1))).await;
    finished(&ours, &with(ask("x", TTL), Tick(1)), Tick(1)).await;
}

async fn one_call_asked_several_times_at_once_is_one_grant() {
    let server = start(testbed::zookeeper).await;
    let path = fresh_path();
    let ours = locks(&server, &path).await;
    for tick in 1..=20 {
        let request = with(ask("x", TTL), Tick(tick));
        let group = [(); 5].map(|()| request.clone());
        let tokens = ours.acquire_many(&group).await.into_iter().map(|answer| match answer.unwrap() {
            Acquired::Granted(grant) => grant.token,
            other => panic!("{other:?}"),
        });
        let tokens: Vec<_> = tokens.collect();
        assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
        let release = ReleaseRequest::new(request.name.clone(), request.owner, Some(tokens[0]));
        assert_eq!(ours.release(&release).await.unwrap(), Released::Released);
    }
}

testbed::server_tests!(testbed::zookeeper =>
    a_tick_that_is_finished_while_one_waits_for_it_is_not_granted,
    a_tick_that_cannot_be_read_grants_nothing,
    a_tick_that_was_granted_is_granted_still,
    a_tick_that_an_older_version_wrote_is_known,
    who_asks_for_a_used_up_tick_gets_no_place_and_keeps_none,
    a_tick_stays_when_the_locks_own_node_is_gone,
    one_call_asked_several_times_at_once_is_one_grant,
);
