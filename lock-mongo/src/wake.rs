//! How waiters are woken: one change stream for all watchers, kept by the core's `Listener`.
//!
//! A release is seen in the stream once a majority has it; it sends nothing of its own. The driver resumes a stream that
//! was cut where it ended. If it can't, a new stream begins later than the old one ended, so everybody is woken once it is
//! open. An expiry changes nothing at the server: waiters sleep until it themselves.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lock_core::{ErrorKind, EventSource, Heard, StoreError};
use mongodb::{bson::Document, change_stream::ChangeStream};

use crate::{error, operation::Runner};

/// How long the server keeps a question for events that there are none of.
///
/// Each is a command of its own, so the longer the quieter. A server that fell silent is noticed by the driver's heartbeat.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The changes of the collection.
pub(crate) struct Changes(pub(crate) Arc<Runner>);

#[async_trait]
impl EventSource for Changes {
    type Subscription = ChangeStream<Document>;

    /// A driver's future must not be dropped, and a stream that was left in the middle of a command stays open at the
    /// server. It ends with the answer under way, which takes as long as [`ASK_AGAIN`] where nothing happens.
    const MAY_BE_DROPPED: bool = false;

    async fn subscribe(&self) -> Result<ChangeStream<Document>, StoreError> {
        let give_up = self.0.clock.now() + self.0.timeout;
        let runner = Arc::clone(&self.0);
        // In a task of its own: a stream that comes too late is closed there.
        let opening = tokio::spawn(async move {
            let pipeline = runner.pipelines.watch.to_vec();
            runner.collection.watch().pipeline(pipeline).max_await_time(ASK_AGAIN).await
        });
        tokio::select! {
            opened = opening => match opened {
                Ok(Ok(stream)) => Ok(stream.with_type::<Document>()),
                Ok(Err(error)) => Err(error::of_reading(error.into())),
                Err(error) => {
                    Err(StoreError::refused(ErrorKind::Other, "the runtime ended the operation").caused_by(error))
                }
            },
            () = self.0.clock.sleep_until(give_up) => Err(StoreError::refused(
                ErrorKind::Timeout,
                format!("the server opened no change stream within {:?}", self.0.timeout),
            )),
        }
    }

    /// Reads one answer. A stream is left between two of them, never in the middle of one.
    async fn next(&self, stream: &mut ChangeStream<Document>) -> Heard {
        if !stream.is_alive() {
            return Heard::Cut;
        }
        match stream.next_if_any().await {
            Ok(Some(event)) => match event.get_document("documentKey").and_then(|key| key.get_str("_id")) {
                Ok(name) => Heard::Lock(name.to_owned()),
                // The whole collection is gone; or a record that is none of ours.
                Err(_) => Heard::Any,
            },
            Ok(None) => Heard::Nothing,
            Err(error) => {
                tracing::debug!(%error, "the change stream ended");
                Heard::Cut
            }
        }
    }
}
