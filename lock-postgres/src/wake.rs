//! How waiters are woken: one `LISTEN` connection for all watchers, kept by the core's `Listener`.
//!
//! What is announced while that connection is cut is lost (a `NOTIFY` is for who listens now), so everybody is
//! woken once it listens again. An expiry announces nothing: waiters sleep until it themselves.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lock_core::{Clock, ErrorKind, EventSource, Heard, Moment, StoreError};
use sqlx::{
    Acquire, Connection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use crate::{connections::address, error};

/// How often a connection is asked whether it is still there, and whether anybody still watches.
///
/// The driver sets no TCP keepalive, so a connection that was cut silently would be listened to for ever.
/// What is sent is a bare `Sync` message: the server runs no statement for it.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// The channel on which releases are announced.
pub(crate) struct Announcements {
    pub(crate) options: PgConnectOptions,
    pub(crate) channel: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A connection on which `LISTEN` is in force.
pub(crate) struct Listening {
    connection: PgListener,
    look_at: Moment,
}

impl Announcements {
    async fn is_alive(&self, listener: &mut PgListener) -> bool {
        let give_up = self.clock.now() + self.connect_timeout;
        let ping = async {
            let connection = listener.acquire().await?;
            connection.ping().await
        };
        tokio::select! {
            answered = ping => answered.is_ok(),
            () = self.clock.sleep_until(give_up) => false,
        }
    }
}

#[async_trait]
impl EventSource for Announcements {
    type Subscription = Listening;

    async fn subscribe(&self) -> Result<Listening, StoreError> {
        let give_up = self.clock.now() + self.connect_timeout;
        let connect = async {
            // A pool of its own for each connection: the remains of a dead one don't stand in the next one's way.
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(self.connect_timeout)
                .max_lifetime(None)
                .idle_timeout(None)
                .connect_lazy_with(self.options.clone());
            let mut listener = PgListener::connect_with(&pool).await?;
            // Otherwise it reconnects before it tells of the gap, and again and again without a pause.
            listener.eager_reconnect(false);
            listener.listen(&self.channel).await?;
            Ok(listener)
        };
        let server = address(&self.options);
        let connection = tokio::select! {
            made = connect => made.map_err(|error| error::of_connect(error, &server)),
            () = self.clock.sleep_until(give_up) => Err(StoreError::refused(
                ErrorKind::Unreachable,
                format!("{server} gave no connection to listen on within {:?}", self.connect_timeout),
            )),
        }?;
        Ok(Listening { connection, look_at: self.clock.now() + LOOK_EVERY })
    }

    async fn next(&self, listening: &mut Listening) -> Heard {
        loop {
            tokio::select! {
                event = listening.connection.try_recv() => match event {
                    Ok(Some(event)) if event.channel() == self.channel => {
                        return Heard::Lock(event.payload().to_owned());
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Heard::Cut,
                },
                () = self.clock.sleep_until(listening.look_at) => {
                    let alive = self.is_alive(&mut listening.connection).await;
                    listening.look_at = self.clock.now() + LOOK_EVERY;
                    return if alive { Heard::Nothing } else { Heard::Cut };
                }
            }
        }
    }
}
