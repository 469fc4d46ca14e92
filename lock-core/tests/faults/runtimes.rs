//! Runtimes that end, or that aren't there.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lock_core::*;
use tokio::runtime::Runtime;

use crate::{
    SECOND, TTL,
    support::hooked::{Hooked, acquired, released},
};

fn runtime(workers: usize) -> Runtime {
    match workers {
        0 => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        workers => tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap(),
    }
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
