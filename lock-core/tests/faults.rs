//! Stores that stall, fail, answer late or less than asked, and runtimes that end: what the client makes of them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

mod support;

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
use support::{
    Mishap, Stage,
    hooked::{Hooked, acquired, released, renewed},
};
use tokio::runtime::Runtime;

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn down<A>(count: usize) -> Vec<Result<A, StoreError>> {
    (0..count).map(|_| Err(StoreError::refused(ErrorKind::Unreachable, "down"))).collect()
}

async fn pass(clock: &TestClock, by: Duration) {
    clock.sleep_until(clock.now() + by).await;
}

fn runtime(workers: usize) -> Runtime {
    match workers {
        0 => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        workers => tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap(),
    }
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

#[tokio::test(start_paused = true)]
async fn the_time_to_wait_is_honoured_by_attempts_after_a_failure_too() {
    let stage = Stage::new();
    stage.next(Operation::Acquire, Mishap::Refused);
    stage.next(Operation::Acquire, Mishap::Late(60 * SECOND));
    let begun = stage.clock().now();
    let waited = stage.locks().lock("x").ttl(TTL).wait_at_most(Duration::from_millis(5)).acquire().await;
    assert!(waited.is_err());
    assert!(stage.clock().now().since(begun) < SECOND, "{:?}", stage.clock().now().since(begun));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_forgives_a_late_answer_after_an_outage() {
    let stage = Stage::new();
    let locks = stage.locks();
    stage.set_down(true);
    let waiter = tokio::spawn(async move { locks.lock("x").ttl(TTL).acquire().await });
    stage.pass(5 * SECOND).await;
    stage.next(Operation::Acquire, Mishap::Late(TTL));
    stage.set_down(false);
    assert!(waiter.await.unwrap().unwrap().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_only_ever_says_at_once_is_not_asked_all_the_time() {
    let mut hooked = Hooked::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    hooked.on_acquire = Box::new(move |_, _, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { vec![Ok(Acquired::Held(Held { remaining: Some(Duration::ZERO), ..Held::default() }))] })
    });
    let (locks, _) = hooked.locks();
    locks.lock("x").ttl(TTL).wait_at_most(TTL).acquire().await.unwrap_err();
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 20, "{asked} requests in 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_release_between_the_first_look_and_the_subscription_is_not_missed() {
    let mut hooked = Hooked::new();
    let seen: Arc<Mutex<Vec<Waiting>>> = Arc::default();
    let (waiting, store) = (seen.clone(), hooked.store.clone());
    let held = AcquireRequest::new(LockName::new("x").unwrap(), OwnerId::from_u128(1), 3600 * SECOND);
    hooked.on_acquire = Box::new(move |call, asked, store| {
        waiting.lock().unwrap().push(asked[0].waiting);
        let held = ReleaseRequest::new(held.name.clone(), held.owner, None);
        Box::pin(async move {
            let answers = acquired(asked, store.clone()).await;
            if call == 0 {
                // The holder goes while the answer is on its way, before anybody has subscribed.
                store.release(&held).await.unwrap();
            }
            answers
        })
    });
    let held = AcquireRequest::new(LockName::new("x").unwrap(), OwnerId::from_u128(1), 3600 * SECOND);
    store.acquire(&held).await.unwrap();
    let (locks, clock) = hooked.locks();
    let begun = clock.now();
    let guard = locks.lock("x").ttl(3600 * SECOND).acquire().await.unwrap();
    assert!(guard.is_valid() && clock.now().since(begun) < SECOND, "{:?}", clock.now().since(begun));
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], Waiting::No, "who may get it at once leaves no mark");
    assert!(matches!(seen[1], Waiting::Wake(span) if span > 3600 * SECOND), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_release_names_the_grant_and_the_lease_is_renewed_no_more() {
    let mut hooked = Hooked::new();
    let (tokens, renewals) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (seen, count) = (tokens.clone(), renewals.clone());
    hooked.on_release = Box::new(move |_, asked, store| {
        seen.lock().unwrap().extend(asked.iter().map(|request| request.token));
        Box::pin(released(asked, store))
    });
    hooked.on_renew = Box::new(move |_, asked, store| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(renewed(asked, store))
    });
    let (locks, clock) = hooked.locks();
    let guard = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let token = guard.token();
    guard.release().await.unwrap();
    pass(&clock, TTL).await;
    assert_eq!(*tokens.lock().unwrap(), [Some(token)]);
    assert_eq!(renewals.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn at_least_for_is_kept_by_the_process_where_the_store_can_not() {
    let mut hooked = Hooked::new();
    hooked.can.minimum_hold = KeptBy::Process;
    hooked.on_release = Box::new(|_, mut asked, store| {
        asked.iter_mut().for_each(|request| request.keep_for = Duration::ZERO);
        Box::pin(released(asked, store))
    });
    let (locks, clock) = hooked.locks();
    let begun = clock.now();
    let first = locks.lock("x").ttl(TTL).at_least_for(60 * SECOND).acquire().await.unwrap();
    assert_eq!(first.release().await.unwrap(), ReleaseOutcome::Released);
    assert_eq!(clock.now(), begun, "its holder needn't wait for that");
    let next = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let took = clock.now().since(begun);
    assert!(took >= 60 * SECOND && took < 61 * SECOND, "{took:?}");
    drop(next);
    locks.settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_at_least_for_that_no_store_keeps_is_refused_before_the_grant() {
    let stage = Stage::new();
    let error = stage.locks().lock("x").at_least_for(400 * 86400 * SECOND).acquire().await.unwrap_err();
    assert!(matches!(&error, LockError::Store(error) if error.kind() == ErrorKind::InvalidTtl), "{error:?}");
    assert_eq!(stage.asked(Operation::Acquire), 0);
}

#[tokio::test(start_paused = true)]
async fn work_is_not_polled_again_after_a_suspend_beyond_its_lease() {
    let stage = Stage::new();
    let polls = Arc::new(AtomicUsize::new(0));
    let (clock, count) = (stage.clock().clone(), polls.clone());
    let done: Result<(), _> = stage
        .locks()
        .lock("x")
        .ttl(TTL)
        .run(|_| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            clock.suspend(TTL * 2);
            tokio::task::yield_now().await;
            loop {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    assert!(matches!(done, Err(LockError::Lost(_))));
    assert_eq!(polls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn run_does_not_wait_long_for_a_release_that_takes_long() {
    let stage = Stage::new();
    let (store, begun) = (stage.clone(), stage.clock().now());
    let run = stage.locks().lock("x").ttl(60 * SECOND).run(|_| async move { store.set_down(true) });
    run.await.unwrap();
    assert!(stage.clock().now().since(begun) <= 6 * SECOND);
    stage.set_down(false);
    stage.pass(2 * SECOND).await;
    assert!(stage.is_free("x").await, "the release went on behind");
}

#[tokio::test]
async fn a_panic_in_a_provider_strands_nobody() {
    let mut hooked = Hooked::new();
    hooked.can.grouping = NonZeroUsize::new(8);
    hooked.on_acquire = Box::new(|call, asked, store| {
        Box::pin(async move {
            SystemClock.sleep_until(SystemClock.now() + Duration::from_millis(20)).await;
            assert!(call >= 2, "a driver's bug");
            acquired(asked, store).await
        })
    });
    let (locks, _) = hooked.locks();
    let wishes = (0..40).map(|number| locks.lock(format!("lock-{number}")).try_acquire());
    let answers = tokio::time::timeout(5 * SECOND, futures_util::future::join_all(wishes)).await.unwrap();
    let granted = answers.iter().filter(|answer| matches!(answer, Ok(Some(_)))).count();
    assert!(granted >= 24, "those behind the two groups that panicked: {granted}");
}

#[test]
fn an_acquire_dropped_outside_any_runtime_leaves_nothing_held() {
    let mut hooked = runtime(0).block_on(async { Hooked::new() });
    let store = MemoryLocks::new();
    let behind = store.clone();
    hooked.on_acquire = Box::new(move |_, asked, _| {
        let store = behind.clone();
        Box::pin(async move {
            let answers = acquired(asked, store).await;
            SystemClock.sleep_until(SystemClock.now() + Duration::from_millis(100)).await;
            answers
        })
    });
    let behind = store.clone();
    hooked.on_release = Box::new(move |_, asked, _| Box::pin(released(asked, behind.clone())));
    let locks = Locks::new(hooked);
    let runtime = runtime(1);
    let mut acquiring = Box::pin(locks.lock("x").ttl(TTL).acquire());
    runtime.block_on(async {
        let _ = tokio::time::timeout(Duration::from_millis(20), &mut acquiring).await;
    });
    drop(acquiring);
    runtime.block_on(locks.settled());
    let status = runtime.block_on(store.inspect(&LockName::new("x").unwrap())).unwrap().unwrap();
    assert_eq!(status.state, LockState::Free);
}

#[test]
fn a_guard_can_be_released_in_another_runtime() {
    let locks = Locks::new(MemoryLocks::new());
    let first = runtime(0);
    let guard = first.block_on(async { locks.lock("x").acquire().await.unwrap() });
    let told = runtime(0).block_on(async { tokio::time::timeout(5 * SECOND, guard.release()).await });
    assert_eq!(told.unwrap().unwrap(), ReleaseOutcome::Released);
    let guard = first.block_on(async { locks.lock("x").acquire().await.unwrap() });
    drop(first);
    assert_eq!(runtime(0).block_on(guard.release()).unwrap(), ReleaseOutcome::Released);
}

/// The host's clock, which stops the thread `asker` at its n-th look until it may go on.
#[derive(Debug)]
struct Gate {
    looks_left: AtomicUsize,
    reached: Mutex<Option<std::sync::mpsc::Sender<()>>>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

#[async_trait::async_trait]
impl Clock for Gate {
    fn now(&self) -> Moment {
        let asker = std::thread::current().name() == Some("asker");
        if asker && self.looks_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let reached = self.reached.lock().unwrap().take();
            reached.unwrap().send(()).unwrap();
            let _ = self.go_on.lock().unwrap().recv();
        }
        SystemClock.now()
    }
    fn wall_micros(&self) -> u64 {
        SystemClock.wall_micros()
    }
    async fn sleep_until(&self, at: Moment) {
        SystemClock.sleep_until(at).await;
    }
}

#[test]
fn an_acquire_whose_runtime_shuts_down_does_not_hang_its_thread() {
    for look in 1..=8 {
        let (reached, is_reached) = std::sync::mpsc::channel();
        let (go, go_on) = std::sync::mpsc::channel();
        let (ended, has_ended) = std::sync::mpsc::channel();
        let gate = Gate { looks_left: look.into(), reached: Mutex::new(Some(reached)), go_on: Mutex::new(go_on) };
        let locks = Locks::builder(MemoryLocks::new()).clock(Arc::new(gate)).build();
        let runtime = runtime(2);
        let handle = runtime.handle().clone();
        let asking = move || {
            let _ = handle.block_on(locks.lock("x").no_wait().acquire());
            let _ = ended.send(());
        };
        let asking = std::thread::Builder::new().name("asker".to_owned()).spawn(asking).unwrap();
        if is_reached.recv_timeout(SECOND).is_err() {
            // It takes fewer looks than that.
            continue;
        }
        drop(runtime);
        go.send(()).unwrap();
        // With its runtime gone it may fail, or panic as tokio's timers do; it must come to an end.
        let end = has_ended.recv_timeout(20 * SECOND);
        assert_ne!(end, Err(std::sync::mpsc::RecvTimeoutError::Timeout), "it hangs, stopped at look {look}");
        let _ = asking.join();
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_up_while_the_store_is_asked_once_more_is_told_as_what_it_said_last() {
    let mut hooked = Hooked::new();
    hooked.can.wake = Wake::Poll(Duration::from_millis(100));
    let clock = hooked.clock.clone();
    hooked.on_acquire = Box::new(move |call, asked, store| {
        let clock = clock.clone();
        Box::pin(async move {
            if call > 1 {
                pass(&clock, 60 * SECOND).await;
            }
            acquired(asked, store).await
        })
    });
    let (locks, clock) = hooked.locks();
    let held = locks.lock("x").ttl(TTL).label("the first").acquire().await.unwrap();
    let begun = clock.now();
    let error = locks.lock("x").wait_at_most(SECOND).acquire().await.unwrap_err();
    assert!(
        matches!(&error, LockError::Busy(busy) if busy.held.holder.as_ref().unwrap().label == "the first"),
        "{error:?}"
    );
    assert!(clock.now().since(begun) < SECOND + Duration::from_millis(5));
    drop(held);
}
