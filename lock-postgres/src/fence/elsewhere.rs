//! A look at a lock from outside of the transaction that it guards.

use std::sync::OnceLock;

use lock_core::{Applied, Fence, StoreError};
use sqlx::{PgPool, Postgres, pool::PoolConnection};

use super::{guarding::Guarding, of_fence};
use crate::rows::column;

/// How many look at once; a look takes one message.
const CONNECTIONS: u32 = 2;

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

    /// Whether the grant holds its lock now.
    ///
    /// # Errors
    /// Those of a look: nothing is changed.
    pub(super) async fn sees_held(&self, look: &Guarding, fence: &Fence) -> Result<bool, StoreError> {
        let read = async { look.run(&mut *self.connection().await?, fence).await };
        let rows = read.await.map_err(|error| of_fence(error, Applied::No, "locks"))?;
        // The first row is that of the setting.
        rows.get(1).map_or(Ok(false), |row| column(row, "held"))
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
