//! What a record keeps of ticks: exactly, in groups, on a full server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use common::{Place, ask, give_back, granted, seconds};
use lock_core::{
    AcquireRequest, Acquired, Applied, ErrorKind, LockProvider, ReleaseRequest, Released, Renewed, Tick, TickUse,
};

fn for_tick(lock: &str, tick: u64) -> AcquireRequest {
    AcquireRequest { tick: Some(Tick(tick)), ..ask(lock, seconds(30)) }
}

fn finished(answer: &Acquired) -> Option<u64> {
    match answer {
        Acquired::Finished(Tick(last)) => Some(*last),
        _ => None,
    }
}

async fn each_of_a_group_has_its_own_tick() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let of = |tick_use, lock, tick| AcquireRequest { tick_use, ..for_tick(lock, tick) };
    let wishes = [
        of(TickUse::AtGrant, "a", 7),
        ask("b", seconds(30)),
        of(TickUse::AtRelease, "c", 7),
        // The same locks again: they find what the first ones left.
        of(TickUse::AtRelease, "a", 7),
        of(TickUse::AtGrant, "b", 7),
        of(TickUse::AtGrant, "c", 7),
        of(TickUse::AtGrant, "a", 8),
        ask("a", seconds(30)),
    ];
    let answers: Vec<_> = locks.acquire_many(&wishes).await.into_iter().map(Result::unwrap).collect();
    assert!(answers[..3].iter().all(|answer| matches!(answer, Acquired::Granted(_))), "{answers:?}");
    assert_eq!(finished(&answers[3]), Some(7));
    assert!(answers[4..].iter().all(|answer| matches!(answer, Acquired::Held(_))), "{answers:?}");

    // One that is done, one that isn't, one for which it is told though the lease is somebody else's.
    let mut releases: Vec<_> = (0..3).map(|at| give_back(&wishes[at], granted(answers[at].clone()))).collect();
    releases[1].done = Some(Tick(9));
    releases.push(ReleaseRequest { owner: wishes[5].owner, done: Some(Tick(99)), ..releases[2].clone() });
    releases.swap(2, 3);
    let answers: Vec<_> = locks.release_many(&releases).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [Released::Released, Released::Released, Released::NotHeld, Released::Released]);
    let wishes = [for_tick("a", 8), for_tick("b", 9), for_tick("c", 7)];
    let answers: Vec<_> = locks.acquire_many(&wishes).await.into_iter().map(Result::unwrap).collect();
    assert!(matches!(answers[0], Acquired::Granted(_)) && matches!(answers[2], Acquired::Granted(_)), "{answers:?}");
    assert_eq!(finished(&answers[1]), Some(9));
    let kept: Vec<Option<String>> = vec![
        place.command(&["HGET", &place.key("a"), "last_tick"]).await,
        place.command(&["HGET", &place.key("b"), "last_tick"]).await,
        place.command(&["HGET", &place.key("c"), "last_tick"]).await,
    ];
    assert_eq!(kept, ["8", "9", "7"].map(|tick| Some(tick.to_owned())));
}

async fn ticks_are_exact_from_the_first_to_the_last_and_never_fall() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    for (tick, before) in [(0, None), (1, Some(0)), (Tick::MAX.0 - 1, Some(1)), (Tick::MAX.0, Some(Tick::MAX.0 - 1))] {
        if let Some(before) = before {
            let answer = locks.acquire(&for_tick("x", before)).await.unwrap();
            assert_eq!(finished(&answer), Some(before), "{answer:?}");
        }
        let wish = for_tick("x", tick);
        let grant = granted(locks.acquire(&wish).await.unwrap());
        // Done with an earlier one, kept taken for a moment that is over at once.
        let mut release = give_back(&wish, grant);
        (release.done, release.keep_for) = (Some(Tick(tick / 2)), std::time::Duration::from_micros(1));
        assert_eq!(locks.release(&release).await.unwrap(), Released::Released);
        assert_eq!(finished(&locks.acquire(&for_tick("x", tick)).await.unwrap()), Some(tick));
    }
    let kept: String = place.command(&["HGET", &place.key("x"), "last_tick"]).await;
    assert_eq!(kept, "9007199254740991");
}

async fn a_last_tick_that_cannot_be_right_is_told_and_left_alone() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    for odd in ["noon", "nan", "-7", "9007199254740992", "1e300"] {
        let _: u64 = place.command(&["HSET", &place.key("x"), "token", "5", "last_tick", odd]).await;
        let error = locks.acquire(&for_tick("x", 7)).await.unwrap_err();
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{odd}: {error}");
        let kept: String = place.command(&["HGET", &place.key("x"), "last_tick"]).await;
        assert_eq!(kept, odd);
    }
}

async fn a_full_server_still_learns_that_a_tick_is_done() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let wish = AcquireRequest { tick_use: TickUse::AtRelease, ..for_tick("x", 7) };
    let grant = granted(locks.acquire(&wish).await.unwrap());
    let () = place.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let mut release = give_back(&wish, grant);
    (release.done, release.keep_for) = (Some(Tick(7)), seconds(30));
    assert_eq!(locks.release(&release).await.unwrap(), Released::Released);
    assert_eq!(finished(&locks.acquire(&for_tick("x", 7)).await.unwrap()), Some(7));
    assert_eq!(locks.renew(&common::again(&wish, grant)).await.unwrap(), Renewed::Lost);
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    each_of_a_group_has_its_own_tick,
    ticks_are_exact_from_the_first_to_the_last_and_never_fall,
    a_last_tick_that_cannot_be_right_is_told_and_left_alone,
    a_full_server_still_learns_that_a_tick_is_done,
);
