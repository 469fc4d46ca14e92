//! Ticks: at most once by default, at least once if asked, and honest when nobody knows.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

mod support;

use std::time::Duration;

use lock_core::*;
use support::{Mishap, Stage};

const TTL: Duration = Duration::from_secs(10);

async fn run(locks: &Locks, tick: u64) -> Result<Outcome<()>, LockError> {
    locks.lock("x").ttl(TTL).no_wait().tick(Tick(tick)).run_or_skip(|_| async {}).await
}

#[tokio::test(start_paused = true)]
async fn a_short_job_runs_on_one_node() {
    let stage = Stage::new();
    let nodes = [stage.locks(), stage.locks(), stage.locks()];
    for tick in 1..=20 {
        let mut ran = 0;
        for node in &nodes {
            match run(node, tick).await.unwrap() {
                Outcome::Ran(()) => ran += 1,
                Outcome::Skipped(Skipped::Finished(finished)) => assert_eq!(finished.last, Tick(tick)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ran, 1, "tick {tick}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_is_not_run_again_after_it_was_cut_short() {
    let stage = Stage::new();
    let cut = tokio::time::timeout(
        Duration::from_secs(1),
        stage.locks().lock("x").ttl(TTL).tick(Tick(5)).run_or_skip(|_| std::future::pending::<()>()),
    );
    assert!(cut.await.is_err());
    stage.pass(TTL).await;
    assert!(matches!(run(&stage.locks(), 5).await, Ok(Outcome::Skipped(Skipped::Finished(_)))));
    assert_eq!(run(&stage.locks(), 6).await.unwrap(), Outcome::Ran(()));
}

#[tokio::test(start_paused = true)]
async fn with_retry_only_work_that_ended_well_uses_it_up() {
    let stage = Stage::new();
    let lock = || stage.locks().lock("x").ttl(TTL).no_wait().tick(Tick(5)).retry();

    lock().run_or_skip(|lease| async move { lease.fail() }).await.unwrap().ran().unwrap();
    let dropped = tokio::time::timeout(Duration::from_secs(1), lock().run_or_skip(|_| std::future::pending::<()>()));
    assert!(dropped.await.is_err());
    stage.pass(Duration::from_millis(1)).await;
    let lost = lock().at_most_for(Duration::from_secs(1)).run_or_skip(|_| std::future::pending::<()>()).await;
    assert!(matches!(lost, Err(LockError::Lost(_))), "{lost:?}");
    let judged = lock().run_judged(|_| async { Err::<(), _>("no") }, Result::is_err).await.unwrap();
    assert_eq!(judged, Outcome::Ran(Err("no")));
    drop(lock().acquire().await.unwrap());
    stage.pass(Duration::from_millis(1)).await;
    let panicked = tokio::spawn(lock().run_or_skip(|_| async { panic!("on purpose") })).await;
    assert!(panicked.unwrap_err().is_panic());

    assert_eq!(lock().run_or_skip(|_| async { 7 }).await.unwrap(), Outcome::Ran(7), "each of them left it to be run");
    let again = lock().run_or_skip(|_| async { 8 }).await.unwrap();
    assert!(matches!(again.skipped(), Some(Skipped::Finished(_))), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_learns_that_the_tick_was_finished_meanwhile() {
    let stage = Stage::new();
    let holder = stage.locks().lock("x").ttl(TTL).tick(Tick(5)).retry().acquire().await.unwrap();
    let waiter = stage.locks().lock("x").ttl(TTL).tick(Tick(5)).retry();
    let (waited, ()) = tokio::join!(waiter.run(|_| async {}), async {
        stage.pass(Duration::from_secs(3)).await;
        holder.release().await.unwrap();
    });
    assert!(matches!(waited, Err(LockError::Finished(_))), "{waited:?}");
    assert!(stage.is_free("x").await);
    let tried = stage.locks().lock("x").tick(Tick(4)).try_acquire().await.unwrap();
    assert!(tried.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_made_good_by_the_same_calls_next_attempt() {
    let stage = Stage::new();
    stage.next(Operation::Acquire, Mishap::ReplyLost);
    assert_eq!(run(&stage.locks(), 5).await.unwrap(), Outcome::Ran(()));
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_this_call_may_have_used_up_is_not_told_as_anothers() {
    // Granted, and the answer came after the lease: by then the store calls the tick used up.
    let stage = Stage::new();
    stage.next(Operation::Acquire, Mishap::Late(TTL * 2));
    let outcome = run(&stage.locks(), 5).await;
    let Err(LockError::Store(error)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((error.applied(), error.is_transient()), (Applied::Maybe, false), "{error}");
    assert!(error.to_string().contains("tick 0.000005"), "{error}");

    // The same after a lost answer, when the next attempt comes too late.
    stage.next(Operation::Acquire, Mishap::ReplyLost);
    stage.next(Operation::Acquire, Mishap::None);
    let clock = stage.clock().clone();
    let node = Locks::builder(Suspended(stage.clone())).clock(clock).build();
    let outcome = run(&node, 6).await;
    assert!(matches!(&outcome, Err(LockError::Store(error)) if error.applied() == Applied::Maybe), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_an_attempt_under_way_may_use_up_is_not_told_as_held() {
    let stage = Stage::new();
    let other = stage.hold("x").await.unwrap();
    // The second answer, a grant, is under way when the time to wait is over.
    stage.next(Operation::Acquire, Mishap::None);
    stage.next(Operation::Acquire, Mishap::None);
    stage.next(Operation::Acquire, Mishap::Late(Duration::from_secs(60)));
    let (outcome, ()) = tokio::join!(
        stage.locks().lock("x").ttl(TTL).tick(Tick(5)).wait_at_most(Duration::from_secs(5)).run_or_skip(|_| async {}),
        async {
            stage.pass(Duration::from_secs(4)).await;
            other.release().await.unwrap();
        }
    );
    assert!(matches!(&outcome, Err(LockError::Store(error)) if error.applied() == Applied::Maybe), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_doubt_makes_the_call_one_whatever_failed_after_it() {
    let stage = Stage::new();
    for mishap in [Mishap::ReplyLost, Mishap::Refused, Mishap::Refused] {
        stage.next(Operation::Acquire, mishap);
    }
    let outcome = run(&stage.locks(), 5).await;
    let Err(LockError::Store(error)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((error.applied(), error.kind()), (Applied::Maybe, ErrorKind::Unreachable), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_joined_run_that_failed_leaves_the_tick_to_be_run_again() {
    let stage = Stage::new();
    let locks = stage.locks();
    let lock = || locks.lock("x").ttl(TTL).no_wait().reentrant().tick(Tick(5)).retry();
    let part = || lock().run_judged(|_| async { Err::<(), _>("no") }, Result::is_err);
    lock().run(|_| async { part().await.unwrap().ran().unwrap().unwrap_err() }).await.unwrap();
    lock().run(|_| async {}).await.unwrap();
    assert!(matches!(lock().run(|_| async {}).await, Err(LockError::Finished(_))));
}

#[tokio::test(start_paused = true)]
async fn a_tick_out_of_range_is_refused_unsent() {
    let stage = Stage::new();
    let error = run(&stage.locks(), Tick::MAX.0 + 1).await.unwrap_err();
    assert!(matches!(&error, LockError::Store(error) if error.kind() == ErrorKind::InvalidTtl), "{error}");
    let stage = Stage::with(|can| can.ticks = false);
    let error = run(&stage.locks(), 1).await.unwrap_err();
    assert!(matches!(&error, LockError::Store(error) if error.kind() == ErrorKind::Unsupported), "{error}");
}

/// Stands still for two ttls after each failed acquire.
#[derive(Debug)]
struct Suspended(Stage);

#[async_trait::async_trait]
impl LockProvider for Suspended {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }
    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        let answer = self.0.acquire(request).await;
        if answer.is_err() {
            self.0.clock().suspend(TTL * 2);
        }
        answer
    }
    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        self.0.renew(request).await
    }
    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        self.0.release(request).await
    }
    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        self.0.watch(name, owner).await
    }
    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        self.0.inspect(name).await
    }
    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.0.list(request).await
    }
    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        self.0.force_release(name).await
    }
}
