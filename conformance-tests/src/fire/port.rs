//! Where a client's connections come in: ports of 127.0.0.1, with wires behind them.

use std::{io, net::SocketAddr};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{socks, wire::Wire};
use crate::asker::sleep;

/// A port that takes connections until it is dropped. It belongs to the tokio runtime it was opened on.
#[derive(Debug)]
pub(super) struct Port {
    address: SocketAddr,
    listening: JoinHandle<()>,
}

impl Port {
    /// Behind which there is one wire.
    pub(super) async fn of(wire: Wire) -> io::Result<Self> {
        Self::open(move |client| wire.take(client)).await
    }

    /// Behind which there is a wire to each server, and the client says by SOCKS5 to which it wants to go.
    pub(super) async fn of_all(wires: Vec<Wire>) -> io::Result<Self> {
        Self::open(move |client| {
            let wires = wires.clone();
            // Who asks for what isn't there, or doesn't speak SOCKS5, is hung up on.
            tokio::spawn(async move { socks::serve(client, &wires).await });
        })
        .await
    }

    async fn open(take: impl Fn(TcpStream) + Send + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { address, listening: tokio::spawn(listen(listener, take)) })
    }

    /// Where the client connects to.
    #[must_use]
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, take: impl Fn(TcpStream)) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => take(client),
            // No file left, for example: others may close theirs.
            Err(_) => sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}
