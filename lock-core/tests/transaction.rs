//! Work in a transaction under a lock: kept as a whole if the lease held to its end, and else not at all.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

mod support;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use lock_core::*;
use support::Stage;

const TTL: Duration = Duration::from_secs(10);

/// A list that is kept in transactions, and what its commit is to meet with.
#[derive(Default)]
struct Ledger {
    kept: Arc<Mutex<Vec<&'static str>>>,
    commit_takes: Duration,
    holds_no_more: bool,
    roll_back: RollBack,
    abandoned: Arc<AtomicUsize>,
}

/// What becomes of a roll-back.
#[derive(Clone, Copy, Default)]
enum RollBack {
    #[default]
    Done,
    /// The work had ended its transaction itself.
    EndedBefore,
    /// The connection says nothing.
    Silent,
}

struct Draft(Vec<&'static str>);

impl Drop for Draft {
    /// A driver gives its connection back in a task.
    fn drop(&mut self) {
        tokio::spawn(std::future::ready(()));
    }
}

#[async_trait]
impl Transactions for Ledger {
    type Transaction = Draft;

    async fn begin(&self, _: &Fence) -> Result<Draft, FenceError> {
        Ok(Draft(Vec::new()))
    }

    async fn commit(&self, mut draft: Draft, fence: &Fence) -> Result<(), FenceError> {
        tokio::time::sleep(self.commit_takes).await;
        if self.holds_no_more {
            return Err(NotHeld { lock: fence.lock().clone(), token: fence.token() }.into());
        }
        self.kept.lock().unwrap().append(&mut draft.0);
        Ok(())
    }

    async fn roll_back(&self, _: Draft) -> Result<(), StoreError> {
        match self.roll_back {
            RollBack::Done => Ok(()),
            RollBack::EndedBefore => Err(StoreError::unknown(ErrorKind::Other, "it had ended")),
            RollBack::Silent => std::future::pending().await,
        }
    }

    fn abandon(&self, _: Draft) {
        self.abandoned.fetch_add(1, Ordering::SeqCst);
    }
}

impl Ledger {
    fn kept(&self) -> Vec<&'static str> {
        self.kept.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_done_under_the_lease_is_kept() {
    let (stage, ledger) = (Stage::new(), Ledger::default());
    let kept = ledger.kept.clone();
    // In a task: the future can be sent.
    let lock = stage.locks().lock("x").ttl(TTL);
    let done = tokio::spawn(async move {
        let work = async |draft: &mut Draft, lease: &Lease| {
            draft.0.push("a");
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(current().unwrap().token(), lease.token());
            draft.0.push("b");
            Ok::<_, ()>(draft.0.len())
        };
        lock.run_in_transaction(&ledger, work).await
    });
    assert_eq!(done.await.unwrap().unwrap(), 2);
    assert_eq!(*kept.lock().unwrap(), ["a", "b"]);
    assert!(stage.is_free("x").await);
}

#[tokio::test(start_paused = true)]
async fn work_that_fails_or_panics_leaves_nothing() {
    let (stage, ledger) = (Stage::new(), Ledger::default());
    let failed = stage.locks().lock("x").ttl(TTL).run_in_transaction(&ledger, async |draft, _| {
        draft.0.push("a");
        Err::<(), _>("on purpose")
    });
    let error = failed.await.unwrap_err();
    assert!(matches!(error, TransactionError::Work("on purpose")), "{error:?}");
    assert_eq!(error.applied(), Applied::No);
    let panics = stage.locks().lock("x").ttl(TTL).run_in_transaction(&ledger, async |draft, _| {
        draft.0.push("a");
        if draft.0.len() == 1 {
            panic!("on purpose");
        }
        Ok::<_, ()>(())
    });
    AssertUnwindSafe(panics).catch_unwind().await.map(|_| ()).unwrap_err();
    assert!(stage.is_free("x").await);
    assert!(ledger.kept().is_empty());
}

/// Nobody else could put its connection right.
#[tokio::test(start_paused = true)]
async fn a_transaction_whose_work_is_broken_off_is_left_to_its_store_once() {
    let (stage, ledger) = (Stage::new(), Ledger::default());
    let lock = || stage.locks().lock("x").ttl(TTL);
    let abandoned = || ledger.abandoned.load(Ordering::SeqCst);
    lock().run_in_transaction(&ledger, async |_, _| Ok::<_, ()>(())).await.unwrap();
    lock().run_in_transaction(&ledger, async |_, _| Err::<(), _>(())).await.unwrap_err();
    assert_eq!(abandoned(), 0, "of those that came to their end");
    let panics = lock().run_in_transaction(&ledger, async |draft, _| {
        assert!(!draft.0.is_empty(), "on purpose");
        Ok::<_, ()>(())
    });
    AssertUnwindSafe(panics).catch_unwind().await.map(|_| ()).unwrap_err();
    assert_eq!(abandoned(), 1);
    let dropped = lock().run_in_transaction(&ledger, async |_, _| std::future::pending::<Result<(), ()>>().await);
    tokio::time::timeout(Duration::from_secs(1), dropped).await.map(|_| ()).unwrap_err();
    assert_eq!(abandoned(), 2);
}

/// What is under way is let go of as it would be in the runtime: the work's transaction, a commit, a roll-back.
#[test]
fn what_is_dropped_outside_of_its_runtime_is_dropped_as_in_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let hour = Duration::from_secs(3600);
    for (takes, fails) in [(hour, false), (Duration::ZERO, false), (Duration::ZERO, true)] {
        let stage = runtime.block_on(async { Stage::new() });
        let ledger = Ledger { commit_takes: hour, roll_back: RollBack::Silent, ..Ledger::default() };
        let run = stage.locks().lock("x").ttl(TTL).run_in_transaction(&ledger, async |_, _| {
            tokio::time::sleep(takes).await;
            if fails { Err(()) } else { Ok(()) }
        });
        let mut run = Box::pin(run);
        let cut_off = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), &mut run).await });
        assert!(cut_off.is_err(), "{takes:?}, {fails}");
        drop(run);
        assert_eq!(ledger.abandoned.load(Ordering::SeqCst), usize::from(takes == hour));
        assert_eq!(ledger.kept(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_before_the_work_is_done_undoes_it() {
    let (stage, ledger) = (Stage::new(), Ledger::default());
    let outcome = stage.locks().lock("x").ttl(TTL).run_in_transaction(&ledger, async |draft, _| {
        draft.0.push("a");
        stage.set_down(true);
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok::<_, ()>(())
    });
    let error = outcome.await.unwrap_err();
    assert!(matches!(error, TransactionError::Lock(LockError::Lost(_))), "{error:?}");
    assert!(ledger.kept().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_holds_no_more_at_the_commit_undoes_it() {
    let (stage, ledger) = (Stage::new(), Ledger { holds_no_more: true, ..Ledger::default() });
    let outcome = stage.locks().lock("x").ttl(TTL).run_in_transaction(&ledger, async |draft, _| {
        draft.0.push("a");
        Ok::<_, ()>(())
    });
    let error = outcome.await.unwrap_err();
    assert!(matches!(error, TransactionError::Fence(FenceError::NotHeld(_))), "{error:?}");
    assert!(ledger.kept().is_empty() && stage.is_free("x").await);
}

/// The store holds the lock for the transaction, whatever this process believes; broken off, its outcome would be unknown.
#[tokio::test(start_paused = true)]
async fn a_commit_that_was_begun_is_not_broken_off_by_a_loss() {
    let (stage, ledger) = (Stage::new(), Ledger { commit_takes: Duration::from_secs(60), ..Ledger::default() });
    let outcome = stage.locks().lock("x").ttl(TTL).run_in_transaction(&ledger, async |draft, _| {
        draft.0.push("a");
        stage.set_down(true);
        Ok::<_, ()>(())
    });
    outcome.await.unwrap();
    assert_eq!(ledger.kept(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_roll_back_that_says_nothing_holds_nobody_up_for_long() {
    let (stage, ledger) = (Stage::new(), Ledger { roll_back: RollBack::Silent, ..Ledger::default() });
    let begun = stage.clock().now();
    let outcome = stage.locks().lock("x").ttl(TTL).run_in_transaction(&ledger, async |_, _| Err::<(), _>("on purpose"));
    assert!(matches!(outcome.await.unwrap_err(), TransactionError::Work("on purpose")));
    assert!(stage.clock().now().since(begun) < Duration::from_secs(6) && stage.is_free("x").await);
}

#[tokio::test(start_paused = true)]
async fn what_stands_though_the_work_failed_is_told() {
    let (stage, ledger) = (Stage::new(), Ledger { roll_back: RollBack::EndedBefore, ..Ledger::default() });
    let outcome = stage.locks().lock("x").ttl(TTL).run_in_transaction(&ledger, async |_, _| Err::<(), _>("on purpose"));
    let error = outcome.await.unwrap_err();
    assert!(matches!(error, TransactionError::Fence(FenceError::Store(_))), "{error:?}");
    assert_eq!(error.applied(), Applied::Maybe);
}

/// The work around it may know what to do: its own tick is used up if it ends well.
#[tokio::test(start_paused = true)]
async fn joined_work_that_fails_does_not_fail_the_work_around_it() {
    let (stage, ledger) = (Stage::new(), Ledger::default());
    let locks = stage.locks();
    let outer = |tick| locks.lock("x").ttl(TTL).tick(Tick(tick)).retry();
    let ran = outer(5).run(|_| async {
        let inner = locks.lock("x").ttl(TTL).reentrant();
        inner.run_in_transaction(&ledger, async |_, _| Err::<(), _>("on purpose")).await.unwrap_err();
    });
    ran.await.unwrap();
    assert!(matches!(outer(5).run(|_| async {}).await, Err(LockError::Finished(_))));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_get_the_lock_does_nothing() {
    let (stage, ledger) = (Stage::new(), Ledger::default());
    let _other = stage.hold("x").await.unwrap();
    let outcome = stage.locks().lock("x").ttl(TTL).no_wait().run_in_transaction(&ledger, async |_, _| Ok::<_, ()>(()));
    let error = outcome.await.unwrap_err();
    assert!(matches!(error, TransactionError::Lock(LockError::Busy(_))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn joined_work_has_a_transaction_of_its_own_under_the_same_lease() {
    let (stage, ledger) = (Stage::new(), Ledger::default());
    let locks = stage.locks();
    let tokens = locks.lock("x").ttl(TTL).run(|outer| {
        let inner = locks.lock("x").ttl(TTL).reentrant();
        let ledger = &ledger;
        async move {
            let inner = inner.run_in_transaction(ledger, async |draft, lease| {
                draft.0.push("a");
                Ok::<_, ()>(lease.token())
            });
            (outer.token(), inner.await.unwrap(), outer.is_valid())
        }
    });
    let (outer, inner, still) = tokens.await.unwrap();
    assert!(outer == inner && still);
    assert_eq!(ledger.kept(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_commit_is_counted_under_the_class_of_its_lock() {
    let (stage, told) = (Stage::new(), Arc::new(TestObserver::default()));
    let locks = Locks::builder(stage.clone()).clock(stage.clock().clone()).observer(told.clone()).build();
    for holds_no_more in [false, true] {
        let ledger = Ledger { holds_no_more, ..Ledger::default() };
        let lock = locks.lock("invoice-7").class("invoice").ttl(TTL);
        let done = lock.run_in_transaction(&ledger, async |_, _| Ok::<_, ()>(())).await;
        assert_eq!(done.is_err(), holds_no_more);
    }
    let told = told.take();
    let refused: Vec<_> = told.iter().filter(|told| matches!(told.event, Event::FenceRefused { .. })).collect();
    let [refused] = refused[..] else { panic!("{told:?}") };
    assert_eq!(refused.event, Event::FenceRefused { reason: RefusalReason::NotHeld });
    assert_eq!(refused.class.as_deref(), Some("invoice"));
}
