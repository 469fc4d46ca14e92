//! A look at a lock from outside of the transaction that it guards.

use std::{sync::OnceLock, time::Duration};

use lock_core::{Applied, ErrorKind, Fence, StoreError};
use sqlx::{PgPool, Postgres, pool::PoolConnection, postgres::PgRow};
use tokio::time::timeout;

use super::{guarding::Guarding, of_fence};
use crate::rows::column;

/// How many look at once; a look takes one message.
const CONNECTIONS: u32 = 2;

/// A look in all, connecting included. Behind a pooler it may wait for a connection to the server, and whoever has those for this
/// look: nobody but us sees that. Longer than the server's own limit in `fence_look_elsewhere.sql`, which says more.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sees what a transaction doesn't that sees only what was there at its first statement: that its lease was renewed since, or
/// taken away.
///
/// On connections of its own, made when they are needed: each of the application's may be in a transaction that waits for
/// this look.
#[derive(Debug)]
pub(super) struct Elsewhere {
    application: PgPool,
    own: OnceLock<PgPool>,
}

impl Elsewhere {
    pub(super) fn new(application: PgPool) -> Self {
        Self { application, own: OnceLock::new() }
    }

    /// Which server says that the grant holds its lock now; nothing if it doesn't.
    ///
    /// # Errors
    /// Those of a look: nothing is changed. [`ErrorKind::Contention`] if it takes longer than two seconds.
    pub(super) async fn sees_held(&self, look: &Guarding, fence: &Fence) -> Result<Option<Server>, StoreError> {
        let rows = timeout(PATIENCE, self.ask(look, fence)).await.map_err(|_| too_late())?;
        let rows = rows.map_err(|error| of_fence(error, Applied::No, "locks"))?;
        // The first row is that of the setting.
        let Some(row) = rows.get(1) else { return Ok(None) };
        Ok(if column(row, "held")? { Some(Server::of(row)?) } else { None })
    }

    async fn ask(&self, look: &Guarding, fence: &Fence) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut asking = Asking { connection: self.connection().await?, answered: false };
        let rows = look.run(&mut asking.connection, fence).await;
        asking.answered = true;
        rows
    }

    async fn connection(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let own = self.own.get_or_init(|| {
            // As the application wants its connections, roles and all.
            let options = self.application.options().clone().min_connections(0).max_connections(CONNECTIONS);
            options.connect_lazy_with((*self.application.connect_options()).clone())
        });
        own.acquire().await
    }
}

/// Which server it is, by when it was started: one address may lead to several, a deposed primary or a standby among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server(i64);

impl Server {
    pub(super) fn of(row: &PgRow) -> Result<Self, StoreError> {
        column(row, "server").map(Self)
    }

    /// As the statements take it.
    pub(super) fn digits(self) -> String {
        self.0.to_string()
    }
}

/// A connection that is asked. Given up before its answer, it is closed: the pool would wait for that answer, and keep the next look
/// waiting.
struct Asking {
    connection: PoolConnection<Postgres>,
    answered: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close_on_drop();
        }
    }
}

fn too_late() -> StoreError {
    let message = format!(
        "whether the lease goes on wasn't answered within {PATIENCE:?}: a pooler, or a limit of connections, must leave room for \
         {CONNECTIONS} more than there are guarded transactions at once"
    );
    StoreError::refused(ErrorKind::Contention, message)
}
