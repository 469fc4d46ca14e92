//! How a server is reached: at a fixed address, wherever the sentinels say the primary is, or at any of a cluster's nodes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{Clock, ErrorKind, StoreError};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, RedisResult,
    aio::{MultiplexedConnection, PubSub},
};

use crate::{error, sentinel::Sentinels, tls};

/// Where connections lead.
pub(crate) enum Place {
    /// To this server.
    Server(Box<ConnectionInfo>),
    /// To the primary that these sentinels name, asked anew for each connection.
    Primary(Box<Sentinels>),
    /// To the first of these that answers: nodes of one cluster, in which a message published at one reaches all.
    AnyOf(Vec<ConnectionInfo>),
}

impl Place {
    /// The number of the database.
    pub(crate) fn database(&self) -> i64 {
        match self {
            Self::Server(info) => info.redis_settings().db(),
            Self::Primary(sentinels) => sentinels.database(),
            Self::AnyOf(_) => 0,
        }
    }

    fn is_secure(&self) -> bool {
        let secure = |info: &ConnectionInfo| matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        match self {
            Self::Server(info) => secure(info),
            Self::Primary(sentinels) => sentinels.any(secure),
            Self::AnyOf(nodes) => nodes.iter().any(secure),
        }
    }
}

/// Makes connections to one place, each within its time.
pub(crate) struct Door {
    place: Place,
    address: String,
    connect_timeout: Duration,
    clock: Arc<dyn Clock>,
}

/// A connection for commands, shared by all who send them.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) connection: MultiplexedConnection,
    /// Set when it broke, or when it is no longer trusted.
    ended: Arc<AtomicBool>,
}

impl Line {
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// From now on nobody begins anything on it; what is under way goes on.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Door {
    pub(crate) fn new(place: Place, connect_timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        let address = match &place {
            Place::Server(info) => address(info.addr()),
            Place::Primary(sentinels) => sentinels.to_string(),
            Place::AnyOf(nodes) => nodes.iter().map(|node| address(node.addr())).collect::<Vec<_>>().join(", "),
        };
        Self { place, address, connect_timeout, clock }
    }

    /// Where it leads, for people; without user and password.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether a server that turns out to be read-only is a reason to ask again where the primary is.
    pub(crate) fn is_told_the_primary(&self) -> bool {
        matches!(self.place, Place::Primary(_))
    }

    /// A connection for commands.
    pub(crate) async fn line(&self) -> Result<Line, StoreError> {
        self.first(ProtocolVersion::RESP3, |client| async move {
            let ended = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&ended);
            // With RESP3 the driver tells when the connection ends, so that the next command needn't find out by failing.
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                // A time-out of the driver's would come unseen; ours are explicit.
                .set_response_timeout(None)
                .set_push_sender(move |push: PushInfo| {
                    if push.kind == PushKind::Disconnection {
                        seen.store(true, Ordering::Relaxed);
                    }
                    Ok::<(), redis::aio::SendError>(())
                });
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            Ok(Line { connection, ended })
        })
        .await
    }

    /// A connection on which a channel is subscribed to.
    ///
    /// Of the older protocol: it needs no greeting, so a subscription is a single command to the server.
    pub(crate) async fn subscription(&self, channel: &str) -> Result<PubSub, StoreError> {
        let channel: Arc<str> = channel.into();
        self.first(ProtocolVersion::RESP2, |client| {
            let channel = Arc::clone(&channel);
            async move {
                let mut subscription = client.get_async_pubsub().await?;
                subscription.subscribe(&*channel).await?;
                Ok(subscription)
            }
        })
        .await
    }

    /// What the first server gives that can be reached; several are tried at once.
    async fn first<T, F>(&self, protocol: ProtocolVersion, open: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        self.in_time(async {
            let mut attempts: FuturesUnordered<_> = self
                .clients(protocol)
                .await?
                .into_iter()
                .map(|client| {
                    let info = client.get_connection_info().clone();
                    let opened = open(client);
                    async move { opened.await.map_err(|error| error::of_connect(error, &info)) }
                })
                .collect();
            let mut last = Err(StoreError::refused(ErrorKind::InvalidConfig, "there is no address to connect to"));
            while let Some(made) = attempts.next().await {
                match made {
                    Ok(made) => return Ok(made),
                    Err(error) => last = Err(error),
                }
            }
            last
        })
        .await
    }

    async fn clients(&self, protocol: ProtocolVersion) -> Result<Vec<Client>, StoreError> {
        let infos = match &self.place {
            Place::Server(info) => vec![(**info).clone()],
            Place::Primary(sentinels) => vec![sentinels.primary().await?],
            Place::AnyOf(nodes) => nodes.clone(),
        };
        infos.into_iter().map(|info| client(info, protocol)).collect()
    }

    async fn in_time<T>(&self, attempt: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let give_up = self.clock.now() + self.connect_timeout;
        tokio::select! {
            made = attempt => made,
            () = self.clock.sleep_until(give_up) => {
                // A server without TLS waits for the rest of what it takes for a command.
                let hint = if self.place.is_secure() { "; use redis:// if that port doesn't speak TLS" } else { "" };
                let message = format!("{} didn't answer within {:?}{hint}", self.address, self.connect_timeout);
                Err(StoreError::refused(ErrorKind::Unreachable, message))
            }
        }
    }
}

/// A client that speaks this protocol; opens nothing yet.
pub(crate) fn client(info: ConnectionInfo, protocol: ProtocolVersion) -> Result<Client, StoreError> {
    tls::prepare(info.addr());
    let resp3 = protocol != ProtocolVersion::RESP2;
    let mut settings = info.redis_settings().clone().set_protocol(protocol);
    settings = if resp3 {
        settings.set_lib_name("leasehold", env!("CARGO_PKG_VERSION"))
    } else {
        // Channels know no databases.
        settings.set_skip_set_lib_name().set_db(0)
    };
    let info = info.set_redis_settings(settings).into_connection_info();
    info.and_then(Client::open).map_err(error::of_config)
}

/// Where a server is, for people.
pub(crate) fn address(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            }
        }
        ConnectionAddr::Unix(path) => path.display().to_string(),
        _ => "an address of an unknown kind".to_owned(),
    }
}

impl fmt::Debug for Door {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Door").field(&self.address).finish()
    }
}
