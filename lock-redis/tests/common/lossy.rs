//! A way to a server that loses the answer to the next script, once it is told to.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use lock_redis::redis::cluster::NodeAddress;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Ways to one server, or to the nodes of a cluster. Only the next answer is lost, whichever way it comes.
pub(crate) struct Lossy {
    ways: Vec<(String, String)>,
    loses: Arc<AtomicBool>,
}

impl Lossy {
    /// Before each of these, by `host:port`.
    pub(crate) async fn before<'a>(servers: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut ways, loses) = (Vec::new(), Arc::new(AtomicBool::new(false)));
        for server in servers {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ways.push((server.to_owned(), listener.local_addr().unwrap().to_string()));
            let (to, loses) = (server.to_owned(), Arc::clone(&loses));
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let server = TcpStream::connect(&to).await.unwrap();
                    tokio::spawn(pass_on(client, server, Arc::clone(&loses)));
                }
            });
        }
        Self { ways, loses }
    }

    /// The server is asked, and the connection ends before its answer is passed on.
    pub(crate) fn lose_the_next_answer(&self) {
        self.loses.store(true, Ordering::SeqCst);
    }

    /// The URL by these ways.
    pub(crate) fn url(&self, url: &str) -> String {
        self.ways.iter().fold(url.to_owned(), |url, (server, way)| url.replace(server, way))
    }

    /// For a cluster's client: its nodes tell it where they are themselves.
    pub(crate) fn ways(&self) -> impl Iterator<Item = (NodeAddress, NodeAddress)> {
        let address = |text: &str| {
            let (host, port) = text.rsplit_once(':').unwrap();
            NodeAddress::new(host, port.parse().unwrap())
        };
        self.ways.iter().map(move |(server, way)| (address(server), address(way)))
    }
}

/// Ends when either side does, and instead of passing on the answer that is to be lost.
async fn pass_on(mut client: TcpStream, mut server: TcpStream, loses: Arc<AtomicBool>) {
    let (mut asked, mut told) = (vec![0; 65536], vec![0; 65536]);
    let mut lost = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                if asked[..length].windows(7).any(|word| word == b"EVALSHA") && loses.swap(false, Ordering::SeqCst) {
                    lost = true;
                }
                server.write_all(&asked[..length]).await.unwrap();
            }
            read = server.read(&mut told) => {
                let Ok(length @ 1..) = read else { return };
                if lost || client.write_all(&told[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
