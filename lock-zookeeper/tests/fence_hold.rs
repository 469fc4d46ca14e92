//! The guard: a write is done while its own grant holds the lock at the servers, and not after.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{error::Error as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use common::{OPEN, ask, fences::Log, fresh_path, give_back, locks, operator, start, take, until, url};
use conformance_tests::Proxy;
use lock_core::{
    AcquireRequest, Acquired, Applied, Capabilities, ErrorKind, FenceError, FencingToken, Grant, Lease, ListRequest,
    LockName, LockProvider, LockStatus, Locks, MemoryLocks, OwnerId, RefusalReason, ReleaseRequest, Released,
    RenewRequest, Renewed, StoreError, TestObserver, Waiting, Watch,
};
use lock_zookeeper::{
    ZooKeeperLocks,
    zookeeper_client::{CheckWriter, Client, Error, MultiWriteError},
};
use testbed::{Server, ZooKeeper};
use tokio::{runtime::Handle, task::block_in_place};

const TTL: Duration = Duration::from_secs(10);

async fn provider(server: &Server, path: &str) -> (Arc<ZooKeeperLocks>, Locks) {
    let provider = Arc::new(locks(server, path).await);
    (Arc::clone(&provider), Locks::builder_shared(provider).build())
}

#[track_caller]
fn is_not_held<T: std::fmt::Debug>(outcome: Result<T, FenceError>, lease: &Lease) {
    let Err(FenceError::NotHeld(refused)) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((&refused.lock, refused.token), (lease.name(), lease.token()));
}

/// Everything that a holder can do, whose time is over by now.
async fn nothing_is_written_any_more(lease: &Lease, clients: &[&ZooKeeperLocks], log: &Log) {
    let before = log.entries().await;
    for client in clients {
        is_not_held(client.write(lease, log.entry("late")).await, lease);
        is_not_held(client.write_over(&log.operator, lease, log.entry("late")).await, lease);
        is_not_held(client.hold(lease, &mut log.operator.new_multi_writer()).await, lease);
    }
    assert_eq!(log.entries().await, before);
}

/// A lock's entries. Its own node is removed by the server some time after the last.
async fn entries(operator: &Client, lock: &str) -> Vec<String> {
    match operator.list_children(lock).await {
        Err(Error::NoNode) => Vec::new(),
        entries => entries.unwrap(),
    }
}

/// How a hold ends without its holder's doing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Force,
    Release,
    Session,
}

impl End {
    async fn comes(self, server: &Arc<Server>, theirs: &ZooKeeperLocks, lease: &Lease, log: &Log, path: &str) {
        match self {
            Self::Force => assert!(theirs.force_release(lease.name()).await.unwrap()),
            Self::Release => {
                let release = ReleaseRequest::new(lease.name().clone(), lease.owner(), Some(lease.token()));
                assert_eq!(theirs.release(&release).await.unwrap(), Released::Released);
            }
            Self::Session => {
                let (lock, operator) = (format!("{path}/locks/{}", lease.name()), &log.operator);
                let entry = entries(operator, &lock).await.remove(0);
                let stat = operator.check_stat(&format!("{lock}/{entry}")).await.unwrap().unwrap();
                // The two connections of the session get in each other's way now and then.
                until("the session's end", || async {
                    let server = Arc::clone(server);
                    let expire = move || _ = ZooKeeper::of(&server).expire(stat.ephemeral_owner);
                    tokio::task::spawn_blocking(expire).await.unwrap();
                    entries(operator, &lock).await.is_empty()
                })
                .await;
            }
        }
    }
}

async fn what_was_begun_under_a_lease_that_ends_meanwhile_is_not_done() {
    let server = Arc::new(start(testbed::zookeeper).await);
    let operator = operator(&server).await;
    for end in [End::Force, End::Release, End::Session] {
        let path = fresh_path();
        let log = Log::new(&operator, &path).await;
        let ((ours, client), (theirs, other)) = (provider(&server, &path).await, provider(&server, &path).await);
        let guard = client.lock("x").ttl(TTL).acquire().await.unwrap();
        let lease = guard.lease();
        // By the client that acquired it, by another, over anybody's session, and in anybody's multi.
        ours.write(lease, log.entry("own")).await.unwrap();
        theirs.write(lease, log.entry("own")).await.unwrap();
        ours.write_over(&operator, lease, log.entry("own")).await.unwrap();
        let log_path = log.path.clone();
        let mut late = operator.new_multi_writer();
        for version in 1..=2 {
            ours.hold(lease, &mut late).await.unwrap();
            late.add_set_data(&log_path, b"", None).unwrap();
            if version == 1 {
                assert_eq!(late.commit().await.unwrap().len(), 2);
            }
        }
        // The lease ends between the look at it and the write, and another has the lock, and writes.
        let taken_over = |multi: &mut CheckWriter<'_>| {
            block_in_place(|| {
                Handle::current().block_on(async {
                    end.comes(&server, &theirs, lease, &log, &path).await;
                    let next = other.lock("x").ttl(TTL).acquire().await.unwrap();
                    assert!(next.token() > lease.token());
                    theirs.write(next.lease(), log.entry("next")).await.unwrap();
                });
            });
            log.entry("late")(multi)
        };
        // The session itself may be what has ended.
        let outcome = ours.write(lease, taken_over).await;
        match &outcome {
            Err(FenceError::Store(error)) if end == End::Session => {
                assert!(error.is_transient(), "{error}");
            }
            _ => is_not_held(outcome, lease),
        }
        let refused = late.commit().await;
        assert_eq!(refused, Err(MultiWriteError::OperationFailed { index: 0, source: Error::NoNode }));
        assert_eq!(operator.check_stat(&log_path).await.unwrap().unwrap().version, 1);
        nothing_is_written_any_more(lease, &[&ours, &theirs], &log).await;
        assert_eq!(log.entries().await, ["own", "own", "own", "next"], "{end:?}");
    }
}

/// The condition of another client's lease is asked at the servers too, not only of what is remembered of it.
async fn another_clients_lease_that_ends_meanwhile_writes_nothing() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    let log = Log::new(&operator, &path).await;
    let ((_ours, client), (theirs, _)) = (provider(&server, &path).await, provider(&server, &path).await);
    let guard = client.lock("x").ttl(TTL).acquire().await.unwrap();
    for round in 0..2 {
        let outcome = theirs.write(&guard, |multi| {
            if round == 1 {
                block_in_place(|| Handle::current().block_on(theirs.force_release(guard.name()))).unwrap();
            }
            log.entry(round)(multi)
        });
        match round {
            0 => _ = outcome.await.unwrap(),
            _ => is_not_held(outcome.await, &guard),
        }
    }
    nothing_is_written_any_more(&guard, &[&theirs], &log).await;
    assert_eq!(log.entries().await, ["0"]);
}

async fn a_lease_that_was_given_back_writes_nothing_even_while_the_lock_is_kept() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    let log = Log::new(&operator, &path).await;
    let (ours, client) = provider(&server, &path).await;
    for at_least_for in [Duration::ZERO, Duration::from_secs(60)] {
        let guard = client.lock("x").ttl(TTL).at_least_for(at_least_for).acquire().await.unwrap();
        let lease = guard.lease().clone();
        guard.release().await.unwrap();
        let is_kept = !entries(&operator, &format!("{path}/locks/x")).await.is_empty();
        assert_eq!(is_kept, !at_least_for.is_zero());
        nothing_is_written_any_more(&lease, &[&ours], &log).await;
    }
}

/// Grants what isn't granted: to who waits, under the token that its entry would give.
#[derive(Debug)]
struct Hasty {
    locks: Arc<ZooKeeperLocks>,
    operator: Client,
    path: String,
}

#[async_trait]
impl LockProvider for Hasty {
    fn capabilities(&self) -> &Capabilities {
        self.locks.capabilities()
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        let request = AcquireRequest { waiting: Waiting::InLine(Duration::from_secs(60)), ..request.clone() };
        assert!(matches!(self.locks.acquire(&request).await?, Acquired::Held(_)));
        let lock = format!("{}/locks/{}", self.path, request.name);
        let owner = request.owner.to_string();
        let entries = self.operator.list_children(&lock).await.unwrap();
        let own = entries.iter().find(|entry| entry.replace('-', "").contains(&owner)).unwrap();
        let stat = self.operator.check_stat(&format!("{lock}/{own}")).await.unwrap().unwrap();
        let token = FencingToken::new(u64::try_from(stat.czxid).unwrap());
        Ok(Acquired::Granted(Grant::new(token, request.ttl)))
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        Ok(Renewed::Held(request.ttl))
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        self.locks.release(request).await
    }

    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        self.locks.watch(name, owner).await
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        self.locks.inspect(name).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.locks.list(request).await
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        self.locks.force_release(name).await
    }
}

async fn an_entry_that_waits_proves_nothing() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    let log = Log::new(&operator, &path).await;
    let (ours, theirs) = (Arc::new(locks(&server, &path).await), locks(&server, &path).await);
    let holder = ask("x", TTL);
    let held = take(&theirs, &holder).await;
    let hasty = Hasty { locks: Arc::clone(&ours), operator: operator.clone(), path: path.clone() };
    let liars = Locks::builder(hasty).build();
    let guard = liars.lock("x").ttl(TTL).acquire().await.unwrap();
    // The entry is there, under this owner and this token.
    assert_eq!(operator.list_children(&format!("{path}/locks/x")).await.unwrap().len(), 2);
    nothing_is_written_any_more(&guard, &[&ours, &theirs], &log).await;
    give_back(&theirs, &holder, held).await;
    // First in line by now, and its own process hasn't looked yet.
    is_not_held(ours.write(&guard, log.entry("?")).await, &guard);
    assert!(log.entries().await.is_empty());
}

async fn paths_are_below_the_chroot_of_whoever_writes() {
    let server = start(testbed::zookeeper).await;
    let (operator, root) = (operator(&server).await, fresh_path());
    let log = Log::new(&operator, &root).await;
    let hosts = server.host_ports().join(",");
    let ours = Arc::new(ZooKeeperLocks::connect(&format!("zookeeper://{hosts}{root}")).await.unwrap());
    let guard = Locks::builder_shared(Arc::clone(&ours) as _).build().lock("x").ttl(TTL).acquire().await.unwrap();
    let below = Log { path: "/log".to_owned(), operator: operator.clone() };
    let chrooted = operator.clone().chroot(root.clone()).unwrap();
    ours.write(&guard, below.entry(1)).await.unwrap();
    ours.write_over(&chrooted, &guard, below.entry(2)).await.unwrap();
    ours.write_over(&operator, &guard, log.entry(3)).await.unwrap();
    let elsewhere = operator.clone().chroot(log.path.clone()).unwrap();
    let error = ours.write_over(&elsewhere, &guard, below.entry(4)).await.unwrap_err();
    println!("{error}");
    assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::InvalidConfig), "{error}");
    let fences = lock_zookeeper::ZooKeeperFences::connect(&format!("zookeeper://{hosts}{root}")).await.unwrap();
    let accounts = common::fences::resource("accounts");
    fences.write(&accounts, &guard, lock_core::Pass::Again, below.entry(5)).await.unwrap();
    assert_eq!(log.entries().await, ["1", "2", "3", "5"]);
    assert_eq!(operator.list_children(&format!("{root}/leasehold/fences")).await.unwrap(), ["accounts"]);
}

async fn who_may_not_read_the_entry_is_told_so() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    let log = Log::new(&operator, &path).await;
    let with_user = url(&server, &path).replace("zookeeper://", "zookeeper://app:s3cret@");
    let ours = Arc::new(ZooKeeperLocks::connect(&with_user).await.unwrap());
    let guard = Locks::builder_shared(Arc::clone(&ours) as _).build().lock("x").ttl(TTL).acquire().await.unwrap();
    let error = ours.write_over(&operator, &guard, log.entry("?")).await.unwrap_err();
    println!("{error}");
    let FenceError::Store(error) = error else { panic!("{error}") };
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Denied, Applied::No));
    let allowed = common::operator(&server).await;
    allowed.auth("digest", b"app:s3cret").await.unwrap();
    ours.write_over(&allowed, &guard, log.entry(1)).await.unwrap();
    assert_eq!(log.entries().await, ["1"]);
}

async fn what_the_server_refuses_and_what_is_in_doubt_is_told_as_such() {
    let server = start(testbed::zookeeper).await;
    let (operator, path) = (operator(&server).await, fresh_path());
    let log = Log::new(&operator, &path).await;
    let proxy = Proxy::start(server.host_port().to_owned()).await.unwrap();
    let url = url(&server, &path).replace(server.host_port(), &proxy.address().to_string());
    let ours = Arc::new(ZooKeeperLocks::connect(&url).await.unwrap());
    let guard = Locks::builder_shared(Arc::clone(&ours) as _).build().lock("x").ttl(TTL).acquire().await.unwrap();
    let refused = ours.write(&guard, |multi| {
        log.entry("?")(multi)?;
        multi.add_create(&log.path, b"", &OPEN)
    });
    let Err(FenceError::Store(error)) = refused.await else { panic!("it is there") };
    let source: &MultiWriteError = error.source().and_then(|source| source.downcast_ref()).unwrap();
    assert_eq!(source, &MultiWriteError::OperationFailed { index: 1, source: Error::NodeExists });
    assert_eq!(error.applied(), Applied::No);
    let lost = proxy.lose_reply_to("this-entry");
    let (outcome, lost) = tokio::join!(ours.write(&guard, log.entry("this-entry")), lost);
    lost.unwrap();
    let Err(FenceError::Store(error)) = outcome else { panic!("{outcome:?}") };
    println!("{error}");
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Unreachable, Applied::Maybe));
    until("the session's next connection", || async { ours.write(&guard, log.entry("next")).await.is_ok() }).await;
    assert_eq!(log.entries().await, ["this-entry", "next"]);
}

async fn a_refusal_is_told_once_with_its_reason() {
    let server = start(testbed::zookeeper).await;
    let (operator, path, told) = (operator(&server).await, fresh_path(), Arc::new(TestObserver::default()));
    let log = Log::new(&operator, &path).await;
    let ours = locks(&server, &path).await.observer(told.clone());
    let mine = Locks::new(ours.clone()).lock("x").ttl(TTL).acquire().await.unwrap();
    ours.write(&mine, log.entry("mine")).await.unwrap();
    assert_eq!(told.refusals(), []);
    let elsewhere = Locks::new(MemoryLocks::new()).lock("x").ttl(TTL).acquire().await.unwrap();
    is_not_held(ours.write(&elsewhere, log.entry("bad")).await, &elsewhere);
    assert_eq!(told.refusals(), [RefusalReason::NotHeld]);
    is_not_held(ours.write_over(&operator, &elsewhere, log.entry("bad")).await, &elsewhere);
    assert_eq!(told.refusals(), [RefusalReason::NotHeld]);
    is_not_held(ours.hold(&elsewhere, &mut operator.new_multi_writer()).await, &elsewhere);
    assert_eq!(told.refusals(), [RefusalReason::NotHeld]);
}

testbed::server_tests!(testbed::zookeeper =>
    what_was_begun_under_a_lease_that_ends_meanwhile_is_not_done,
    another_clients_lease_that_ends_meanwhile_writes_nothing,
    a_lease_that_was_given_back_writes_nothing_even_while_the_lock_is_kept,
    an_entry_that_waits_proves_nothing,
    paths_are_below_the_chroot_of_whoever_writes,
    who_may_not_read_the_entry_is_told_so,
    what_the_server_refuses_and_what_is_in_doubt_is_told_as_such,
    a_refusal_is_told_once_with_its_reason,
);
