//! The network between one client and one server, which can be made to fail in one direction or in both.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use super::sentinel::{Alias, Replies};
use crate::asker::sleep;

/// A way on which bytes go to a server and back, as the weather allows. Clones are the same wire.
///
/// When the last is dropped, all its connections are closed.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    server: Arc<str>,
    weather: Arc<watch::Sender<Weather>>,
    /// What a sentinel at its end tells of other servers is put in terms of these; none at the end of any other.
    aliases: Arc<[Alias]>,
    passed: Arc<watch::Sender<Passed>>,
}

/// How many pieces were taken up so far, also those that are held or lost; what was sent in one go is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) requests: u64,
    pub(super) replies: u64,
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
    pub(super) fn to(server: &str) -> Self {
        Self::telling(server, Arc::default())
    }

    /// A wire to a sentinel, whose client is told these addresses for those of the servers.
    pub(super) fn telling(sentinel: &str, aliases: Arc<[Alias]>) -> Self {
        Self { server: sentinel.into(), weather: Arc::default(), aliases, passed: Arc::default() }
    }

    /// `host:port` of the server.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// What went over it so far.
    pub(super) fn passed(&self) -> Passed {
        *self.passed.borrow()
    }

    /// Changes the weather; connections stay.
    pub(super) fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Closes all connections.
    pub(super) fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Takes on a connection of the client's, for as long as both sides and the weather let it last.
    pub(super) fn take(&self, client: TcpStream) {
        let weather = self.weather.subscribe();
        if !weather.borrow().refuse {
            let replies = (!self.aliases.is_empty()).then(|| Replies::new(Arc::clone(&self.aliases)));
            tokio::spawn(serve(client, Arc::clone(&self.server), weather, Arc::clone(&self.passed), replies));
        }
    }
}

async fn serve(
    client: TcpStream,
    server: Arc<str>,
    mut weather: watch::Receiver<Weather>,
    passed: Arc<watch::Sender<Passed>>,
    replies: Option<Replies>,
) {
    let cuts = weather.borrow().cuts;
    let pass = pass(client, &server, weather.clone(), &passed, replies);
    tokio::select! {
        // An error means that the wire is gone, which is a cut as well.
        _ = weather.wait_for(|weather| weather.cuts != cuts) => {}
        _ = pass => {}
    }
}

async fn pass(
    client: TcpStream,
    server: &str,
    weather: watch::Receiver<Weather>,
    passed: &watch::Sender<Passed>,
    replies: Option<Replies>,
) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // However one half ends, both are dropped. Requests that are held don't notice that their client is gone.
    tokio::select! {
        ended = carry(from_client, to_server, weather.clone(), passed, Way::ToServer) => ended,
        ended = carry(from_server, to_client, weather, passed, Way::ToClient(replies)) => ended,
    }
}

enum Way {
    ToServer,
    /// With what makes a sentinel's replies fit.
    ToClient(Option<Replies>),
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    passed: &watch::Sender<Passed>,
    mut way: Way,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 {
            return Ok(());
        }
        let now = *weather.borrow();
        passed.send_modify(|passed| match way {
            Way::ToServer => passed.requests += 1,
            Way::ToClient(_) => passed.replies += 1,
        });
        if !now.delay.is_zero() {
            sleep(now.delay).await;
        }
        let piece = &bytes[..length];
        match &mut way {
            // No network loses what was sent and delivers what was sent after it: this connection says nothing any more.
            Way::ToClient(_) if lost || now.lose_replies => lost = true,
            Way::ToClient(replies) => {
                _ = weather.wait_for(|weather| !weather.hold_replies).await;
                match replies {
                    Some(replies) => to.write_all(&replies.put(piece)?).await?,
                    None => to.write_all(piece).await?,
                }
            }
            Way::ToServer => {
                _ = weather.wait_for(|weather| !weather.hold_requests).await;
                to.write_all(piece).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::port::Port, *};
    use tokio::net::TcpListener;

    async fn echo() -> (Wire, Port, TcpStream, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (heard, hears) = tokio::sync::mpsc::unbounded_channel();
        let wire = Wire::to(&listener.local_addr().unwrap().to_string());
        let port = Port::of(wire.clone()).await.unwrap();
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
        let client = TcpStream::connect(port.address()).await.unwrap();
        (wire, port, client, hears)
    }

    #[tokio::test]
    async fn a_lost_reply_is_that_of_a_request_that_arrived() {
        let (wire, _port, mut client, mut server) = echo().await;
        wire.set(|weather| weather.lose_replies = true);
        client.write_all(b"asked").await.unwrap();
        assert_eq!(server.recv().await.unwrap(), b"asked");
        // The reply has to have come to the wire before the weather clears.
        wire.passed.subscribe().wait_for(|passed| passed.replies == 1).await.unwrap();
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
        let (wire, _port, mut client, mut server) = echo().await;
        wire.set(|weather| weather.hold_requests = true);
        client.write_all(b"late").await.unwrap();
        // The wire has to have read it before the client ends.
        wire.passed.subscribe().wait_for(|passed| passed.requests == 1).await.unwrap();
        drop(client);
        assert!(server.try_recv().is_err());
        wire.set(|weather| weather.hold_requests = false);
        assert_eq!(server.recv().await.unwrap(), b"late");
    }
}
