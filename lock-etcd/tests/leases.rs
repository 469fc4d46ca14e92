//! Leases that share one at the store: each ends by itself, and none through another.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Place, again, ask, give_back, granted, is_held, pass, queue, seconds, take};
use conformance_tests::Proxy;
use lock_core::{AcquireRequest, Acquired, Applied, LockProvider, LockState, ReleaseRequest, Released, Renewed, Tick};
use lock_etcd::EtcdLocks;

async fn revoke_all(place: &Place<impl common::AsServer>) {
    let mut operator = place.operator().await;
    for lease in operator.leases().await.unwrap().leases().to_vec() {
        operator.lease_revoke(lease.id()).await.unwrap();
    }
}

/// One of two isn't renewed: it ends after its ttl, and the other one goes on under the same lease.
async fn who_is_not_renewed_ends_though_the_lease_lives_on() {
    let place = Place::shared().await;
    let (locks, other) = (place.locks().await, place.locks().await);
    let (kept, kept_grant) = take(&locks, "kept", seconds(2)).await;
    let (left, left_grant) = take(&locks, "left", seconds(2)).await;
    for _ in 0..6 {
        pass(Duration::from_millis(500)).await;
        assert!(matches!(locks.renew(&again(&kept, kept_grant)).await.unwrap(), Renewed::Held(_)));
    }
    assert_eq!(locks.renew(&again(&left, left_grant)).await.unwrap(), Renewed::Lost);
    assert!(is_held(&other.acquire(&ask("kept", seconds(2))).await.unwrap()));
    granted(other.acquire(&ask("left", seconds(2))).await.unwrap());
}

/// The lease is ended by an operator: all that lived off it is lost, and new ones live off another.
async fn a_lease_that_is_revoked_loses_its_holds_and_nothing_else() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let (mine, grant) = take(&locks, "x", seconds(10)).await;
    revoke_all(&place).await;
    assert_eq!(locks.renew(&again(&mine, grant)).await.unwrap(), Renewed::Lost);
    let (next, next_grant) = take(&locks, "x", seconds(10)).await;
    assert!(next_grant.token > grant.token);
    assert!(matches!(locks.renew(&again(&next, next_grant)).await.unwrap(), Renewed::Held(_)));
    // Also where nobody noticed before: the transaction itself finds that the lease is gone.
    revoke_all(&place).await;
    let (other, other_grant) = take(&locks, "y", seconds(10)).await;
    assert_eq!(locks.renew(&again(&next, next_grant)).await.unwrap(), Renewed::Lost);
    // Nothing of such a transaction is done, so its tick isn't used up either.
    revoke_all(&place).await;
    let job = AcquireRequest { tick: Some(Tick(7)), ..ask("job", seconds(10)) };
    granted(locks.acquire(&job).await.unwrap());
    // A release that would leave a mark under a lease that is gone.
    revoke_all(&place).await;
    assert_eq!(locks.release(&give_back(&other, other_grant)).await.unwrap(), Released::NotHeld);
}

/// Another process knows owner and token: the lease is his to renew from then on.
async fn a_hold_can_be_taken_over_by_another_process() {
    let place = Place::shared().await;
    let (one, two) = (place.locks().await, place.locks().await);
    let (mine, grant) = take(&one, "x", seconds(2)).await;
    for _ in 0..6 {
        assert!(matches!(two.renew(&again(&mine, grant)).await.unwrap(), Renewed::Held(_)));
        pass(Duration::from_millis(500)).await;
    }
    // The one who had it has seen its end come, and left alone what another renews; he may take it back.
    assert!(matches!(one.renew(&again(&mine, grant)).await.unwrap(), Renewed::Held(_)));
    assert!(matches!(two.renew(&again(&mine, grant)).await.unwrap(), Renewed::Held(_)));
    let again_and_again = granted(two.acquire(&mine).await.unwrap());
    assert_eq!(again_and_again.token, grant.token);
    // One who knows nothing of it and asks as its owner moves it to a lease of his own: it is the same grant.
    let three = place.locks().await;
    assert_eq!(granted(three.acquire(&mine).await.unwrap()).token, grant.token);
    assert_eq!(three.release(&give_back(&mine, grant)).await.unwrap(), Released::Released);
}

/// What a request leaves behind that was applied after it was given up is gone within a few ttls, though the class lives on.
async fn a_request_that_comes_late_leaves_nothing_for_ever() {
    let place = Place::alone().await;
    let proxy = Proxy::start(place.host_port()).await.unwrap();
    let url = format!("etcd://{}/", proxy.address());
    let far = EtcdLocks::builder(url.as_str()).prefix(&place.prefix);
    let far = Arc::new(far.operation_timeout(Duration::from_millis(900)).build().await.unwrap());
    let (mine, grant) = take(&far, "mine", seconds(2)).await;
    proxy.stall();
    let error = far.acquire(&ask("late", seconds(2))).await.unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe, "{error}");
    proxy.resume();
    // The class goes on: somebody renews.
    let end = seconds(8);
    let mut passed = Duration::ZERO;
    while passed < end {
        assert!(matches!(far.renew(&again(&mine, grant)).await, Ok(Renewed::Held(_))), "after {passed:?}");
        pass(Duration::from_millis(500)).await;
        passed += Duration::from_millis(500);
    }
    assert!(place.keys("l/late").await.is_empty(), "{:?}", place.keys("l/").await);
    assert_eq!(place.keys("l/").await.len(), 1);
}

/// A provider that ends leaves its holds to their ttl, and ends a lease that nothing lives off.
async fn a_provider_that_ends_leaves_no_lease_without_a_use() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let (mine, grant) = take(&locks, "x", seconds(60)).await;
    locks.release(&give_back(&mine, grant)).await.unwrap();
    assert_eq!(place.operator().await.leases().await.unwrap().leases().len(), 1);
    drop(locks);
    common::in_time(async {
        while !place.operator().await.leases().await.unwrap().leases().is_empty() {
            pass(Duration::from_millis(20)).await;
        }
    })
    .await;
    let locks = place.locks().await;
    let (held, held_grant) = take(&locks, "x", seconds(60)).await;
    drop(locks);
    pass(Duration::from_millis(500)).await;
    let other = place.locks().await;
    assert!(is_held(&other.acquire(&ask("x", seconds(2))).await.unwrap()));
    assert!(matches!(other.renew(&again(&held, held_grant)).await.unwrap(), Renewed::Held(_)));
}

/// A lock that rests has no holder, keeps its queue, and can be taken away.
async fn a_lock_that_rests_is_nobodys() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let (mine, grant) = take(&locks, "x", seconds(30)).await;
    let waiting = queue("x", seconds(30));
    assert!(is_held(&locks.acquire(&waiting).await.unwrap()));
    let rest = ReleaseRequest { keep_for: seconds(60), ..give_back(&mine, grant) };
    assert_eq!(locks.release(&rest).await.unwrap(), Released::Released);
    assert_eq!(locks.release(&rest).await.unwrap(), Released::NotHeld, "released twice");
    assert_eq!(locks.renew(&again(&mine, grant)).await.unwrap(), Renewed::Lost);
    let Acquired::Held(held) = locks.acquire(&mine).await.unwrap() else { panic!("the same owner got it back") };
    assert_eq!(held.holder, None);
    let status = locks.inspect(&mine.name).await.unwrap().unwrap();
    assert!(matches!(status.state, LockState::Resting(left) if left > seconds(55)), "{status:?}");
    assert_eq!(status.waiters, Some(1));
    assert!(is_held(&locks.acquire(&waiting).await.unwrap()));
    assert!(!locks.force_release(&mine.name).await.unwrap(), "nobody held it");
    let next = granted(locks.acquire(&waiting).await.unwrap());
    assert!(next.token > grant.token);
    assert!(locks.force_release(&mine.name).await.unwrap());
    assert_eq!(locks.renew(&again(&waiting, next)).await.unwrap(), Renewed::Lost);
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    who_is_not_renewed_ends_though_the_lease_lives_on,
    a_lease_that_is_revoked_loses_its_holds_and_nothing_else,
    a_hold_can_be_taken_over_by_another_process,
    a_request_that_comes_late_leaves_nothing_for_ever,
    a_provider_that_ends_leaves_no_lease_without_a_use,
    a_lock_that_rests_is_nobodys,
);
