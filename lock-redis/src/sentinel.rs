//! Sentinels: servers that watch a primary and its replicas, promote a replica, and tell who the primary is.

use std::fmt;

use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{ErrorKind, StoreError};
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ProtocolVersion};

use crate::{
    door::{address, client},
    error,
};

/// The sentinels of one primary. Not `Debug`: the addresses come with passwords.
pub(crate) struct Sentinels {
    sentinels: Vec<ConnectionInfo>,
    /// The name under which they watch the primary.
    service: String,
    /// How to log in at the primary; its address is replaced by the one they tell.
    server: ConnectionInfo,
}

impl Sentinels {
    pub(crate) fn new(sentinels: Vec<ConnectionInfo>, service: String, server: ConnectionInfo) -> Self {
        Self { sentinels, service, server }
    }

    pub(crate) fn database(&self) -> i64 {
        self.server.redis_settings().db()
    }

    pub(crate) fn any(&self, is_so: impl Fn(&ConnectionInfo) -> bool) -> bool {
        self.sentinels.iter().any(is_so)
    }

    /// The primary, by the first sentinel whose answer proves to be true. All are asked at once: one that doesn't
    /// answer costs no time. Bounded by the caller.
    pub(crate) async fn primary(&self) -> Result<ConnectionInfo, StoreError> {
        let mut answers: FuturesUnordered<_> = self.sentinels.iter().map(|sentinel| self.ask(sentinel)).collect();
        let mut worst: Option<StoreError> = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(primary) => return Ok(primary),
                Err(error) => {
                    tracing::debug!(%error, "a sentinel was of no help");
                    // What can't be cured by waiting is told first.
                    if worst.as_ref().is_none_or(StoreError::is_transient) {
                        worst = Some(error);
                    }
                }
            }
        }
        Err(worst.unwrap_or_else(|| StoreError::refused(ErrorKind::InvalidConfig, "there is no sentinel to ask")))
    }

    async fn ask(&self, sentinel: &ConnectionInfo) -> Result<ConnectionInfo, StoreError> {
        let told: Option<(String, u16)> =
            self.command(sentinel, redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service)).await?;
        let Some((host, port)) = told else {
            let message = format!("the sentinel at {} watches no primary by that name", address(sentinel.addr()));
            return Err(StoreError::refused(ErrorKind::InvalidConfig, message));
        };
        let primary = self.server.clone().set_addr(at(self.server.addr(), host, port));
        // A sentinel that was cut off tells of a primary that no longer is one.
        let role: Vec<redis::Value> = self.command(&primary, &redis::cmd("ROLE")).await?;
        match role.first() {
            Some(redis::Value::BulkString(role)) if role == b"master" => Ok(primary),
            _ => Err(StoreError::refused(
                ErrorKind::Contention,
                format!("{} is to be the primary and isn't yet: a fail-over is under way", address(primary.addr())),
            )),
        }
    }

    async fn command<T: redis::FromRedisValue>(
        &self,
        server: &ConnectionInfo,
        command: &redis::Cmd,
    ) -> Result<T, StoreError> {
        let asked = async {
            let plain = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
            let client = client(server.clone(), ProtocolVersion::RESP2)?;
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&plain)
                .await
                .map_err(|error| error::of_connect(error, server))?;
            command.query_async(&mut connection).await.map_err(|error| error::of_connect(error, server))
        };
        asked.await
    }
}

/// The address of another server that is reached in the same way.
fn at(like: &ConnectionAddr, host: String, port: u16) -> ConnectionAddr {
    match like {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentinels: Vec<_> = self.sentinels.iter().map(|sentinel| address(sentinel.addr())).collect();
        write!(f, "the primary {:?} of the sentinels {}", self.service, sentinels.join(", "))
    }
}
