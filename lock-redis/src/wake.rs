//! How waiters are woken: one connection that subscribes to one channel, for all watchers, kept by the core's `Listener`.
//!
//! What is published while that connection is cut is lost, so everybody is woken once it is subscribed again. An expiry
//! publishes nothing: waiters sleep until it themselves.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt;
use lock_core::{Clock, EventSource, Heard, Moment, StoreError};
use redis::aio::{PubSubSink, PubSubStream};

use crate::door::Door;

/// How often a connection is asked whether it is still there, and whether anybody still watches: a connection that was
/// cut silently would be listened to for ever.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How long the answer to that may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// The channel of one server on which releases are published.
pub(crate) struct Announcements {
    pub(crate) door: Arc<Door>,
    pub(crate) channel: String,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A connection that is subscribed.
pub(crate) struct Listening {
    requests: PubSubSink,
    messages: PubSubStream,
    look_at: Moment,
}

impl Announcements {
    async fn is_alive(&self, requests: &mut PubSubSink) -> bool {
        let give_up = self.clock.now() + LOOK_TIMEOUT;
        tokio::select! {
            answered = requests.ping::<redis::Value>() => answered.is_ok(),
            () = self.clock.sleep_until(give_up) => false,
        }
    }
}

#[async_trait]
impl EventSource for Announcements {
    type Subscription = Listening;

    async fn subscribe(&self) -> Result<Listening, StoreError> {
        let (requests, messages) = self.door.subscription(&self.channel).await?.split();
        Ok(Listening { requests, messages, look_at: self.clock.now() + LOOK_EVERY })
    }

    async fn next(&self, listening: &mut Listening) -> Heard {
        loop {
            tokio::select! {
                message = listening.messages.next() => match message {
                    // Not everybody who may publish is one of us: what is no name wakes nobody.
                    Some(message) => if let Ok(name) = std::str::from_utf8(message.get_payload_bytes()) {
                        return Heard::Lock(name.to_owned());
                    },
                    None => return Heard::Cut,
                },
                () = self.clock.sleep_until(listening.look_at) => {
                    let alive = self.is_alive(&mut listening.requests).await;
                    listening.look_at = self.clock.now() + LOOK_EVERY;
                    return if alive { Heard::Nothing } else { Heard::Cut };
                }
            }
        }
    }
}
