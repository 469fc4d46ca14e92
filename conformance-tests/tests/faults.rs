//! The suite's own tools do what they say: the proxy, against an echo server, and the unreliable provider.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed, as it should")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use conformance_tests::{Faults, Proxy, Unreliable};
use lock_core::{
    AcquireRequest, Acquired, Applied, LockName, LockProvider, MemoryLocks, OsEntropy, OwnerId, ReleaseRequest,
    Released,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

/// Long enough for anything that happens at all.
const SOON: Duration = Duration::from_secs(10);
/// Long enough to see that nothing comes.
const A_WHILE: Duration = Duration::from_millis(200);

/// Echoes, and tells what arrived.
async fn echo() -> (SocketAddr, UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, arrived) = unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                while let Ok(length @ 1..) = peer.read(&mut bytes).await {
                    // Not every test looks at what arrived.
                    let _ = tell.send(bytes[..length].to_vec());
                    if peer.write_all(&bytes[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, arrived)
}

async fn proxied() -> (Proxy, TcpStream, UnboundedReceiver<Vec<u8>>) {
    let (server, arrived) = echo().await;
    let proxy = Proxy::start(server.to_string()).await.unwrap();
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    (proxy, client, arrived)
}

async fn answer(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    // A connection that is cut with bytes unread is reset instead of ended.
    let length = timeout(SOON, client.read(&mut bytes)).await.expect("an answer or the end").unwrap_or(0);
    bytes.truncate(length);
    bytes
}

#[tokio::test]
async fn it_passes_bytes_on() {
    let (_proxy, mut client, _) = proxied().await;
    client.write_all(b"hello").await.unwrap();
    assert_eq!(answer(&mut client).await, b"hello");
}

#[tokio::test]
async fn a_cut_closes_what_is_open_and_refusing_closes_what_comes() {
    let (proxy, mut client, _) = proxied().await;
    client.write_all(b"hello").await.unwrap();
    answer(&mut client).await;
    proxy.cut();
    assert_eq!(answer(&mut client).await, b"", "closed");
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    next.write_all(b"again").await.unwrap();
    assert_eq!(answer(&mut next).await, b"again", "a new connection is served");
    proxy.refuse(true);
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    let _ = refused.write_all(b"hello?").await;
    assert_eq!(answer(&mut refused).await, b"", "a refused connection");
    next.write_all(b"still").await.unwrap();
    assert_eq!(answer(&mut next).await, b"still", "what was open stays open");
}

#[tokio::test]
async fn a_stall_holds_both_directions_and_breaks_nothing() {
    let (proxy, mut client, mut arrived) = proxied().await;
    client.write_all(b"before").await.unwrap();
    assert_eq!(answer(&mut client).await, b"before");
    arrived.recv().await.unwrap();
    proxy.stall();
    client.write_all(b"held").await.unwrap();
    assert!(timeout(A_WHILE, arrived.recv()).await.is_err(), "nothing arrives");
    proxy.resume();
    assert_eq!(arrived.recv().await.unwrap(), b"held");
    assert_eq!(answer(&mut client).await, b"held");
}

#[tokio::test]
async fn a_delay_holds_each_piece_for_so_long() {
    let (proxy, mut client, _) = proxied().await;
    proxy.delay(A_WHILE);
    client.write_all(b"slow").await.unwrap();
    let mut bytes = [0; 4];
    assert!(timeout(A_WHILE, client.read_exact(&mut bytes)).await.is_err(), "not within one delay: there are two");
    assert_eq!(answer(&mut client).await, b"slow");
}

#[tokio::test]
async fn the_lost_reply_is_that_of_an_applied_request() {
    let (proxy, mut client, mut arrived) = proxied().await;
    let lost = proxy.lose_reply_to("invoice-42");
    client.write_all(b"ping").await.unwrap();
    assert_eq!(answer(&mut client).await, b"ping", "other requests are answered");
    arrived.recv().await.unwrap();
    let mut other = TcpStream::connect(proxy.address()).await.unwrap();
    // In two pieces, as networks deliver.
    client.write_all(b"take invo").await.unwrap();
    assert_eq!(answer(&mut client).await, b"take invo");
    client.write_all(b"ice-42 now").await.unwrap();
    timeout(SOON, lost).await.expect("the reply is lost").unwrap();
    assert_eq!(arrived.recv().await.unwrap(), b"take invo");
    assert_eq!(arrived.recv().await.unwrap(), b"ice-42 now", "the request arrived");
    assert_eq!(answer(&mut client).await, b"", "no reply, and the connection is closed");
    other.write_all(b"invoice-42").await.unwrap();
    assert_eq!(answer(&mut other).await, b"invoice-42", "once, not again");
}

#[tokio::test]
async fn what_was_sent_before_the_arming_does_not_count() {
    let (proxy, mut client, _) = proxied().await;
    client.write_all(b"invoice-42").await.unwrap();
    assert_eq!(answer(&mut client).await, b"invoice-42");
    let lost = proxy.lose_reply_to("invoice-42");
    client.write_all(b"ping").await.unwrap();
    assert_eq!(answer(&mut client).await, b"ping", "this isn't the request that is meant");
    client.write_all(b"invoice-42").await.unwrap();
    timeout(SOON, lost).await.expect("the reply is lost").unwrap();
}

#[tokio::test]
async fn dropping_the_proxy_closes_everything() {
    let (proxy, mut client, _) = proxied().await;
    client.write_all(b"hello").await.unwrap();
    answer(&mut client).await;
    let address = proxy.address();
    drop(proxy);
    assert_eq!(answer(&mut client).await, b"");
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, refused).await.expect("the port is closed");
}

fn wish() -> AcquireRequest {
    AcquireRequest::new(LockName::new("x").unwrap(), OwnerId::random(&OsEntropy), Duration::from_secs(60))
}

#[tokio::test]
async fn an_unreliable_provider_applies_what_it_doesnt_answer() {
    let store = MemoryLocks::new();
    let unreliable = Unreliable::new(Arc::new(store.clone()));
    let wish = wish();
    let lost = unreliable.lose_next_reply(&wish.name);
    let error = unreliable.acquire(&wish).await.unwrap_err();
    assert_eq!(error.applied(), Applied::Maybe);
    lost.await.unwrap();
    assert!(store.inspect(&wish.name).await.unwrap().is_some(), "applied");
    assert!(matches!(unreliable.acquire(&wish).await, Ok(Acquired::Granted(_))), "once, not again");
}

#[tokio::test]
async fn an_unreliable_provider_fails_before_it_applies() {
    let store = MemoryLocks::new();
    let unreliable = Unreliable::new(Arc::new(store.clone()));
    let wish = wish();
    unreliable.fail_next(&wish.name);
    assert_eq!(unreliable.acquire(&wish).await.unwrap_err().applied(), Applied::No);
    assert!(store.inspect(&wish.name).await.unwrap().is_none(), "not applied");
}

#[tokio::test]
async fn a_stalled_request_arrives_though_its_sender_is_gone() {
    let store = MemoryLocks::new();
    let unreliable = Unreliable::new(Arc::new(store.clone()));
    let wish = wish();
    unreliable.stall();
    assert!(timeout(A_WHILE, unreliable.acquire(&wish)).await.is_err(), "no answer comes");
    assert!(store.inspect(&wish.name).await.unwrap().is_none(), "it has not arrived");
    unreliable.resume();
    // Behind the one that was held: the same lock, so it is answered after it.
    let release = ReleaseRequest::new(wish.name.clone(), wish.owner, None);
    let arrived = async {
        while unreliable.release(&release).await.unwrap() != Released::Released {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, arrived).await.expect("the request arrives");
}
