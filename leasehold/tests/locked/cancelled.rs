//! Dropped at any point, a locked function leaves the lock free within one round trip.

use std::{
    pin::pin,
    task::{Context, Waker},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use leasehold::{
    AcquireRequest, Acquired, Capabilities, ListRequest, LockName, LockProvider, LockStatus, OwnerId, ReleaseRequest,
    Released, RenewRequest, Renewed, StoreError, Watch, prelude::*, testing::Stage, with_locks,
};

/// Requests that yield on their way to the store and on their way back, so that there is more to be dropped at.
#[derive(Debug)]
struct Slow(Stage);

async fn there<T>(request: impl Future<Output = T>) -> T {
    for _ in 0..2 {
        tokio::task::yield_now().await;
    }
    let answer = request.await;
    for _ in 0..2 {
        tokio::task::yield_now().await;
    }
    answer
}

#[async_trait]
impl LockProvider for Slow {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }
    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        there(self.0.acquire(request)).await
    }
    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        there(self.0.renew(request)).await
    }
    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        there(self.0.release(request)).await
    }
    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        there(self.0.watch(name, owner)).await
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

#[locked(name = "job")]
async fn plain() {
    work().await;
}

#[locked(name = "job", wait = "forever")]
async fn waiting() {
    work().await;
}

#[locked(name = "job", tick = SystemTime::UNIX_EPOCH)]
async fn ticked() {
    work().await;
}

#[locked(name = "job", tick = SystemTime::UNIX_EPOCH, retry)]
async fn retried() -> Result<(), ()> {
    work().await;
    Ok(())
}

#[locked(name = "job")]
async fn joined() {
    let _ = plain().await;
}

async fn work() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

/// Polls `job` up to `polls` times, with all that it spawned given its turn in between, then drops it; whether it completed.
async fn dropped_after<T>(polls: usize, locks: &Locks, job: impl Future<Output = T>) -> bool {
    let mut job = pin!(with_locks(locks.clone(), job));
    for _ in 0..polls {
        if job.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

/// Drops the job at each point at which it can be dropped.
async fn at_every_point<T, J: Future<Output = T>>(job: impl Fn() -> J, held_first: bool) {
    for polls in 0.. {
        assert!(polls < 1000, "it never completes");
        let stage = Stage::new();
        let locks = Locks::builder(Slow(stage.clone())).clock(stage.clock().clone()).build();
        let other = if held_first { Some(stage.hold("job").await.unwrap()) } else { None };
        let completed = {
            let release = async {
                if let Some(other) = other {
                    for _ in 0..15 {
                        tokio::task::yield_now().await;
                    }
                    other.release().await.unwrap();
                }
            };
            tokio::join!(dropped_after(polls, &locks, job()), release).0
        };
        // What is left to do ends by itself, and in no time: nothing waits for a ttl.
        let begun = tokio::time::Instant::now();
        locks.settled().await;
        assert!(begun.elapsed() < Duration::from_millis(50), "after {polls} polls: {:?}", begun.elapsed());
        assert!(stage.is_free("job").await, "after {polls} polls");
        let releases = stage.asked(leasehold::Operation::Release);
        assert!(releases <= 1, "{releases} releases after {polls} polls");
        if completed {
            assert!(polls > 8, "there was something to be dropped at: {polls}");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_plain_job() {
    at_every_point(plain, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waits() {
    at_every_point(waiting, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_for_a_tick() {
    at_every_point(ticked, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_for_a_tick_that_is_retried() {
    at_every_point(retried, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_within_a_job() {
    at_every_point(joined, false).await;
}
