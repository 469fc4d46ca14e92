//! The way to the cluster: one server at a time, another one when it fails.
//!
//! The driver's own balancing would spread requests over all servers, the ones that fell silent among them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use etcd_client::{Client, ConnectOptions, TlsOptions};
use lock_core::{Applied, Clock, Entropy, Moment, OsEntropy, StoreError};
use tokio::sync::watch;

use crate::{
    error::{self, Failure, Remedy},
    source::{Servers, Way},
};

/// The server refuses clients that ping more often than each 5 s (its `--grpc-keepalive-min-time`).
const PING: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// How requests get to the cluster.
pub(crate) struct Link {
    way: Way,
    current: Mutex<Current>,
    /// Held by the one who connects.
    connecting: tokio::sync::Mutex<()>,
    /// Raised whenever a connection is given up.
    breaks: watch::Sender<u64>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) operation_timeout: Duration,
    connect_timeout: Duration,
}

struct Current {
    /// Raised whenever another connection is made.
    number: u64,
    /// Which of the servers.
    at: usize,
    client: Option<Client>,
}

/// A connection that worked a moment ago, or was never used.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) number: u64,
}

/// What came of a request.
pub(crate) struct Done<T> {
    pub(crate) answer: T,
    /// Whether an earlier attempt may have been applied as well, or may be later.
    pub(crate) in_doubt: bool,
}

/// What to do about an attempt that may have been applied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    SendAgain,
    Stop,
}

impl Link {
    pub(crate) fn new(way: Way, clock: Arc<dyn Clock>, operation_timeout: Duration, connect_timeout: Duration) -> Self {
        // Anyone: clients that all begin with the first would all be at one server.
        let at = usize::try_from(OsEntropy.next_u64() >> 33).unwrap_or(0);
        let current = Mutex::new(Current { number: 0, at, client: None });
        let (connecting, breaks) = (tokio::sync::Mutex::default(), watch::Sender::default());
        Self { way, current, connecting, breaks, clock, operation_timeout, connect_timeout }
    }

    /// The servers, for people.
    pub(crate) fn shown(&self) -> String {
        match &self.way {
            Way::Own(servers) => servers.hosts.join(","),
            Way::Theirs(_) => "the application's client".to_owned(),
        }
    }

    /// How long one server has to answer.
    pub(crate) fn attempt_timeout(&self) -> Duration {
        self.operation_timeout / 3
    }

    /// The connection in use, or a new one. Cancel safe.
    pub(crate) async fn connection(&self) -> Result<Connection, Failure> {
        if let Some(connection) = self.made() {
            return Ok(connection);
        }
        let _turn = self.connecting.lock().await;
        if let Some(connection) = self.made() {
            return Ok(connection);
        }
        let client = match &self.way {
            Way::Theirs(client) => client.as_ref().clone(),
            Way::Own(servers) => {
                let at = self.current().at % servers.hosts.len();
                let connected = self.connect(servers, &servers.hosts[at]).await;
                connected.inspect_err(|_| self.current().at += 1)?
            }
        };
        let mut current = self.current();
        current.number += 1;
        current.client = Some(client.clone());
        Ok(Connection { client, number: current.number })
    }

    async fn connect(&self, servers: &Servers, host: &str) -> Result<Client, Failure> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.connect_timeout)
            .with_keep_alive(PING, PING_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_tcp_keepalive(Duration::from_secs(30))
            // A server that knows no leader says so at once, and another one is asked.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &servers.login {
            options = options.with_user(user, password);
        }
        let scheme = if servers.tls { "https" } else { "http" };
        if servers.tls {
            options = options.with_tls(TlsOptions::new().with_native_roots());
        }
        // No more than logs in: the connection itself is made for the first request.
        let limit = self.connect_timeout;
        let connecting = Client::connect([format!("{scheme}://{host}")], Some(options));
        self.within(limit, connecting).await.unwrap_or(Err(Failure::Unconnected(limit)))
    }

    fn made(&self) -> Option<Connection> {
        let current = self.current();
        Some(Connection { client: current.client.clone()?, number: current.number })
    }

    /// Says that this connection failed: the next one is to another server.
    pub(crate) fn broken(&self, number: u64) {
        let mut current = self.current();
        if current.number == number && current.client.take().is_some() {
            current.at += 1;
            drop(current);
            self.breaks.send_modify(|breaks| *breaks += 1);
        }
    }

    /// Tells when a connection is given up.
    pub(crate) fn breaks(&self) -> watch::Receiver<u64> {
        self.breaks.subscribe()
    }

    /// Whether this is still the connection in use.
    pub(crate) fn is_current(&self, number: u64) -> bool {
        let current = self.current();
        current.number == number && current.client.is_some()
    }

    /// A request that writes, and may be sent again: it finds out by itself what an earlier attempt has done.
    pub(crate) async fn write<T, W>(&self, send: impl Fn(Client) -> W) -> Result<Done<T>, StoreError>
    where
        W: Future<Output = Result<T, etcd_client::Error>>,
    {
        let give_up = self.clock.now() + self.operation_timeout;
        let mut in_doubt = false;
        self.attempts(give_up, send, &mut in_doubt, Doubt::SendAgain)
            .await
            .map(|answer| Done { answer, in_doubt })
            .map_err(|failure| {
                let error = error::of_writing(failure);
                match error.applied() {
                    // What went before it may have been applied.
                    Applied::No if in_doubt => StoreError::unknown(error.kind(), bare(&error)).caused_by(error),
                    _ => error,
                }
            })
    }

    /// A request that writes what isn't ours, so that nobody can find out what an earlier attempt has done: it isn't sent
    /// again where it may have been applied.
    pub(crate) async fn write_once<T, W>(&self, give_up: Moment, send: impl Fn(Client) -> W) -> Result<T, StoreError>
    where
        W: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.attempts(give_up, send, &mut false, Doubt::Stop).await.map_err(error::of_writing)
    }

    /// A request that changes no lock.
    pub(crate) async fn read<T, W>(&self, send: impl Fn(Client) -> W) -> Result<T, StoreError>
    where
        W: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.read_until(self.clock.now() + self.operation_timeout, send).await
    }

    pub(crate) async fn read_until<T, W>(&self, give_up: Moment, send: impl Fn(Client) -> W) -> Result<T, StoreError>
    where
        W: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.attempts(give_up, send, &mut false, Doubt::SendAgain).await.map_err(error::of_reading)
    }

    async fn attempts<T, W>(
        &self,
        give_up: Moment,
        send: impl Fn(Client) -> W,
        in_doubt: &mut bool,
        doubt: Doubt,
    ) -> Result<T, Failure>
    where
        W: Future<Output = Result<T, etcd_client::Error>>,
    {
        let servers = if let Way::Own(servers) = &self.way { servers.hosts.len() } else { 1 };
        let most = 2 * servers + 1;
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let connection = tokio::select! {
                biased;
                connection = self.connection() => connection,
                () = self.clock.sleep_until(give_up) => Err(Failure::Unconnected(self.connect_timeout)),
            };
            let failure = match connection {
                Err(failure) => failure,
                Ok(Connection { client, number }) => {
                    let rest = give_up.since(self.clock.now());
                    let limit = match doubt {
                        Doubt::SendAgain => self.attempt_timeout().min(rest),
                        // Nobody else is asked when this one says nothing.
                        Doubt::Stop => rest,
                    };
                    match self.within(limit, send(client)).await {
                        Some(Ok(answer)) => return Ok(answer),
                        outcome => {
                            let failure = outcome.and_then(Result::err).unwrap_or(Failure::Silent(limit));
                            if failure.remedy() == Remedy::Reconnect {
                                self.broken(number);
                            }
                            *in_doubt |= failure.applied() == Applied::Maybe;
                            failure
                        }
                    }
                }
            };
            let again = self.clock.now() + pause;
            let stops = *in_doubt && doubt == Doubt::Stop;
            if stops || failure.remedy() == Remedy::None || attempt >= most || again >= give_up {
                return Err(failure);
            }
            tracing::debug!(?failure, attempt, "an attempt failed; another follows");
            // As soon as there is another server to be asked.
            if attempt % servers == 0 || failure.remedy() == Remedy::TryAgain {
                self.clock.sleep_until(again).await;
                pause *= 2;
            }
        }
        Err(Failure::Silent(self.operation_timeout))
    }

    /// The outcome; `None` if there was none in time.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Option<Result<T, Failure>> {
        let end = self.clock.now() + limit;
        tokio::select! {
            biased;
            outcome = work => Some(outcome.map_err(Failure::from)),
            () = self.clock.sleep_until(end) => None,
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error's own words, which nothing has been added to yet.
fn bare(error: &StoreError) -> String {
    error.to_string()
}
