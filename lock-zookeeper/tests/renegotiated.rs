//! Servers that grant shorter sessions than before: what a reconnected session is promised to be is what it got.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{ask, fresh_path, renewal, start, take, until};
use conformance_tests::Proxy;
use lock_core::{Clock, LockProvider, Renewed, SystemClock};
use lock_zookeeper::{ZooKeeperLocks, zookeeper_client::Client};
use testbed::PrivateServer;

const TTL: Duration = Duration::from_secs(20);

/// Starts a server of this test's own beside the testbed's, or starts it anew over its data, with this limit.
async fn run(server: &Arc<PrivateServer>, port: u16, longest: Duration) {
    let longest = longest.as_millis();
    let script = format!(
        ". /usr/local/lib/testbed/java.sh
        mkdir -p /tmp/own
        if [ -f /tmp/own/pid ]; then kill $(cat /tmp/own/pid); while tr -d '\\0' < /proc/$(cat /tmp/own/pid)/cmdline 2>/dev/null | grep -q .; do sleep 0.1; done; fi
        printf 'tickTime=100\\nmaxSessionTimeout={longest}\\ndataDir=/tmp/own\\nclientPort={port}\\nclientPortAddress=127.0.0.1\\nadmin.enableServer=false\\n' > /tmp/own/zoo.cfg
        (java_of info org.apache.zookeeper.server.quorum.QuorumPeerMain /tmp/own/zoo.cfg >/tmp/own/log 2>&1 </dev/null) &
        echo $! > /tmp/own/pid"
    );
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || server.exec(&["sh", "-c", &script]).unwrap()).await.unwrap();
    until("the server", || async {
        let session = Client::connector().with_session_timeout(Duration::from_secs(1));
        session.connect(&format!("127.0.0.1:{port}")).await.is_ok()
    })
    .await;
}

async fn a_session_that_comes_back_shorter_promises_nothing_more() {
    let server = Arc::new(start(testbed::zookeeper_private).await);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    run(&server, port, Duration::from_secs(60)).await;
    let (path, proxy) = (fresh_path(), Proxy::start(format!("127.0.0.1:{port}")).await.unwrap());
    let url = format!("zookeeper://{}?leasehold_path={path}", proxy.address());
    let ours = ZooKeeperLocks::connect(&url).await.unwrap();
    let request = ask("x", TTL);
    let grant = take(&ours, &request).await;
    // A connection that breaks and comes back alone changes nothing.
    proxy.cut();
    until("a renewal", || async {
        matches!(ours.renew(&renewal(&request, grant)).await, Ok(Renewed::Held(left)) if left > TTL / 3)
    })
    .await;
    run(&server, port, Duration::from_secs(2)).await;
    let restarted = SystemClock.now();
    until("the loss", || async {
        let renewed = ours.renew(&renewal(&request, grant)).await;
        println!("{:.2?} after the restart: {renewed:?}", SystemClock.now().since(restarted));
        matches!(renewed, Ok(Renewed::Lost))
    })
    .await;
    // What is granted from now on is as short as the servers say.
    let again = take(&ours, &ask("y", TTL)).await;
    println!("{again:?}");
    assert!(again.ttl <= Duration::from_secs(2), "{again:?}");
}

testbed::server_tests!(testbed::tests::private_zookeeper_can_be_had =>
    a_session_that_comes_back_shorter_promises_nothing_more,
);
