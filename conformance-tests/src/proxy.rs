//! A TCP proxy in front of a server, with the faults of a network.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use lock_core::LockName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{asker::sleep, failure::Failure, faults::Faults};

/// A proxy on a port of 127.0.0.1 that passes bytes on to a server, and can stop doing so in several ways.
///
/// It belongs to the tokio runtime it was started on. Dropping it closes its port and all its connections.
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
    listening: JoinHandle<()>,
}

/// What all connections share.
struct Line {
    upstream: String,
    weather: watch::Sender<Weather>,
    refusing: AtomicBool,
    armed: Mutex<Vec<Armed>>,
    /// Raised by each arming: only bytes that come after it count.
    armings: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Weather {
    stalled: bool,
    delay: Duration,
    /// Raised by each cut; a connection lives under the number it was made with.
    cuts: u64,
}

/// Waits for a request with these bytes, to lose its reply.
struct Armed {
    pattern: Vec<u8>,
    gone: oneshot::Sender<()>,
}

impl Proxy {
    /// Starts a proxy in front of `host:port`.
    ///
    /// # Errors
    /// When no port can be had. The server itself is only looked for when somebody connects.
    pub async fn start(upstream: impl Into<String>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let line = Arc::new(Line {
            upstream: upstream.into(),
            weather: watch::Sender::default(),
            refusing: AtomicBool::new(false),
            armed: Mutex::default(),
            armings: AtomicU64::new(0),
        });
        let listening = tokio::spawn(Arc::clone(&line).listen(listener));
        Ok(Self { address, line, listening })
    }

    /// Where clients connect to instead of the server.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections. New ones are served, unless [`refuse`](Self::refuse) says otherwise.
    pub fn cut(&self) {
        self.line.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Whether new connections are closed as soon as they are made.
    pub fn refuse(&self, refuse: bool) {
        self.line.refusing.store(refuse, Ordering::SeqCst);
    }

    /// Holds all bytes, in both directions; nothing breaks.
    pub fn stall(&self) {
        self.line.weather.send_modify(|weather| weather.stalled = true);
    }

    /// Lets what was held go on its way.
    pub fn resume(&self) {
        self.line.weather.send_modify(|weather| weather.stalled = false);
    }

    /// Every piece of bytes is on its way for this much longer, in each direction.
    pub fn delay(&self, by: Duration) {
        self.line.weather.send_modify(|weather| weather.delay = by);
    }

    /// Arms, at once: the next request whose bytes contain `pattern` reaches the server, the server's answer is swallowed, and
    /// then the connection is closed. The future ends when that has happened.
    ///
    /// By pattern and not simply "the next request", because clients of a pool send requests of their own, such as pings.
    pub fn lose_reply_to(&self, pattern: impl Into<Vec<u8>>) -> BoxFuture<'static, Result<(), Failure>> {
        let (gone, lost) = oneshot::channel();
        self.line.armed().push(Armed { pattern: pattern.into(), gone });
        self.line.armings.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { lost.await.map_err(|_| Failure::new("the connection broke before its reply came")) })
    }
}

/// Lock names are looked for as they are: for stores that send them so.
impl Faults for Proxy {
    fn lose_next_reply(&self, name: &LockName) -> BoxFuture<'static, Result<(), Failure>> {
        self.lose_reply_to(name.as_str())
    }

    fn stall(&self) {
        Self::stall(self);
    }

    fn resume(&self) {
        Self::resume(self);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Line {
    fn armed(&self) -> std::sync::MutexGuard<'_, Vec<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(self: Arc<Self>, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            if !self.refusing.load(Ordering::SeqCst) {
                tokio::spawn(Arc::clone(&self).serve(client));
            }
        }
    }

    async fn serve(self: Arc<Self>, client: TcpStream) {
        let mut weather = self.weather.subscribe();
        let cuts = weather.borrow().cuts;
        let cut = async {
            // An error means that the proxy is gone, which is a cut as well.
            let _ = weather.wait_for(|weather| weather.cuts != cuts).await;
        };
        // However one half ends, both are dropped: a half-open connection is no fault that is asked for here.
        tokio::select! {
            () = cut => {}
            _ = self.pass(client) => {}
        }
    }

    async fn pass(&self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(&self.upstream).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let losing = Mutex::new(None);
        tokio::select! {
            ended = self.requests(from_client, to_server, &losing) => ended,
            ended = self.replies(from_server, to_client, &losing) => ended,
        }
    }

    async fn requests(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        losing: &Mutex<Option<oneshot::Sender<()>>>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; 64 * 1024];
        // The end of what went before: a pattern may lie across two reads.
        let mut seen: Vec<u8> = Vec::new();
        let mut armings = 0;
        loop {
            let length = from.read(&mut bytes).await?;
            if length == 0 {
                return Ok(());
            }
            let armed_since = self.armings.load(Ordering::SeqCst);
            if std::mem::replace(&mut armings, armed_since) != armed_since {
                seen.clear();
            }
            self.on_its_way().await;
            seen.extend_from_slice(&bytes[..length]);
            if let Some(gone) = self.disarm(&seen) {
                // Before the request is passed on, so that its reply can't be faster.
                *losing.lock().unwrap_or_else(PoisonError::into_inner) = Some(gone);
                seen.clear();
            }
            let keep = seen.len().saturating_sub(LockName::MAX_BYTES);
            seen.drain(..keep);
            to.write_all(&bytes[..length]).await?;
        }
    }

    async fn replies(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        losing: &Mutex<Option<oneshot::Sender<()>>>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let length = from.read(&mut bytes).await?;
            if length == 0 {
                return Ok(());
            }
            if let Some(gone) = losing.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _ = gone.send(());
                return Ok(());
            }
            self.on_its_way().await;
            to.write_all(&bytes[..length]).await?;
        }
    }

    async fn on_its_way(&self) {
        let mut weather = self.weather.subscribe();
        let delay = weather.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let _ = weather.wait_for(|weather| !weather.stalled).await;
    }

    /// Takes out the first that waits for what these bytes contain.
    fn disarm(&self, bytes: &[u8]) -> Option<oneshot::Sender<()>> {
        let mut armed = self.armed();
        let found =
            armed.iter().position(|armed| bytes.windows(armed.pattern.len()).any(|window| window == armed.pattern))?;
        Some(armed.swap_remove(found).gone)
    }
}
