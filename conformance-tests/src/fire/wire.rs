//! The network between one client and one server, which can be made to fail in one direction or in both.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use crate::asker::sleep;

/// A port of 127.0.0.1 from which bytes go to a server and back, as the weather allows.
///
/// It belongs to the tokio runtime it was started on. Dropping it closes its port and all its connections.
#[derive(Debug)]
pub(super) struct Wire {
    address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    listening: JoinHandle<()>,
    requests: Arc<AtomicU64>,
}

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weather {
    /// Requests wait, and go on when this is over, also when their client has gone meanwhile.
    pub(super) hold_requests: bool,
    /// Replies wait, and go on when this is over.
    pub(super) hold_replies: bool,
    /// Replies are thrown away; so what is asked for happens, and nobody hears of it. A connection that lost some never
    /// says anything again, until it is cut.
    pub(super) lose_replies: bool,
    /// New connections are closed as they are made.
    pub(super) refuse: bool,
    /// How much longer each piece is on its way.
    pub(super) delay: Duration,
    /// Raised by each cut: a connection lives under the number it was made with.
    cuts: u64,
}

impl Weather {
    /// All passes again; what was cut stays so.
    pub(super) fn clear(&mut self) {
        *self = Self { cuts: self.cuts, ..Self::default() };
    }
}

impl Wire {
    /// A wire to `host:port`.
    ///
    /// # Errors
    /// When no port can be had.
    pub(super) async fn to(server: impl Into<String>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let weather = Arc::new(watch::Sender::default());
        let requests = Arc::default();
        let listening = tokio::spawn(listen(listener, server.into(), Arc::clone(&weather), Arc::clone(&requests)));
        Ok(Self { address, weather, listening, requests })
    }

    /// Where the client connects to.
    #[must_use]
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many pieces clients have sent so far; what was sent in one go is one.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Changes the weather; connections stay.
    pub(super) fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Closes all connections.
    pub(super) fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

async fn listen(listener: TcpListener, server: String, weather: Arc<watch::Sender<Weather>>, requests: Arc<AtomicU64>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // No file left, for example: others may close theirs.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (now, weather) = (*weather.borrow(), weather.subscribe());
        if !now.refuse {
            tokio::spawn(serve(client, server.clone(), weather, Arc::clone(&requests)));
        }
    }
}

async fn serve(client: TcpStream, server: String, mut weather: watch::Receiver<Weather>, requests: Arc<AtomicU64>) {
    let cuts = weather.borrow().cuts;
    let pass = pass(client, server, weather.clone(), &requests);
    tokio::select! {
        // An error means that the wire is gone, which is a cut as well.
        _ = weather.wait_for(|weather| weather.cuts != cuts) => {}
        _ = pass => {}
    }
}

async fn pass(
    client: TcpStream,
    server: String,
    weather: watch::Receiver<Weather>,
    requests: &AtomicU64,
) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // However one half ends, both are dropped. Requests that are held don't notice that their client is gone.
    tokio::select! {
        ended = carry(from_client, to_server, weather.clone(), Way::ToServer(requests)) => ended,
        ended = carry(from_server, to_client, weather, Way::ToClient) => ended,
    }
}

#[derive(Clone, Copy)]
enum Way<'a> {
    /// What passes is counted.
    ToServer(&'a AtomicU64),
    ToClient,
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    way: Way<'_>,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 {
            return Ok(());
        }
        let now = *weather.borrow();
        if !now.delay.is_zero() {
            sleep(now.delay).await;
        }
        match way {
            // No network loses what was sent and delivers what was sent after it: this connection says nothing any more.
            Way::ToClient if lost || now.lose_replies => {
                lost = true;
                continue;
            }
            Way::ToClient => _ = weather.wait_for(|weather| !weather.hold_replies).await,
            Way::ToServer(requests) => {
                requests.fetch_add(1, Ordering::SeqCst);
                _ = weather.wait_for(|weather| !weather.hold_requests).await;
            }
        }
        to.write_all(&bytes[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> (Wire, TcpStream, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (heard, hears) = tokio::sync::mpsc::unbounded_channel();
        let wire = Wire::to(listener.local_addr().unwrap().to_string()).await.unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 64];
            while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                heard.send(bytes[..length].to_vec()).unwrap();
                if stream.write_all(&bytes[..length]).await.is_err() {
                    return;
                }
            }
        });
        let client = TcpStream::connect(wire.address()).await.unwrap();
        (wire, client, hears)
    }

    #[tokio::test]
    async fn a_lost_reply_is_that_of_a_request_that_arrived() {
        let (wire, mut client, mut server) = echo().await;
        wire.set(|weather| weather.lose_replies = true);
        client.write_all(b"asked").await.unwrap();
        assert_eq!(server.recv().await.unwrap(), b"asked");
        // The reply has to have come to the wire before the weather clears.
        sleep(Duration::from_millis(50)).await;
        wire.set(Weather::clear);
        client.write_all(b"again").await.unwrap();
        assert_eq!(server.recv().await.unwrap(), b"again");
        wire.cut();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        assert!(bytes.is_empty(), "no later reply may stand for a lost one: {bytes:?}");
    }

    #[tokio::test]
    async fn a_held_request_arrives_though_its_client_is_gone() {
        let (wire, mut client, mut server) = echo().await;
        wire.set(|weather| weather.hold_requests = true);
        client.write_all(b"late").await.unwrap();
        // The wire has to have read it before the client ends.
        sleep(Duration::from_millis(50)).await;
        drop(client);
        assert!(server.try_recv().is_err());
        wire.set(|weather| weather.hold_requests = false);
        assert_eq!(server.recv().await.unwrap(), b"late");
    }
}
