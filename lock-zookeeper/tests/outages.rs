//! What a broken line, a silent server or a lost driver comes to.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{LONG, OPEN, ask, fresh_path, give_back, in_line, locks, operator, refused, start, take, url};
use conformance_tests::Proxy;
use lock_core::{Acquired, Applied, Clock, ErrorKind, LockProvider, OsEntropy, OwnerId, SystemClock};
use lock_zookeeper::{
    ZooKeeperLocks,
    zookeeper_client::{Acls, CreateMode},
};

const TTL: Duration = Duration::from_secs(6);

async fn behind(proxy: &Proxy, path: &str) -> Arc<ZooKeeperLocks> {
    let url = format!("zookeeper://{}?leasehold_path={path}", proxy.address());
    Arc::new(ZooKeeperLocks::connect(&url).await.unwrap())
}

async fn a_forced_release_whose_answer_was_lost_takes_nobody_else() {
    let server = start(testbed::zookeeper).await;
    let (path, proxy) = (fresh_path(), Proxy::start(server.host_port().to_owned()).await.unwrap());
    let (ours, person) = (locks(&server, &path).await, behind(&proxy, &path).await);
    let holder = ask("x", TTL);
    take(&ours, &holder).await;
    let (next, last) = (in_line("x", TTL), in_line("x", TTL));
    refused(&ours, &next).await;
    refused(&ours, &last).await;
    // In a request, the step's: lists name entries in answers alone.
    let lost = proxy.lose_reply_to(format!(" _c_{}", &holder.owner.to_string()[..8]));
    let answer = person.force_release(&holder.name).await;
    tokio::time::timeout(LONG, lost).await.unwrap().unwrap();
    println!("{answer:?}");
    assert!(answer.is_ok_and(|done| done));
    let grant = take(&ours, &next).await;
    refused(&ours, &last).await;
    give_back(&ours, &next, grant).await;
    take(&ours, &last).await;
}

async fn a_slow_network_is_no_reason_not_to_connect() {
    let server = start(testbed::zookeeper).await;
    let (path, proxy) = (fresh_path(), Proxy::start(server.host_port().to_owned()).await.unwrap());
    // Longer, there and back, than the shortest session lasts.
    proxy.delay(Duration::from_millis(120));
    let ours = behind(&proxy, &path).await;
    assert_eq!(ours.capabilities().ttl.min, Duration::from_millis(200));
    let request = ask("x", TTL);
    let grant = take(&ours, &request).await;
    give_back(&ours, &request, grant).await;
}

async fn many_askers_while_nobody_answers_each_wait_for_their_own_time_alone() {
    let server = start(testbed::zookeeper).await;
    let (path, proxy) = (fresh_path(), Proxy::start(server.host_port().to_owned()).await.unwrap());
    let ours = behind(&proxy, &path).await;
    proxy.stall();
    let begun = SystemClock.now();
    let askers: Vec<_> = (0..8)
        .map(|number| {
            let ours = Arc::clone(&ours);
            tokio::spawn(async move {
                let error = ours.acquire(&ask(&format!("n{number}"), TTL)).await.unwrap_err();
                (SystemClock.now().since(begun), error)
            })
        })
        .collect();
    for asker in askers {
        let (took, error) = asker.await.unwrap();
        println!("{took:.2?}: {error}");
        assert!(matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Timeout), "{error}");
        assert!(took < Duration::from_secs(6), "{took:?}");
    }
    proxy.resume();
    take(&ours, &ask("after", TTL)).await;
}

async fn a_driver_whose_runtime_is_gone_is_replaced() {
    let server = start(testbed::zookeeper).await;
    let url = url(&server, &fresh_path());
    let first = ask("x", TTL);
    let (ours, first) = tokio::task::spawn_blocking(move || {
        let short = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let ours = short.block_on(async {
            let ours = ZooKeeperLocks::connect(&url).await.unwrap();
            take(&ours, &first).await;
            ours
        });
        (ours, first)
    })
    .await
    .unwrap();
    let begun = SystemClock.now();
    let status = ours.inspect(&first.name).await.unwrap();
    let another = take(&ours, &ask("y", TTL)).await;
    println!("{status:?}, {another:?} after {:.2?}", SystemClock.now().since(begun));
    assert!(SystemClock.now().since(begun) < Duration::from_secs(2));
}

async fn many_ttls_share_few_sessions() {
    let server = start(|| testbed::zookeeper_private_with(&["maxClientCnxns=30"])).await;
    let ours = ZooKeeperLocks::connect(&url(&server, &fresh_path())).await.unwrap();
    for number in 0..200_u32 {
        let request = ask(&format!("n{number}"), Duration::from_secs(5) + number * Duration::from_millis(7));
        let grant = take(&ours, &request).await;
        assert!(grant.ttl <= request.ttl, "{grant:?}");
        give_back(&ours, &request, grant).await;
    }
}

async fn too_many_connections_are_told_as_such() {
    let server = start(|| testbed::zookeeper_private_with(&["maxClientCnxns=3"])).await;
    let ours = ZooKeeperLocks::connect(&url(&server, &fresh_path())).await.unwrap();
    let mut error = None;
    for number in 0..5_u32 {
        match ours.acquire(&ask(&format!("n{number}"), Duration::from_secs(2) * 2_u32.pow(number))).await {
            Ok(answer) => assert!(matches!(answer, Acquired::Granted(_))),
            Err(refused) => {
                error = Some(refused);
                break;
            }
        }
    }
    let error = error.unwrap();
    println!("{error}");
    assert!(error.kind() == ErrorKind::Unreachable && error.to_string().contains("maxClientCnxns"), "{error}");
}

/// A server that has counted to the end gives the largest number again and again; here another has the first.
async fn a_number_that_another_has_is_no_place_in_the_queue() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let ours = locks(&server, &path).await;
    operator.create(&format!("{path}/locks/x"), b"", &OPEN).await.unwrap();
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    let id = OwnerId::random(&OsEntropy).to_string();
    let (a, b, c, d, e) = (&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]);
    let last = format!("{path}/locks/x/_c_{a}-{b}-{c}-{d}-{e}-lock-0000000001");
    operator.create(&last, b"", &ephemeral).await.unwrap();
    refused(&ours, &ask("x", TTL)).await;
    let error = ours.acquire(&in_line("x", TTL)).await.unwrap_err();
    println!("{error}");
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{error}");
    assert!(error.to_string().contains(&format!("{path}/locks/x")), "{error}");
    assert_eq!(operator.list_children(&format!("{path}/locks/x")).await.unwrap().len(), 1, "it leaves nothing");
    operator.delete(&last, None).await.unwrap();
    let grant = take(&ours, &ask("x", TTL)).await;
    println!("{grant:?}");
}

testbed::server_tests!(testbed::zookeeper =>
    a_forced_release_whose_answer_was_lost_takes_nobody_else,
    a_slow_network_is_no_reason_not_to_connect,
    many_askers_while_nobody_answers_each_wait_for_their_own_time_alone,
    a_driver_whose_runtime_is_gone_is_replaced,
    many_ttls_share_few_sessions,
    too_many_connections_are_told_as_such,
    a_number_that_another_has_is_no_place_in_the_queue,
);
