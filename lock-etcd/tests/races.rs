//! An entry's end, and an answer that comes at the same moment: what is told holds, and nothing stays behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Place, ask, pass, seconds};
use conformance_tests::Proxy;
use lock_core::{
    AcquireRequest, Acquired, Clock, Grant, LockProvider, LockState, Moment, OwnerId, ReleaseRequest, RenewRequest,
    Renewed, SystemClock, Waiting,
};
use lock_etcd::EtcdLocks;
use testbed::PrivateServer;

/// So many at once, that one or the other meets the moment.
const MANY: usize = 40;

fn name(number: usize) -> String {
    format!("x/{number}")
}

async fn until(moment: Moment) {
    SystemClock.sleep_until(moment).await;
}

/// Lets the server stand still from one moment to another.
async fn standstill(server: &PrivateServer, from: Moment, to: Moment) {
    until(from).await;
    server.pause().unwrap();
    until(to).await;
    server.unpause().unwrap();
}

fn grant(answer: &Acquired) -> Option<Grant> {
    match answer {
        Acquired::Granted(grant) => Some(*grant),
        _ => None,
    }
}

/// How many of those that were told that they hold a lock were told so while another can have it.
async fn twice(told: &[bool], other: &EtcdLocks, ttl: Duration) -> usize {
    let mut twice = 0;
    for (number, _) in told.iter().enumerate().filter(|(_, told)| **told) {
        // What its own process deletes at this moment is gone by then.
        pass(Duration::from_millis(20)).await;
        twice += usize::from(grant(&other.acquire(&ask(&name(number), ttl)).await.unwrap()).is_some());
    }
    twice
}

/// Waiters who ask again just before their place is over, of a server that answers after it.
async fn a_place_that_is_over_is_not_granted() {
    let place = Place::alone().await;
    let (holder, waiter, other) = (place.locks().await, place.locks().await, place.locks().await);
    let ttl = seconds(10);
    let mut held = Vec::new();
    for number in 0..MANY {
        let request = ask(&name(number), ttl);
        let token = grant(&holder.acquire(&request).await.unwrap()).unwrap().token;
        held.push(ReleaseRequest::new(request.name, request.owner, Some(token)));
    }
    let begun = SystemClock.now();
    let asks: Vec<_> =
        (0..MANY).map(|number| AcquireRequest { waiting: Waiting::InLine(ttl), ..ask(&name(number), ttl) }).collect();
    for request in &asks {
        assert!(matches!(waiter.acquire(request).await.unwrap(), Acquired::Held(_)));
    }
    for release in &held {
        holder.release(release).await.unwrap();
    }
    let ask_at = begun + Duration::from_millis(9500);
    let calls: Vec<_> = asks
        .into_iter()
        .map(|request| {
            let waiter = waiter.clone();
            tokio::spawn(async move {
                until(ask_at).await;
                waiter.acquire(&request).await.is_ok_and(|answer| grant(&answer).is_some())
            })
        })
        .collect();
    standstill(&place.server, begun + Duration::from_millis(9400), begun + Duration::from_millis(10_700)).await;
    let mut told = Vec::new();
    for call in calls {
        told.push(call.await.unwrap());
    }
    assert_eq!(
        twice(&told, &other, ttl).await,
        0,
        "of {} that were granted",
        told.iter().filter(|told| **told).count()
    );
}

/// Holders who renew, or ask again, just before their end, of a server that answers after it.
async fn a_hold_that_is_over_is_not_told_to_be_held(renews: bool) {
    let place = Place::alone().await;
    let (holder, other) = (place.locks().await, place.locks().await);
    let ttl = seconds(8);
    let begun = SystemClock.now();
    let mut held = Vec::new();
    for number in 0..MANY {
        let request = ask(&name(number), ttl);
        let token = grant(&holder.acquire(&request).await.unwrap()).unwrap().token;
        held.push((request, token));
    }
    // Keeps the lease alive that they share.
    let warm = ask("warm", ttl);
    let token = grant(&holder.acquire(&warm).await.unwrap()).unwrap().token;
    let again = RenewRequest::new(warm.name.clone(), warm.owner, token, ttl);
    for millis in [3000, 5500, 7200] {
        until(begun + Duration::from_millis(millis)).await;
        holder.renew(&again).await.unwrap();
    }
    let ask_at = begun + Duration::from_millis(7500);
    let calls: Vec<_> = held
        .into_iter()
        .map(|(request, token)| {
            let holder = holder.clone();
            tokio::spawn(async move {
                until(ask_at).await;
                if renews {
                    let renew = RenewRequest::new(request.name, request.owner, token, ttl);
                    matches!(holder.renew(&renew).await, Ok(Renewed::Held(_)))
                } else {
                    holder.acquire(&request).await.is_ok_and(|answer| grant(&answer).is_some())
                }
            })
        })
        .collect();
    standstill(&place.server, begun + Duration::from_millis(7300), begun + Duration::from_millis(8500)).await;
    let mut told = Vec::new();
    for call in calls {
        told.push(call.await.unwrap());
    }
    assert_eq!(
        twice(&told, &other, ttl).await,
        0,
        "of {} that were told so",
        told.iter().filter(|told| **told).count()
    );
}

async fn a_renewal_at_the_end_is_true() {
    a_hold_that_is_over_is_not_told_to_be_held(true).await;
}

async fn a_second_acquire_at_the_end_is_true() {
    a_hold_that_is_over_is_not_told_to_be_held(false).await;
}

/// Its move to another lease is in doubt when an entry's end comes: it is deleted there, though that lease lives on.
async fn an_entry_that_was_moved_in_doubt_ends_all_the_same() {
    let place = Place::alone().await;
    let proxy = Proxy::start(place.host_port().to_owned()).await.unwrap();
    let by_proxy = place.url().replacen(place.host_port(), &proxy.address().to_string(), 1);
    let builder = EtcdLocks::builder(by_proxy).prefix(&place.prefix);
    let locks = builder.operation_timeout(Duration::from_millis(600)).build().await.unwrap();
    let other = place.locks().await;
    let ttl = seconds(4);
    let mut mine = ask("mine", ttl);
    mine.holder.label = "the-label-of-mine".to_owned();
    let token = grant(&locks.acquire(&mine).await.unwrap()).unwrap().token;
    let kept = ask("kept", ttl);
    let kept_token = grant(&locks.acquire(&kept).await.unwrap()).unwrap().token;
    let keep = RenewRequest::new(kept.name.clone(), kept.owner, kept_token, ttl);
    // A doubt about another lock: from now on there is another lease.
    let lost = proxy.lose_reply_to("doubted");
    let _ = locks.acquire(&ask("doubted", ttl)).await;
    lost.await.unwrap();
    locks.renew(&keep).await.unwrap();
    // The move of the first is applied, and its answer lost; then the store is out of reach for a moment.
    let lost = proxy.lose_reply_to("the-label-of-mine");
    let renew = RenewRequest::new(mine.name.clone(), mine.owner, token, ttl);
    let cut = async {
        lost.await.unwrap();
        proxy.refuse(true);
    };
    let (renewed, ()) = tokio::join!(locks.renew(&renew), cut);
    proxy.refuse(false);
    println!("the renewal whose move is in doubt: {renewed:?}");
    // Nobody renews it any more, while the other one is kept.
    let renewed = SystemClock.now();
    while SystemClock.now().since(renewed) < ttl + seconds(3) {
        pass(Duration::from_millis(700)).await;
        let _ = locks.renew(&keep).await;
    }
    let state = other.inspect(&mine.name).await.unwrap().map(|status| status.state);
    assert!(matches!(state, None | Some(LockState::Free)), "{state:?}");
    let owner = OwnerId::from_u128(7);
    assert!(grant(&other.acquire(&AcquireRequest { owner, ..mine }).await.unwrap()).is_some());
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    a_place_that_is_over_is_not_granted,
    a_renewal_at_the_end_is_true,
    a_second_acquire_at_the_end_is_true,
    an_entry_that_was_moved_in_doubt_ends_all_the_same,
);
