//! One server: a connection that all share, made again behind their backs when it breaks.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use lock_core::{Clock, ErrorKind, Moment, StoreError};
use redis::{Cmd, Value};

use crate::{
    door::{Door, Line},
    error,
    link::run_on,
    scripts::Call,
};

/// How to reach one server.
#[derive(Debug)]
pub(crate) struct NodeConfig {
    pub(crate) door: Arc<Door>,
    /// How long a request may take in all, a new connection included.
    pub(crate) operation_timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// One Redis server. Clones share its connection.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: NodeConfig,
    /// The connection, or the attempt to have one, which all who need it wait for.
    line: Mutex<Option<Attempt>>,
}

type Attempt = Shared<BoxFuture<'static, Result<Line, StoreError>>>;

impl Node {
    /// Connects, within the door's time.
    ///
    /// # Errors
    /// Why there is no connection, for people; nothing but a login was sent.
    pub(crate) async fn connect(config: NodeConfig) -> Result<Self, StoreError> {
        let node = Self::unconnected(config);
        node.inner.line().await?;
        Ok(node)
    }

    /// A node that connects when it is first needed.
    pub(crate) fn unconnected(config: NodeConfig) -> Self {
        Self { inner: Arc::new(Inner { config, line: Mutex::default() }) }
    }

    /// Where it is, for people; without user and password.
    pub(crate) fn address(&self) -> &str {
        self.inner.config.door.address()
    }

    /// Runs a script, once; `EVAL` if the server doesn't know it.
    ///
    /// Ends within the operation timeout. Dropping the future leaves the request under way. The error says whether it
    /// may have been applied; the next request finds or makes a good connection.
    pub(crate) async fn run(&self, call: &Arc<Call>) -> Result<Value, StoreError> {
        self.run_until(call, self.in_time()).await
    }

    /// The same, until this moment.
    pub(crate) async fn run_until(&self, call: &Arc<Call>, give_up: Moment) -> Result<Value, StoreError> {
        let call = Arc::clone(call);
        self.in_a_task(give_up, async move |line: Line| run_on(line.connection, &call).await).await
    }

    /// The same within the caller's own future: who drops it doesn't know whether it was sent.
    pub(crate) async fn run_here(&self, call: &Call, give_up: Moment) -> Result<Value, StoreError> {
        self.inner.send_until(give_up, async |line: Line| run_on(line.connection, call).await).await
    }

    /// Sends one command, as [`run_until`](Self::run_until) does.
    pub(crate) async fn ask_until(&self, command: Cmd, give_up: Moment) -> Result<Value, StoreError> {
        self.in_a_task(give_up, async move |line: Line| command.query_async(&mut { line.connection }).await).await
    }

    fn in_time(&self) -> Moment {
        self.inner.config.clock.now() + self.inner.config.operation_timeout
    }

    async fn in_a_task<S, F>(&self, give_up: Moment, send: S) -> Result<Value, StoreError>
    where
        S: FnOnce(Line) -> F + Send + 'static,
        F: Future<Output = redis::RedisResult<Value>> + Send,
    {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { inner.send_until(give_up, send).await });
        task.await.unwrap_or_else(|error| {
            Err(StoreError::unknown(ErrorKind::Other, "the runtime ended the operation").caused_by(error))
        })
    }
}

impl Inner {
    async fn send_until<S, F>(&self, give_up: Moment, send: S) -> Result<Value, StoreError>
    where
        S: FnOnce(Line) -> F,
        F: Future<Output = redis::RedisResult<Value>>,
    {
        let began = self.config.clock.now();
        let sent_on = Mutex::new(None);
        let attempt = async {
            let line = self.line().await?;
            *sent_on.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.clone());
            send(line.clone()).await.map_err(|error| {
                let moved = self.config.door.is_told_the_primary() && error::is_no_primary(&error);
                if moved || error::ends_connection(&error) {
                    line.end();
                }
                error::of_answer(error)
            })
        };
        tokio::select! {
            answer = attempt => answer,
            () = self.config.clock.sleep_until(give_up) => {
                let after = give_up.since(began);
                let line = sent_on.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(match line {
                    Some(line) => {
                        // It may have been cut silently; a new one will tell.
                        line.end();
                        StoreError::unknown(ErrorKind::Timeout, format!("the server didn't answer within {after:?}"))
                    }
                    None => StoreError::refused(ErrorKind::Timeout, format!("no connection could be had within {after:?}")),
                })
            }
        }
    }

    /// A connection that isn't known to have broken: the one there is, or the next, which all wait for together.
    async fn line(&self) -> Result<Line, StoreError> {
        let attempt = {
            let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            match line.as_ref() {
                // Looked at by polling: an attempt that everybody stopped waiting for has its outcome all the same.
                Some(attempt)
                    if attempt.clone().now_or_never().is_none_or(|made| made.is_ok_and(|line| !line.has_ended())) =>
                {
                    attempt.clone()
                }
                _ => line.insert(connect(Arc::clone(&self.config.door))).clone(),
            }
        };
        attempt.await
    }
}

/// Connects in a task of its own: whoever waits for it may be dropped.
fn connect(door: Arc<Door>) -> Attempt {
    let task = tokio::spawn(async move { door.line().await });
    let made = task.map(|ended| {
        ended.unwrap_or_else(|error| {
            Err(StoreError::refused(ErrorKind::Other, "the runtime ended the attempt to connect").caused_by(error))
        })
    });
    made.boxed().shared()
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("server", &self.config.door.address()).finish_non_exhaustive()
    }
}
