//! The connections: few, our own, and never trusted.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lock_core::{Clock, ErrorKind, Moment, StoreError};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{error, session::Session};

/// A connection that was idle for longer is replaced: a firewall may have forgotten it without telling.
const MAX_IDLE: Duration = Duration::from_secs(240);

/// A small pool.
///
/// Not the driver's: that one tests a connection before each use (a round trip), or else may hand out one
/// dead connection after another when the server was restarted, and it hides why none could be had.
pub(crate) struct Connections {
    pub(crate) session: Session,
    connect_timeout: Duration,
    clock: Arc<dyn Clock>,
    permits: Semaphore,
    idle: Mutex<Vec<(PgConnection, Moment)>>,
}

/// A connection taken from the pool. Dropped, it is closed; see [`Connections::put_back`].
pub(crate) struct Taken<'a> {
    pub(crate) connection: PgConnection,
    /// Whether it was used before, so that it may have died meanwhile.
    pub(crate) used_before: bool,
    _permit: SemaphorePermit<'a>,
}

impl Connections {
    pub(crate) fn new(session: Session, most: usize, connect_timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { session, connect_timeout, clock, permits: Semaphore::new(most), idle: Mutex::default() }
    }

    /// Takes the connection that was used last, or makes one. Waits while too many are out.
    pub(crate) async fn take(&self) -> Result<Taken<'_>, StoreError> {
        let _permit = self.permits.acquire().await.map_err(|_| closed())?;
        let now = self.clock.now();
        let reused = {
            let mut idle = self.idle();
            idle.retain(|(_, since)| now.since(*since) < MAX_IDLE);
            idle.pop()
        };
        let used_before = reused.is_some();
        let connection = match reused {
            Some((connection, _)) => connection,
            None => self.connect().await?,
        };
        Ok(Taken { connection, used_before, _permit })
    }

    /// Gives back a connection whose session is in order.
    pub(crate) fn put_back(&self, taken: Taken<'_>) {
        self.keep(taken.connection);
    }

    /// Keeps a new connection for the next operation.
    pub(crate) fn keep(&self, connection: PgConnection) {
        self.idle().push((connection, self.clock.now()));
    }

    /// Closes the idle ones: one of them was found dead, so the others are likely to be.
    pub(crate) fn forget_idle(&self) {
        self.idle().clear();
    }

    /// The first connection. Where a pooler refuses the settings in its startup packet, this and all later ones
    /// go without.
    pub(crate) async fn connect_first(&mut self) -> Result<PgConnection, StoreError> {
        match self.connect().await {
            Err(error) if error::refuses_settings(&error) => {
                self.session.share();
                self.connect().await
            }
            made => made,
        }
    }

    /// A new connection, outside the count.
    pub(crate) async fn connect(&self) -> Result<PgConnection, StoreError> {
        let options = self.session.options();
        let give_up = self.clock.now() + self.connect_timeout;
        tokio::select! {
            made = PgConnection::connect_with(options) => {
                made.map_err(|error| error::of_connect(error, &address(options)))
            }
            () = self.clock.sleep_until(give_up) => Err(StoreError::refused(
                ErrorKind::Unreachable,
                format!("{} didn't answer within {:?}", address(options), self.connect_timeout),
            )),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(PgConnection, Moment)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed() -> StoreError {
    StoreError::refused(ErrorKind::Unreachable, "the provider is shut down")
}

/// Where the server is, for people; without user and password.
pub(crate) fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => format!("{} (port {})", socket.display(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

impl fmt::Debug for Connections {
    /// Without the options: they hold the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("server", &address(self.session.options()))
            .field("idle", &self.idle().len())
            .finish_non_exhaustive()
    }
}
