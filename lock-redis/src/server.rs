//! What a server, as it is configured now, can do with locks.

use std::collections::HashMap;

use lock_core::{Durability, ErrorKind, StoreError};
use redis::{FromRedisValue, from_redis_value};

use crate::{
    keys::Keys,
    link::Primary,
    operation::Runner,
    scripts::{Call, FENCE_PROBE, PROBE},
};

/// What could be learned of one server. Where it doesn't say, nothing is known.
#[derive(Debug, Default, PartialEq, Eq)]
struct Server {
    is_replica: bool,
    replicas: u64,
    append_only: Option<bool>,
    fsync: Option<String>,
    max_memory: Option<u64>,
    eviction: Option<String>,
}

/// What is said of a server whose settings let it forget locks.
pub(crate) const EVICTS: &str = "evicts held locks";

/// Asks each server that takes writes, and says how durable a grant is: the least of them counts.
///
/// # Errors
/// [`ErrorKind::NotReady`] if locks can't be kept there, with what to do.
pub(crate) async fn examine(runner: &Runner, keys: &Keys, allow_eviction: bool) -> Result<Durability, StoreError> {
    let durability = durability(runner, allow_eviction).await?;
    // What it does is undone at once: whatever becomes of it, no lock is touched.
    let probe = Call::new(&PROBE, vec![keys.nobodys_record()], vec![keys.channel().into_bytes()]);
    runner.read(probe).await?;
    Ok(durability)
}

/// The same for what is kept in registers.
pub(crate) async fn examine_for_fences(
    runner: &Runner,
    keys: &Keys,
    allow_eviction: bool,
) -> Result<Durability, StoreError> {
    let durability = durability(runner, allow_eviction).await?;
    runner.read(Call::new(&FENCE_PROBE, vec![keys.nobodys_register()], Vec::new())).await?;
    Ok(durability)
}

async fn durability(runner: &Runner, allow_eviction: bool) -> Result<Durability, StoreError> {
    let mut durability = Durability::Durable;
    for primary in runner.primaries().await? {
        let server = Server::look(runner, primary).await?;
        server.check(allow_eviction)?;
        if !server.is_durable() {
            durability = Durability::Volatile;
        }
    }
    Ok(durability)
}

impl Server {
    async fn look(runner: &Runner, primary: Primary) -> Result<Self, StoreError> {
        let mut server = Self::default();
        let info: Option<String> = allowed(runner, primary, &["INFO"]).await?;
        server.read_info(&info.unwrap_or_default());
        for pattern in ["append*", "maxmemory*"] {
            let settings = allowed(runner, primary, &["CONFIG", "GET", pattern]).await?;
            server.read_settings(&settings.unwrap_or_default());
        }
        Ok(server)
    }

    /// `INFO`, which managed services allow where they forbid `CONFIG`.
    fn read_info(&mut self, info: &str) {
        let facts: HashMap<_, _> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let number = |name| facts.get(name).and_then(|value| value.parse().ok());
        self.is_replica = facts.get("role") == Some(&"slave");
        self.replicas = number("connected_slaves").unwrap_or(0);
        self.append_only = facts.get("aof_enabled").map(|enabled| *enabled == "1");
        self.max_memory = number("maxmemory");
        self.eviction = facts.get("maxmemory_policy").map(|policy| (*policy).to_owned());
    }

    fn read_settings(&mut self, settings: &HashMap<String, String>) {
        let known = |name: &str| settings.get(name).cloned();
        self.append_only = known("appendonly").map(|value| value == "yes").or(self.append_only);
        self.fsync = known("appendfsync").or(self.fsync.take());
        self.max_memory = known("maxmemory").and_then(|value| value.parse().ok()).or(self.max_memory);
        self.eviction = known("maxmemory-policy").or(self.eviction.take());
    }

    fn check(&self, allow_eviction: bool) -> Result<(), StoreError> {
        let refused = |message: String| Err(StoreError::refused(ErrorKind::NotReady, message));
        if self.is_replica {
            return refused("this is a read-only replica; connect to the primary".to_owned());
        }
        match self.eviction.as_deref() {
            None => tracing::warn!(
                "the server doesn't tell its eviction policy; make sure that maxmemory-policy is noeviction"
            ),
            Some("noeviction") => {}
            // Nothing is evicted as long as there is no limit, which may be set at any time.
            Some(policy) if self.max_memory == Some(0) => tracing::warn!(
                policy,
                "once maxmemory is set this server will evict locks and fences; set maxmemory-policy to noeviction"
            ),
            Some(policy) if allow_eviction => {
                tracing::warn!(policy, "this server evicts held locks and fences when its memory is full, as allowed");
            }
            Some(policy) => {
                return refused(format!(
                    "with maxmemory-policy {policy} the server {EVICTS} and fences when its memory is full: set maxmemory-policy to noeviction, or allow it with allow_eviction"
                ));
            }
        }
        Ok(())
    }

    /// Whether an acknowledged grant survives a crash: it was on the disk before it was acknowledged. A fail-over to a
    /// replica loses what hadn't got there, whatever the disk says.
    fn is_durable(&self) -> bool {
        if self.append_only != Some(false) && self.fsync.is_none() {
            tracing::warn!("the server doesn't tell when its writes are on its disk, so its locks count as volatile");
        }
        self.append_only == Some(true) && self.fsync.as_deref() == Some("always") && self.replicas == 0
    }
}

/// The answer to a command; `None` if the server, or the user's rights, don't allow it.
async fn allowed<T: FromRedisValue>(
    runner: &Runner,
    primary: Primary,
    command: &[&str],
) -> Result<Option<T>, StoreError> {
    let mut asked = redis::cmd(command[0]);
    asked.arg(&command[1..]);
    match runner.ask(primary, asked).await {
        Ok(answer) => Ok(from_redis_value(answer).ok()),
        // A right that is missing, or a command that a managed service has taken away.
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Other) => {
            tracing::debug!(%error, command = command[0], "the server doesn't tell its settings");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_what_was_on_the_disk_before_the_answer_is_durable() {
        for (append, fsync, replicas, durable) in [
            ("yes", "always", 0, true),
            ("yes", "always", 1, false),
            ("yes", "everysec", 0, false),
            ("no", "always", 0, false),
        ] {
            let mut server = Server::default();
            server.read_info(&format!("role:master\r\nconnected_slaves:{replicas}\r\naof_enabled:0\r\n"));
            server.read_settings(&settings(&[("appendonly", append), ("appendfsync", fsync)]));
            assert_eq!(server.is_durable(), durable, "{append} {fsync} {replicas}");
        }
        assert!(!Server::default().is_durable(), "a server that tells nothing");
    }

    #[test]
    fn a_policy_that_evicts_locks_is_refused_with_the_setting_to_change() {
        let mut server = Server::default();
        server.read_info("role:master\r\nmaxmemory:1000\r\nmaxmemory_policy:volatile-lru\r\n");
        let error = server.check(false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotReady);
        assert!(error.to_string().contains("maxmemory-policy to noeviction"), "{error}");
        assert!(server.check(true).is_ok());
        server.read_settings(&settings(&[("maxmemory", "0")]));
        assert!(server.check(false).is_ok(), "nothing is evicted without a limit");
        server.read_settings(&settings(&[("maxmemory", "1"), ("maxmemory-policy", "noeviction")]));
        assert!(server.check(false).is_ok());
    }

    #[test]
    fn a_replica_is_told_as_such() {
        let mut server = Server::default();
        server.read_info("# Replication\r\nrole:slave\r\n");
        assert!(server.check(true).unwrap_err().to_string().contains("connect to the primary"));
    }
}
