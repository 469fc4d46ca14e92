//! A line to the primary that breaks at a chosen command.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::{
    Client, Database,
    bson::doc,
    options::{ClientOptions, ServerAddress},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Place, seconds};

/// Passes bytes on to the primary, until it is armed and is to send this word: then it closes everything, for as long as it
/// isn't mended.
pub(crate) struct Line {
    inner: Arc<Inner>,
    client: Client,
}

struct Inner {
    primary: String,
    word: &'static str,
    broken: watch::Sender<bool>,
    /// Whether it breaks at the word, and then sends it before.
    armed: Mutex<Option<bool>>,
}

impl Line {
    pub(crate) async fn breaking_at(place: &Place, word: &'static str) -> Self {
        let hello = place.client.database("admin").run_command(doc! { "hello": 1 }).await.unwrap();
        let primary = hello.get_str("primary").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Inner { primary, word, broken: watch::Sender::new(false), armed: Mutex::new(None) });
        tokio::spawn({
            let inner = Arc::clone(&inner);
            async move {
                while let Ok((near, _)) = listener.accept().await {
                    if !*inner.broken.borrow() {
                        tokio::spawn(pass_on(near, Arc::clone(&inner)));
                    }
                }
            }
        });
        let mut options = ClientOptions::parse(place.url.as_str()).await.unwrap();
        options.hosts = vec![ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(port) }];
        options.direct_connection = Some(true);
        options.server_selection_timeout = Some(seconds(1));
        options.heartbeat_freq = Some(Duration::from_millis(500));
        Self { inner, client: Client::with_options(options).unwrap() }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn database(&self, place: &Place) -> Database {
        self.client.database(place.database.name())
    }

    /// Breaks at the next command with the word, which gets to the server before or doesn't.
    pub(crate) fn arm(&self, sends: bool) {
        *self.inner.armed.lock().unwrap() = Some(sends);
    }

    pub(crate) fn is_broken(&self) -> bool {
        *self.inner.broken.borrow()
    }

    pub(crate) async fn mend_once_broken(&self) {
        drop(self.inner.broken.subscribe().wait_for(|broken| *broken).await);
        self.inner.broken.send_replace(false);
    }

    /// Serves again, once the client has seen that.
    pub(crate) async fn mend(&self) {
        self.inner.broken.send_replace(false);
        for _ in 0..20 {
            if self.client.database("admin").run_command(doc! { "ping": 1 }).await.is_ok() {
                return;
            }
        }
        panic!("the client doesn't come back");
    }
}

async fn pass_on(mut near: TcpStream, inner: Arc<Inner>) {
    let Ok(mut far) = TcpStream::connect(&inner.primary).await else { return };
    let mut breaks = inner.broken.subscribe();
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            () = async { drop(breaks.wait_for(|broken| *broken).await) } => return,
            read = near.read(&mut asked) => {
                let Ok(read @ 1..) = read else { return };
                let has_it = asked[..read].windows(inner.word.len()).any(|window| window == inner.word.as_bytes());
                let breaks = if has_it { inner.armed.lock().unwrap().take() } else { None };
                if breaks != Some(false) && far.write_all(&asked[..read]).await.is_err() {
                    return;
                }
                if breaks.is_some() {
                    inner.broken.send_replace(true);
                    return;
                }
            }
            read = far.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                if near.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
