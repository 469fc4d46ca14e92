//! Waiting in line at a store that keeps the order.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lock_core::*;

/// A store of one lock that keeps its askers in line, and wakes only who is next. It knows no expiry.
#[derive(Debug)]
struct Line {
    can: Capabilities,
    line: Mutex<VecDeque<OwnerId>>,
    tokens: Mutex<VecDeque<u64>>,
    wakes: WakeHub<OwnerId>,
    acquires: AtomicUsize,
    watches: AtomicUsize,
}

impl Line {
    fn new() -> Arc<Self> {
        let mut can = Capabilities::new("line");
        can.fairness = Fairness::Fifo;
        can.wake = Wake::Event;
        Arc::new(Self {
            can,
            line: Mutex::default(),
            tokens: Mutex::new((1..10_000).collect()),
            wakes: WakeHub::default(),
            acquires: 0.into(),
            watches: 0.into(),
        })
    }

    fn len(&self) -> usize {
        self.line.lock().unwrap().len()
    }

    async fn until_in_line(&self, count: usize) {
        while self.len() != count {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl LockProvider for Line {
    fn capabilities(&self) -> &Capabilities {
        &self.can
    }
    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        request.check(&self.can)?;
        self.acquires.fetch_add(1, Ordering::SeqCst);
        let mut line = self.line.lock().unwrap();
        if !line.contains(&request.owner) && (line.is_empty() || matches!(request.waiting, Waiting::InLine(_))) {
            line.push_back(request.owner);
        }
        if line.front() == Some(&request.owner) {
            let token = FencingToken::new(self.tokens.lock().unwrap().pop_front().unwrap());
            return Ok(Acquired::Granted(Grant::new(token, request.ttl)));
        }
        Ok(Acquired::Held(Held::default()))
    }
    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        Ok(Renewed::Held(request.ttl))
    }
    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        let mut line = self.line.lock().unwrap();
        let held = line.front() == Some(&request.owner);
        line.retain(|owner| *owner != request.owner);
        if let Some(next) = line.front() {
            self.wakes.wake_one(next);
        }
        Ok(if held { Released::Released } else { Released::NotHeld })
    }
    async fn watch(&self, _name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        self.watches.fetch_add(1, Ordering::SeqCst);
        Ok(self.wakes.subscribe(&owner))
    }
    async fn inspect(&self, _name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        Ok(None)
    }
    async fn list(&self, _request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        Ok(Vec::new())
    }
    async fn force_release(&self, _name: &LockName) -> Result<bool, StoreError> {
        Ok(false)
    }
}

fn locks(line: &Arc<Line>) -> Locks {
    Locks::builder_shared(line.clone()).build()
}

const TTL: Duration = Duration::from_secs(600);

#[tokio::test]
async fn fair_waiters_of_one_client_stand_in_line_each_and_each_release_wakes_one() {
    const WAITERS: usize = 100;
    let line = Line::new();
    let locks = locks(&line);
    let held = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for number in 0..WAITERS {
        let (locks, order) = (locks.clone(), order.clone());
        waiters.push(tokio::spawn(async move {
            let guard = locks.lock("x").ttl(TTL).fair().acquire().await.unwrap();
            order.lock().unwrap().push(number);
            guard.release().await.unwrap();
        }));
        line.until_in_line(number + 2).await;
    }
    assert_eq!(line.acquires.load(Ordering::SeqCst), 1 + WAITERS, "the place in line is taken with the first request");
    held.release().await.unwrap();
    for waiter in waiters {
        waiter.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..WAITERS).collect::<Vec<_>>());
    assert_eq!(line.acquires.load(Ordering::SeqCst), 1 + 2 * WAITERS, "each asks once more, when it is its turn");
}

#[tokio::test(start_paused = true)]
async fn who_stands_in_line_asks_once_per_ttl_at_most() {
    let line = Line::new();
    let clock = Arc::new(TestClock::new());
    let locks = Locks::builder_shared(line.clone()).clock(clock.clone()).build();
    let ttl = Duration::from_secs(10);
    let held = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let waiter = tokio::spawn(locks.lock("x").ttl(ttl).fair().acquire());
    line.until_in_line(2).await;
    let before = line.acquires.load(Ordering::SeqCst);
    clock.sleep_until(clock.now() + 3 * ttl + ttl / 2).await;
    let asked = line.acquires.load(Ordering::SeqCst) - before;
    assert!((2..=3).contains(&asked), "the safety net, and nothing else: {asked} requests in three ttls");
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test]
async fn waiters_that_are_not_fair_take_one_place_for_all() {
    let line = Line::new();
    let locks = locks(&line);
    let held = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let locks = locks.clone();
            tokio::spawn(async move { locks.lock("x").ttl(TTL).acquire().await.unwrap().release().await.unwrap() })
        })
        .collect();
    line.until_in_line(2).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(line.len(), 2);
    held.release().await.unwrap();
    for waiter in waiters {
        waiter.await.unwrap();
    }
    assert_eq!(line.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_line() {
    let line = Line::new();
    let locks = locks(&line);
    let held = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    let lock = || locks.lock("x").ttl(TTL).fair();
    let timed_out = lock().wait_at_most(Duration::from_millis(50)).acquire().await.unwrap_err();
    assert!(matches!(timed_out, LockError::Busy(_)), "{timed_out}");
    locks.settled().await;
    assert_eq!(line.len(), 1);
    let cancelled = tokio::spawn(lock().acquire());
    line.until_in_line(2).await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    locks.settled().await;
    assert_eq!(line.len(), 1);
    held.release().await.unwrap();
}

#[tokio::test]
async fn who_does_not_wait_takes_no_place_and_listens_to_nothing() {
    let line = Line::new();
    let locks = locks(&line);
    let held = locks.lock("x").ttl(TTL).fair().try_acquire().await.unwrap().unwrap();
    assert!(locks.lock("x").ttl(TTL).try_acquire().await.unwrap().is_none());
    assert_eq!((line.len(), line.watches.load(Ordering::SeqCst)), (1, 0));
    held.release().await.unwrap();
}

#[tokio::test]
async fn an_order_that_the_store_does_not_keep_is_not_promised() {
    for lock in
        [Locks::new(MemoryLocks::new()).lock("x").fair(), Locks::new(MemoryLocks::new()).lock("x").fair().no_wait()]
    {
        match lock.acquire().await.unwrap_err() {
            LockError::Store(error) => {
                assert_eq!((error.kind(), error.applied()), (ErrorKind::Unsupported, Applied::No))
            }
            other => panic!("{other}"),
        }
    }
}
