//! What may come between a tick's being looked at, its being used up, and the answer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{
    OPEN, ask, fresh_path, give_back, in_line, locks, operator, renewal, start, take,
    ticks::{entries, finished, forget, kept, with},
};
use conformance_tests::Proxy;
use lock_core::{AcquireRequest, Acquired, Applied, LockProvider, LockState, ReleaseRequest, Renewed, Tick, TickUse};
use lock_zookeeper::ZooKeeperLocks;
use testbed::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

const TTL: Duration = Duration::from_secs(6);

/// No other bytes on the wire are like it.
const NOON: Tick = Tick(1_767_268_800_000_000);

/// What the step that uses it up holds, and no answer does.
const USING_NOON: &str = "1767268800000000 ";

/// A client by way of a proxy, with a session that is open already.
async fn warm(server: &Server, path: &str, patience: Duration) -> (Proxy, ZooKeeperLocks) {
    let proxy = Proxy::start(server.host_port().to_owned()).await.unwrap();
    let url = format!("zookeeper://{}?leasehold_path={path}", proxy.address());
    let locks = ZooKeeperLocks::builder(url.as_str()).operation_timeout(patience).build().await.unwrap();
    let warm = in_line("warm", TTL);
    let grant = take(&locks, &warm).await;
    give_back(&locks, &warm, grant).await;
    (proxy, locks)
}

/// A call that is left without an answer to what contains this, and can't ask again before its end.
async fn unanswered(proxy: &Proxy, ours: &ZooKeeperLocks, request: &AcquireRequest, to: &str) {
    proxy.refuse(true);
    let (answer, lost) = tokio::join!(ours.acquire(request), proxy.lose_reply_to(to));
    lost.unwrap();
    let error = answer.unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe, "{error}");
    proxy.refuse(false);
}

/// The driver needs some time to connect again.
async fn answered_in_the_end(locks: &ZooKeeperLocks, request: &AcquireRequest) -> Acquired {
    for _ in 0..40 {
        match locks.acquire(request).await {
            Ok(answer) => return answer,
            Err(error) => println!("{error}"),
        }
    }
    panic!("no answer")
}

async fn a_tick_is_looked_at_also_where_an_answer_was_lost() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let (proxy, ours) = warm(&server, &path, Duration::from_millis(500)).await;
    for (tick, tick_use) in [(5, TickUse::AtGrant), (6, TickUse::AtRelease)] {
        let request = AcquireRequest { tick_use, ..with(in_line("x", TTL), Tick(tick)) };
        // Its entry is there, first in line, and nothing was granted yet.
        unanswered(&proxy, &ours, &request, "-lock-").await;
        let written = tick.to_string();
        let node = format!("{path}/ticks/x");
        match operator.create(&node, written.as_bytes(), &OPEN).await {
            Ok(_) => {}
            Err(_) => _ = operator.set_data(&node, written.as_bytes(), None).await.unwrap(),
        }
        let answer = answered_in_the_end(&ours, &request).await;
        assert!(matches!(answer, Acquired::Finished(Tick(last)) if last == tick), "{answer:?}");
        assert_eq!(entries(&operator, &path).await.len(), 0);
    }
}

async fn a_grant_that_lost_its_answer_is_found_by_its_own_call() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let (proxy, ours) = warm(&server, &path, Duration::from_secs(5)).await;
    let theirs = locks(&server, &path).await;
    for request in [in_line("x", TTL), ask("x", TTL)] {
        let request = with(request, NOON);
        let (answer, lost) = tokio::join!(ours.acquire(&request), proxy.lose_reply_to(USING_NOON));
        lost.unwrap();
        let Acquired::Granted(grant) = answer.unwrap() else { panic!("its own grant") };
        assert_eq!(take(&ours, &request).await.token, grant.token);
        finished(&theirs, &with(ask("x", TTL), NOON), NOON).await;
        assert_eq!(kept(&operator, &path).await.1, 0, "it was used up once");
        give_back(&ours, &request, grant).await;
        finished(&ours, &request, NOON).await;
        operator.delete(&format!("{path}/ticks/x"), None).await.unwrap();
    }
}

async fn a_grant_in_doubt_is_the_next_attempts_while_its_entry_is_there() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let (proxy, ours) = warm(&server, &path, Duration::from_millis(500)).await;
    let theirs = locks(&server, &path).await;
    let request = with(in_line("x", TTL), NOON);
    unanswered(&proxy, &ours, &request, USING_NOON).await;
    finished(&theirs, &with(ask("x", TTL), NOON), NOON).await;
    let Acquired::Granted(grant) = answered_in_the_end(&ours, &request).await else { panic!("its own grant") };
    assert_eq!(kept(&operator, &path).await.0.split(' ').nth(1), Some(grant.token.to_string().as_str()));
    assert!(matches!(ours.renew(&renewal(&request, grant)).await.unwrap(), Renewed::Held(_)));
    give_back(&ours, &request, grant).await;

    // The same with an entry that is gone before the next attempt: the grant went with it, and the tick is used up.
    operator.delete(&format!("{path}/ticks/x"), None).await.unwrap();
    let request = with(in_line("x", TTL), NOON);
    unanswered(&proxy, &ours, &request, USING_NOON).await;
    for entry in entries(&operator, &path).await {
        operator.delete(&format!("{path}/locks/x/{entry}"), None).await.unwrap();
    }
    // With the lock's own node, which no one's place is in any more.
    forget(&operator, &path).await;
    let answer = answered_in_the_end(&ours, &request).await;
    assert!(matches!(answer, Acquired::Finished(NOON)), "{answer:?}");
    assert!(theirs.inspect(&request.name).await.unwrap().is_none_or(|status| status.state == LockState::Free));
}

/// Lets the first step that uses noon up wait until it is told to go on.
#[derive(Default)]
struct Gate {
    was_reached: AtomicBool,
    reached: Notify,
    open: Notify,
}

impl Gate {
    /// A client whose requests go through it.
    async fn before(server: &Server, path: &str) -> (Arc<Self>, ZooKeeperLocks) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("zookeeper://{}?leasehold_path={path}", listener.local_addr().unwrap());
        let (gate, upstream) = (Arc::new(Self::default()), server.host_port().to_owned());
        let own = Arc::clone(&gate);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&own).pass(client, upstream.clone()));
            }
        });
        (gate, ZooKeeperLocks::connect(&url).await.unwrap())
    }

    async fn pass(self: Arc<Self>, client: TcpStream, upstream: String) -> std::io::Result<()> {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(upstream).await?.into_split();
        let requests = async {
            let mut bytes = vec![0; 64 * 1024];
            loop {
                let length = from_client.read(&mut bytes).await?;
                let is_step = bytes[..length].windows(USING_NOON.len()).any(|part| part == USING_NOON.as_bytes());
                if is_step && !self.was_reached.swap(true, Ordering::SeqCst) {
                    self.reached.notify_one();
                    self.open.notified().await;
                }
                to_server.write_all(&bytes[..length]).await?;
                if length == 0 {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            ended = requests => ended,
            ended = tokio::io::copy(&mut from_server, &mut to_client) => ended.map(drop),
        }
    }

    /// The answer to a wish, when this was done before its step.
    async fn meanwhile(&self, ours: &ZooKeeperLocks, request: &AcquireRequest, done: impl Future) -> Acquired {
        let act = async {
            self.reached.notified().await;
            done.await;
            self.open.notify_one();
        };
        tokio::join!(ours.acquire(request), act).0.unwrap()
    }
}

async fn a_tick_is_not_used_up_by_an_entry_that_is_gone() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let (gate, ours) = Gate::before(&server, &path).await;
    let request = with(in_line("x", TTL), NOON);
    let delete = async {
        let entry = entries(&operator, &path).await.remove(0);
        operator.delete(&format!("{path}/locks/x/{entry}"), None).await.unwrap();
    };
    let answer = gate.meanwhile(&ours, &request, delete).await;
    let Acquired::Granted(grant) = answer else { panic!("with another entry: {answer:?}") };
    let entry = entries(&operator, &path).await.remove(0);
    assert_eq!(kept(&operator, &path).await, (format!("{} {} {entry}", NOON.0, grant.token), 0));
    assert!(matches!(ours.renew(&renewal(&request, grant)).await.unwrap(), Renewed::Held(_)));
}

async fn a_tick_that_is_written_while_it_is_granted_is_looked_at_again() {
    let server = start(testbed::zookeeper).await;
    for before in [None, Some("5")] {
        let (path, operator) = (fresh_path(), operator(&server).await);
        let (gate, ours) = Gate::before(&server, &path).await;
        let node = format!("{path}/ticks/x");
        let later = Tick(NOON.0 + 1);
        let written = later.0.to_string();
        if let Some(before) = before {
            operator.create(&node, before.as_bytes(), &OPEN).await.unwrap();
        }
        let write = async {
            match before {
                None => operator.create(&node, written.as_bytes(), &OPEN).await.map(drop).unwrap(),
                Some(_) => operator.set_data(&node, written.as_bytes(), None).await.map(drop).unwrap(),
            }
        };
        let answer = gate.meanwhile(&ours, &with(in_line("x", TTL), NOON), write).await;
        assert!(matches!(answer, Acquired::Finished(last) if last == later), "{answer:?}");
        assert_eq!((kept(&operator, &path).await.0, entries(&operator, &path).await.len()), (written, 0));
    }
}

async fn who_gives_up_on_a_step_that_comes_late_may_have_used_the_tick_up() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let (gate, ours) = Gate::before(&server, &path).await;
    let request = with(in_line("x", TTL), NOON);
    let call = ours.acquire(&request);
    // The call is dropped while its step is under way.
    tokio::select! {
        answer = call => panic!("{answer:?}"),
        () = gate.reached.notified() => {}
    }
    let release = ReleaseRequest::new(request.name.clone(), request.owner, None);
    let (released, ()) = tokio::join!(ours.release(&release), async { gate.open.notify_one() });
    released.unwrap();
    assert_eq!(entries(&operator, &path).await.len(), 0);
    finished(&locks(&server, &path).await, &with(ask("x", TTL), NOON), NOON).await;
    finished(&ours, &request, NOON).await;
}

testbed::server_tests!(testbed::zookeeper =>
    a_tick_is_looked_at_also_where_an_answer_was_lost,
    a_grant_that_lost_its_answer_is_found_by_its_own_call,
    a_grant_in_doubt_is_the_next_attempts_while_its_entry_is_there,
    a_tick_is_not_used_up_by_an_entry_that_is_gone,
    a_tick_that_is_written_while_it_is_granted_is_looked_at_again,
    who_gives_up_on_a_step_that_comes_late_may_have_used_the_tick_up,
);
