//! What everything stands on: the servers, the paths, the rights and the clock.

use std::{
    io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset},
    sync::Arc,
    time::Duration,
};

use futures_util::future::{join, join_all, select_all};
use lock_core::{Applied, Clock, ErrorKind, Moment, StoreError};
use tokio::net::TcpStream;
use zookeeper_client::{Acls, Client, Connector, CreateMode, CreateOptions, Error};

use crate::{
    config::Settings, error::Trouble, greeting, names::Paths, renegotiated::Found, session::Limits, url::Address,
};

/// Longer than servers grant, and in their 32 bits of milliseconds.
pub(crate) const LONGEST: Duration = Duration::from_secs(1_000_000);

/// Between an attempt that failed at once and the next.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Ground {
    pub(crate) paths: Paths,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) operation_timeout: Duration,
    /// How long the servers' tick is, if that was told.
    pub(crate) tick: Option<Duration>,
    /// What sessions the servers were found to grant last.
    pub(crate) found: Found,
    pub(crate) connect_timeout: Duration,
    address: Address,
    open_acl: bool,
}

/// The time that an operation has.
pub(crate) struct Patience<'a> {
    clock: &'a dyn Clock,
    until: Moment,
    limit: Duration,
}

impl Patience<'_> {
    /// Waits for an answer, for as long as there is time.
    pub(crate) async fn of<T, E: Into<Trouble>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Trouble> {
        self.within(answer).await?.map_err(Into::into)
    }

    /// Waits for whatever it is, for as long as there is time.
    pub(crate) async fn within<T>(&self, whatever: impl Future<Output = T>) -> Result<T, Trouble> {
        tokio::select! {
            biased;
            answer = whatever => Ok(answer),
            () = self.clock.sleep_until(self.until) => Err(Trouble::Silent(self.limit)),
        }
    }

    /// Before what failed at once is tried again.
    pub(crate) async fn pause(&self) {
        self.clock.sleep_until((self.clock.now() + PAUSE).min(self.until)).await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.clock.now() >= self.until
    }

    pub(crate) fn silent(&self) -> Trouble {
        Trouble::Silent(self.limit)
    }
}

impl Ground {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            paths: settings.paths,
            clock: settings.clock,
            operation_timeout: settings.operation_timeout,
            tick: settings.tick,
            found: Found::default(),
            connect_timeout: settings.connect_timeout,
            address: settings.address,
            open_acl: settings.open_acl,
        }
    }

    pub(crate) fn hosts(&self) -> &str {
        &self.address.hosts
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(crate) fn patience(&self, limit: Duration) -> Patience<'_> {
        Patience { clock: &*self.clock, until: self.now() + limit, limit }
    }

    /// The URL's chroot; empty for none.
    pub(crate) fn chroot(&self) -> &str {
        &self.address.chroot
    }

    /// How a node of this kind is made.
    pub(crate) fn options(&self, mode: CreateMode) -> CreateOptions<'static> {
        mode.with_acls(if self.open_acl { Acls::anyone_all() } else { Acls::creator_all() })
    }

    /// Makes a node and those above it that are missing.
    pub(crate) async fn make(&self, client: &Client, path: &str, patience: &Patience<'_>) -> Result<(), Trouble> {
        let options = self.options(CreateMode::Persistent);
        patience.of(client.mkdir(path, &options)).await
    }

    /// What opens sessions of about this timeout.
    pub(crate) fn connector(&self, timeout: Duration) -> Connector {
        let connector = Client::connector().with_session_timeout(timeout);
        match &self.address.login {
            Some(login) => connector.with_auth("digest", login.as_bytes()),
            None => connector,
        }
    }

    /// Opens a session of about this timeout.
    ///
    /// Returns when it was asked for at the latest, too.
    pub(crate) async fn open(&self, timeout: Duration) -> Result<(Client, Moment), StoreError> {
        let patience = self.patience(self.connect_timeout);
        loop {
            let asked = self.now();
            match patience.of(self.connector(timeout).connect(&self.address.hosts)).await {
                Ok(client) => return Ok((client, asked)),
                Err(Trouble::Said(Error::AuthFailed)) => {
                    return Err(StoreError::refused(ErrorKind::Denied, "the servers refused user and password"));
                }
                // The driver's time for a new session is the session's timeout, which may be short.
                Err(Trouble::Said(_)) if !patience.is_over() => patience.pause().await,
                Err(trouble) => return Err(self.diagnosis(trouble).await),
            }
        }
    }

    /// Why no session could be had.
    async fn diagnosis(&self, trouble: Trouble) -> StoreError {
        let (hosts, limit) = (self.hosts(), self.connect_timeout);
        let patience = self.patience((limit / 4).min(Duration::from_millis(500)));
        let knock = |host| {
            patience.of(async move {
                match TcpStream::connect(host).await {
                    // Somebody is there, and hung up.
                    Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted) => Ok(()),
                    met => met.map(|_| ()).map_err(Io),
                }
            })
        };
        let mut refused = None;
        for answer in join_all(hosts.split(',').map(knock)).await {
            match answer {
                Ok(()) => {
                    let message = format!(
                        "{hosts} opened no session within {limit:?}: they must be ZooKeeper servers, a majority of them see each other, and let this address have one more connection (maxClientCnxns)"
                    );
                    return StoreError::refused(ErrorKind::Unreachable, message);
                }
                Err(Trouble::Said(Error::UnexpectedError(said))) => refused = Some(said),
                Err(_) => {}
            }
        }
        let why = refused.unwrap_or_else(|| format!("no answer within {limit:?}"));
        let error = StoreError::refused(ErrorKind::Unreachable, format!("{hosts} can't be reached: {why}"));
        match trouble {
            Trouble::Said(cause) => error.caused_by(cause),
            Trouble::Silent(_) | Trouble::Corrupt(_) | Trouble::TickDenied(_) | Trouble::Told(_) => error,
        }
    }

    /// Which sessions the servers grant, and a client with the longest.
    pub(crate) async fn learn(&self) -> Result<(Client, Limits), StoreError> {
        let (longest, shortest) = tokio::join!(self.open(LONGEST), self.shortest());
        let client = longest?.0;
        let limits = Limits { shortest: shortest?, longest: client.session_timeout() };
        Ok((client, limits))
    }

    /// The shortest session that is granted, by the first server that tells. All are asked at once: one that doesn't answer
    /// costs no time.
    async fn shortest(&self) -> Result<Duration, StoreError> {
        let patience = &self.patience(self.connect_timeout);
        let ask = |host| {
            Box::pin(async move {
                while !patience.is_over() {
                    // One that was taken up and is never answered would use up all the time, and another may be answered.
                    match self.patience(self.connect_timeout / 4).within(greeting::shortest(host)).await {
                        Ok(Ok(granted)) => return granted,
                        Ok(Err(error)) => tracing::debug!(host, %error, "a server granted no session"),
                        Err(_) => tracing::debug!(host, "a server did not answer a greeting"),
                    }
                    patience.pause().await;
                }
                // The time for all of them is over, and whoever watches it has to have a turn: nothing else here may ever wait
                // (an address to which there is no way fails at once).
                std::future::pending().await
            })
        };
        match patience.within(select_all(self.hosts().split(',').map(ask))).await {
            Ok((granted, ..)) => Ok(granted),
            Err(trouble) => Err(self.diagnosis(trouble).await),
        }
    }

    /// Checks that the chroot is there, and makes the nodes under which something is kept where they are missing.
    pub(crate) async fn prepare(&self, client: &Client, nodes: &[String]) -> Result<(), StoreError> {
        let patience = self.patience(self.connect_timeout);
        let chroot = &self.address.chroot;
        let root = if chroot.is_empty() { "/" } else { chroot };
        // All at once. To read a node needs the right to, which to look for it doesn't.
        let (root, found) = (client.check_stat(root), join_all(nodes.iter().map(|node| client.get_data(node))));
        let answers = patience.of(async { Ok::<_, Trouble>(join(root, found).await) }).await;
        let (root, found) = answers.map_err(|trouble| trouble.told(self.paths.base(), Applied::No))?;
        if root.map_err(|error| Trouble::from(error).told(chroot, Applied::No))?.is_none() {
            let message = format!("the chroot {chroot} isn't there: create it, or correct the URL");
            return Err(StoreError::refused(ErrorKind::NotReady, message));
        }
        for (path, found) in nodes.iter().zip(found) {
            let ready = match found {
                Ok(_) => Ok(()),
                Err(Error::NoNode) => self.make(client, path, &patience).await,
                Err(error) => Err(error.into()),
            };
            ready.map_err(|trouble| trouble.told(path, Applied::No))?;
        }
        Ok(())
    }
}

/// An error of the network, on its way through the driver's.
struct Io(std::io::Error);

impl From<Io> for Trouble {
    fn from(Io(error): Io) -> Self {
        Self::Said(Error::UnexpectedError(error.to_string().to_lowercase()))
    }
}
