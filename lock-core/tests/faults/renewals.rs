//! Stores that stall, fail, or answer renewals late: what the keeper makes of them.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lock_core::*;

use crate::{
    SECOND, TTL, pass,
    support::{
        Stage,
        hooked::{Hooked, acquired, released, renewed},
    },
};

fn down<A>(count: usize) -> Vec<Result<A, StoreError>> {
    (0..count).map(|_| Err(StoreError::refused(ErrorKind::Unreachable, "down"))).collect()
}

/// Acquires so many leases, spread over three of the ten seconds of their ttl; then two ttls pass.
async fn many_leases(hooked: Hooked, leases: u32) {
    let (locks, clock) = hooked.locks();
    let mut guards = Vec::new();
    for number in 0..leases {
        guards.push(locks.lock(format!("lock-{number}")).ttl(TTL).acquire().await.unwrap());
        pass(&clock, 3 * SECOND / leases).await;
    }
    pass(&clock, TTL * 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stalls_is_asked_once_a_sixth_of_the_ttl_for_each_lease() {
    for leases in [1, 200] {
        let mut hooked = Hooked::new();
        hooked.can.grouping = NonZeroUsize::new(1000);
        let attempts: Arc<Mutex<HashMap<OwnerId, Vec<Moment>>>> = Arc::default();
        let (seen, clock) = (attempts.clone(), hooked.clock.clone());
        hooked.on_renew = Box::new(move |_, asked, _| {
            for request in &asked {
                seen.lock().unwrap().entry(request.owner).or_default().push(clock.now());
            }
            let clock = clock.clone();
            Box::pin(async move {
                pass(&clock, SECOND * 5).await;
                down(asked.len())
            })
        });
        many_leases(hooked, leases).await;
        let attempts = attempts.lock().unwrap();
        let most = attempts.values().map(Vec::len).max().unwrap();
        assert!(most <= 8, "{leases} leases: {most} attempts for one of them");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_asked_no_more_often_for_many_leases_than_for_one() {
    let mut each = Vec::new();
    for leases in [1, 200, 1000] {
        let mut hooked = Hooked::new();
        hooked.can.grouping = NonZeroUsize::new(1000);
        let asked_for = Arc::new(AtomicUsize::new(0));
        let count = asked_for.clone();
        hooked.on_renew = Box::new(move |_, asked, _| {
            count.fetch_add(asked.len(), Ordering::SeqCst);
            Box::pin(async move { down(asked.len()) })
        });
        many_leases(hooked, leases).await;
        each.push(asked_for.load(Ordering::SeqCst) / leases as usize);
    }
    assert!(each.iter().all(|attempts| (4..=16).contains(attempts)), "attempts for each lease: {each:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_without_groups_gets_a_bounded_number_of_renewals_at_once() {
    let mut hooked = Hooked::new();
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak, clock) = (under_way, most.clone(), hooked.clock.clone());
    hooked.on_renew = Box::new(move |_, asked, store| {
        let (now, clock) = (now.clone(), clock.clone());
        peak.fetch_max(now.fetch_add(asked.len(), Ordering::SeqCst) + asked.len(), Ordering::SeqCst);
        Box::pin(async move {
            pass(&clock, Duration::from_millis(5)).await;
            now.fetch_sub(asked.len(), Ordering::SeqCst);
            renewed(asked, store).await
        })
    });
    let (locks, clock) = hooked.locks();
    let mut guards = Vec::new();
    for number in 0..2000 {
        guards.push(locks.lock(format!("lock-{number}")).ttl(TTL).acquire().await.unwrap());
    }
    pass(&clock, TTL * 2).await;
    assert!(guards.iter().all(|guard| guard.is_valid()));
    let most = most.load(Ordering::SeqCst);
    assert!(most <= 256, "{most} at once");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_attempt_costs_an_attempt_and_not_the_lease() {
    let mut hooked = Hooked::new();
    hooked.on_renew = Box::new(|call, asked, store| match call {
        0 => Box::pin(std::future::pending()),
        _ => Box::pin(renewed(asked, store)),
    });
    let (locks, clock) = hooked.locks();
    let guard = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    pass(&clock, TTL * 10).await;
    assert!(guard.is_valid());
}

#[tokio::test(start_paused = true)]
async fn the_rhythm_follows_what_the_store_granted() {
    let mut hooked = Hooked::new();
    let granted = 3 * SECOND;
    hooked.on_acquire = Box::new(move |_, mut asked, store| {
        asked[0].ttl = granted;
        Box::pin(acquired(asked, store))
    });
    hooked.on_renew = Box::new(move |call, mut asked, store| {
        asked[0].ttl = granted;
        if call == 0 { Box::pin(std::future::pending()) } else { Box::pin(renewed(asked, store)) }
    });
    let (locks, clock) = hooked.locks();
    let guard = locks.lock("x").ttl(30 * SECOND).acquire().await.unwrap();
    assert!(guard.remaining() < granted);
    pass(&clock, TTL).await;
    assert!(guard.is_valid(), "a store whose sessions are shorter than asked, one attempt stalled");
}

#[tokio::test(start_paused = true)]
async fn one_lost_lease_in_a_group_is_that_one() {
    let mut hooked = Hooked::new();
    hooked.can.grouping = NonZeroUsize::new(1000);
    let store = hooked.store.clone();
    let (locks, clock) = hooked.locks();
    let mut guards = Vec::new();
    for number in 0..9 {
        guards.push(locks.lock(format!("lock-{number}")).ttl(TTL).acquire().await.unwrap());
    }
    for lost in [0, 4, 8] {
        store.delete_record(guards[lost].name());
    }
    pass(&clock, TTL * 2).await;
    let valid: Vec<bool> = guards.iter().map(|guard| guard.is_valid()).collect();
    assert_eq!(valid, [false, true, true, true, false, true, true, true, false]);
    assert_eq!(guards[4].check().unwrap_err().reason, LossReason::NotOurs);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_lease_than_those_kept_is_renewed_in_its_time() {
    let stage = Stage::new();
    let locks = stage.locks();
    let long = locks.lock("long").ttl(3600 * SECOND).acquire().await.unwrap();
    stage.pass(SECOND).await;
    let short = locks.lock("short").ttl(SECOND).acquire().await.unwrap();
    stage.pass(TTL).await;
    assert!(short.is_valid() && long.is_valid());
}

#[tokio::test(start_paused = true)]
async fn giving_back_what_came_too_late_holds_up_nobody() {
    let mut hooked = Hooked::new();
    hooked.can.grouping = NonZeroUsize::new(1000);
    let clock = hooked.clock.clone();
    hooked.on_renew = Box::new(move |_, asked, store| {
        let clock = clock.clone();
        Box::pin(async move {
            let answers = renewed(asked, store).await;
            pass(&clock, Duration::from_millis(7_500)).await;
            answers
        })
    });
    let clock = hooked.clock.clone();
    hooked.on_release = Box::new(move |_, asked, store| {
        let clock = clock.clone();
        Box::pin(async move {
            pass(&clock, 5 * SECOND).await;
            released(asked, store).await
        })
    });
    let (locks, clock) = hooked.locks();
    let too_late = locks.lock("a").ttl(TTL).acquire().await.unwrap();
    let in_time = locks.lock("b").ttl(Duration::from_millis(11_500)).acquire().await.unwrap();
    pass(&clock, Duration::from_millis(11_600)).await;
    assert!(!too_late.is_valid());
    assert!(in_time.is_valid(), "renewed by the same request: {:?}", in_time.check());
}

#[tokio::test(start_paused = true)]
async fn the_margin_is_at_least_the_granularity_for_grants_and_for_renewals() {
    let mut hooked = Hooked::new();
    hooked.can.ttl.granularity = SECOND;
    let (locks, clock) = hooked.locks();
    let guard = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    assert!(guard.remaining() <= TTL - SECOND);
    for _ in 0..100 {
        pass(&clock, Duration::from_millis(100)).await;
        assert!(guard.remaining() <= TTL - SECOND, "{:?}", guard.remaining());
    }
}
