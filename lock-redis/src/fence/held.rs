//! Scripts that run while a grant holds its lock, in the Redis that keeps the lock.

use std::sync::Arc;

use lock_core::{FenceError, LockName, Observer, ToFence};
use redis::{FromRedisValue, ToRedisArgs};

use super::script::{Judge, Judged, Words, behind, reply};
use crate::{keys::lock_tag, provider::RedisLocks};

/// A script that runs only while a grant holds its lock. Made by [`RedisLocks::script`]; clones share its text.
#[derive(Clone, Debug)]
pub struct HeldScript(Arc<Judged>);

/// A call of a [`HeldScript`], with its keys and arguments.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before it is run"]
pub struct HeldCall {
    script: Arc<Judged>,
    words: Words,
}

impl RedisLocks {
    /// Tells refusals of [`script`](Self::script)s that are made from here on to this observer, for metrics. What happens
    /// to the locks themselves is told to the observer of [their client](lock_core::LocksBuilder::observer).
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// A script for data that is kept where the locks are: it runs only if the grant holds its lock at that moment, by the
    /// record of the lock and the server's clock, and nobody is granted the lock before it has ended.
    ///
    /// The script is written as for `EVAL`, with its own `KEYS` and `ARGV`; its reply comes back as it is. It is the
    /// application's own text and is trusted: put into it what is known when it is written, and names and values into
    /// `KEYS` and `ARGV`. It costs one message, as without the check. Errors that it returns as its own have codes of their
    /// own: neither `LEASEHOLD`, which tells a refusal, nor the server's, such as `NOSCRIPT`.
    ///
    /// In a cluster all keys must be in the slot of the lock: begin their names with its [`tag`](Self::tag).
    ///
    /// A script that only reads is judged by what this server knows, and a replica that was a primary until now lets it
    /// pass: nothing is written that it could refuse. Its word is good only on a server that would take a write, so a holder
    /// that must not read what is old writes in the same script (a counter will do).
    ///
    /// ```no_run
    /// # async fn example(locks: lock_redis::RedisLocks, lease: lock_core::Lease) -> Result<(), lock_core::FenceError> {
    /// let deposit = locks.script("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    /// let balance: i64 = deposit.key("{invoice-42}:paid").arg(100).run(&lease).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn script(&self, lua: &str) -> HeldScript {
        let (runner, keys) = self.way();
        let (script, judge) = (behind(Judge::Record, lua), Judge::Record);
        let (runner, keys, report) = (runner.clone(), keys.clone(), self.report.clone());
        HeldScript(Arc::new(Judged { runner, keys, script, judge, report }))
    }

    /// What the names of keys begin with, or have in them, to be in the slot of this lock: `{invoice-42}`. Only clusters
    /// need it, and it is not the whole name: locks may share a tag.
    ///
    /// `None` for a lock whose name begins with a closing brace: it shares its slot with nothing, and so in a cluster no
    /// script can be fenced by it. A call is refused before it is sent.
    #[must_use]
    pub fn tag(lock: &LockName) -> Option<String> {
        lock_tag(lock)
    }
}

impl HeldScript {
    /// A call with this key; a list is several keys.
    pub fn key(&self, key: impl ToRedisArgs) -> HeldCall {
        self.call().key(key)
    }

    /// A call with this argument; a list is several arguments.
    pub fn arg(&self, arg: impl ToRedisArgs) -> HeldCall {
        self.call().arg(arg)
    }

    /// A call without keys and arguments so far.
    pub fn call(&self) -> HeldCall {
        HeldCall { script: Arc::clone(&self.0), words: Words::default() }
    }
}

impl HeldCall {
    /// One key more; a list is several keys.
    pub fn key(mut self, key: impl ToRedisArgs) -> Self {
        self.words.key(key);
        self
    }

    /// One argument more; a list is several arguments.
    pub fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.words.arg(arg);
        self
    }

    /// Runs the script if this grant holds its lock.
    ///
    /// It is sent once, and not again when the connection breaks: what isn't known is said. Who drops the
    /// future doesn't know whether it runs.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`] if the lease has ended, was given back or taken over, or was never made there: the script has
    /// not run. [`FenceError::Invalid`] for a lease that isn't exclusive. [`FenceError::Store`] for all else: an error that
    /// the script ended with is its [`source`](std::error::Error::source), a [`redis::RedisError`], and what the script
    /// wrote before stays, since Redis rolls nothing back; so it may have been applied.
    pub async fn run<T: FromRedisValue>(self, fence: &impl ToFence) -> Result<T, FenceError> {
        let script = &self.script;
        let fence = script.report.told(None, fence.to_fence())?;
        let (record, token) = (script.keys.record(fence.lock()), fence.token().to_string());
        let ran = script.once(self.words, record, [&token]).await.map_err(|failure| failure.of(&fence));
        script.report.told(Some(fence.lock()), ran.and_then(|value| Ok(reply(value)?)))
    }
}
