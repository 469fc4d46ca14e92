//! The register: the highest fence that each resource has seen, next to the data.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use lock_core::{
    Durability, ErrorKind, Fence, FenceError, FenceRegister, FenceReport, Observer, Pass, Resource, StoreError, ToFence,
};
use redis::{FromRedisValue, ToRedisArgs, Value};

use super::{
    config::FencesBuilder,
    refusal::Failure,
    script::{Judge, Judged, Words, behind, reply},
};
use crate::{
    config::Settings,
    connect::{Connected, connect},
    keys::{Keys, resource_tag},
    operation::Runner,
    provider::STORE,
    replies::{self, corrupt},
    scripts::{Call, FENCE_FORGET, FENCE_HIGHEST, Script},
    server,
    source::Source,
};

/// Fences of what is kept in a Redis, whichever store keeps the locks. Clones share their connection.
///
/// The highest fence that a resource has seen is a string, `leasehold:{resource}:fence`. It has no expiry, and one that
/// somebody else sets is gone with the next fence that passes.
///
/// ```no_run
/// # async fn example(lease: lock_core::Lease) -> Result<(), Box<dyn std::error::Error>> {
/// use lock_core::{FenceRegister, Pass, Resource, ToFence};
/// use lock_redis::RedisFences;
///
/// let fences = RedisFences::connect("redis://app:secret@localhost/0").await?;
/// let accounts = Resource::new("accounts")?;
/// let deposit = fences.script("return redis.call('INCRBY', KEYS[1], ARGV[1])");
///
/// // Before the first read: late writes of holders before this one are refused from here on.
/// fences.raise(&accounts, &lease.to_fence()?, Pass::Again).await?;
/// let balance: i64 = deposit.key("{accounts}:7").arg(100).run(&accounts, &lease, Pass::Again).await?;
/// # Ok(()) }
/// ```
///
/// # What it survives
///
/// A register in a Redis that loses data has seen less than it did, and then *an old token passes again*. So its word is as
/// good as the server's settings, which are read at the connect: see [`durability`](Self::durability). Where a replica takes
/// over (Sentinel, Cluster), the last raises may be lost with the last writes: raise again before the first read, as
/// every new holder does, and the window is that between the fail-over and the raise. Each raise is a write, also of a fence
/// that is there already: a server that takes none fails it. `FLUSHALL`, `DEL` and a restore from a
/// backup forget as well.
#[derive(Clone)]
pub struct RedisFences {
    runner: Runner,
    keys: Keys,
    durability: Durability,
    report: FenceReport,
}

impl RedisFences {
    /// Connects by URL, with the defaults of [`FencesBuilder`]. See the [crate] for the schemes.
    ///
    /// # Errors
    /// As [`FencesBuilder::build`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build().await
    }

    /// Sets a register up, from a URL or from what the application has: a client, a connection manager, a cluster client
    /// or a cluster connection.
    pub fn builder(source: impl Into<Source>) -> FencesBuilder {
        FencesBuilder::new(source.into())
    }

    pub(super) async fn start(settings: Settings) -> Result<Self, StoreError> {
        let Settings { way, keys, limits, .. } = settings;
        let Connected { link, .. } = connect(way, None, &limits).await?;
        let runner = Runner { link, timeout: limits.operation_timeout, clock: Arc::clone(&limits.clock) };
        let durability = server::examine_for_fences(&runner, &keys, limits.allow_eviction).await?;
        Ok(Self { runner, keys, durability, report: FenceReport::new(STORE) })
    }

    /// Tells refusals to this observer, for metrics: the register's own, and those of scripts that are made from here on.
    /// Clones that were made before don't.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// What a raise that was acknowledged survives, by the server's settings at the connect: [`Durability::Durable`] with
    /// `appendonly yes`, `appendfsync always` and no replicas; otherwise [`Durability::Volatile`], and a crash or a fail-over
    /// may let an old token pass.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// What the names of keys begin with, or have in them, to be in the slot of this resource's register: `{accounts}`.
    /// Only clusters need it.
    #[must_use]
    pub fn tag(resource: &Resource) -> String {
        resource_tag(resource)
    }

    /// A script that runs only if its fence passes, in one atomic step with the check and the raise.
    ///
    /// The script is written as for `EVAL`, with its own `KEYS` and `ARGV`; its reply comes back as it is. It is the
    /// application's own text and is trusted: put into it what is known when it is written, and names and values into
    /// `KEYS` and `ARGV`. It costs one message, as without the check. Errors that it returns as its own have codes of their
    /// own: neither `LEASEHOLD`, which tells a refusal, nor the server's, such as `NOSCRIPT`.
    ///
    /// The register is written before the script runs, also where it doesn't rise and the script only reads. So a replica, or
    /// a primary without enough replicas, runs none, and neither does a server run one with `flags=no-writes`.
    ///
    /// In a cluster all keys must be in the slot of the register: begin their names with its [`tag`](Self::tag).
    #[must_use]
    pub fn script(&self, lua: &str) -> FencedScript {
        FencedScript(Arc::new(self.judged(behind(Judge::Register, lua))))
    }

    fn judged(&self, script: Arc<Script>) -> Judged {
        let (runner, keys, report) = (self.runner.clone(), self.keys.clone(), self.report.clone());
        Judged { runner, keys, script, judge: Judge::Register, report }
    }
}

/// A script that runs only if its fence passes. Made by [`RedisFences::script`]; clones share its text.
#[derive(Clone, Debug)]
pub struct FencedScript(Arc<Judged>);

/// A call of a [`FencedScript`], with its keys and arguments.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before it is run"]
pub struct FencedCall {
    script: Arc<Judged>,
    words: Words,
}

impl FencedScript {
    /// A call with this key; a list is several keys.
    pub fn key(&self, key: impl ToRedisArgs) -> FencedCall {
        self.call().key(key)
    }

    /// A call with this argument; a list is several arguments.
    pub fn arg(&self, arg: impl ToRedisArgs) -> FencedCall {
        self.call().arg(arg)
    }

    /// A call without keys and arguments so far.
    pub fn call(&self) -> FencedCall {
        FencedCall { script: Arc::clone(&self.0), words: Words::default() }
    }
}

impl FencedCall {
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

    /// Runs the script if the resource lets this fence pass, and raises what the resource has seen.
    ///
    /// It is sent once, and not again when the connection breaks: what isn't known is said. Who drops the
    /// future doesn't know whether it runs.
    ///
    /// # Errors
    /// [`FenceError::Stale`] and [`FenceError::OtherLock`]: the script has not run, and nothing was raised.
    /// [`FenceError::Invalid`] for a lease that isn't exclusive. [`FenceError::Store`] for all else: an error that the script
    /// ended with is its [`source`](std::error::Error::source), a [`redis::RedisError`]. Then the raise stays, and what the
    /// script wrote before, since Redis rolls nothing back; so it may have been applied.
    pub async fn run<T: FromRedisValue>(
        self,
        resource: &Resource,
        fence: &impl ToFence,
        pass: Pass,
    ) -> Result<T, FenceError> {
        let script = &self.script;
        let fence = script.report.told(None, fence.to_fence())?;
        let (register, text) = (script.keys.register(resource), fence.to_string());
        let ran = script.once(self.words, register, [&text, word(pass)]).await;
        let ran = ran.map_err(|failure| failure.at(resource, &fence, pass));
        script.report.told(Some(fence.lock()), ran.and_then(|value| Ok(reply(value)?)))
    }
}

/// In the script's words. A kind of passing that isn't known here is the strictest.
fn word(pass: Pass) -> &'static str {
    match pass {
        Pass::Again => "again",
        _ => "once",
    }
}

/// Raises, and has nothing else to do.
static RAISE: LazyLock<Arc<Script>> = LazyLock::new(|| behind(Judge::Register, "return 1"));

#[async_trait]
impl FenceRegister for RedisFences {
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        let judged = self.judged(Arc::clone(&RAISE));
        let (register, text) = (self.keys.register(resource), fence.to_string());
        let (words, judgement) = (Words::default(), [text.as_str(), word(pass)]);
        let done = match pass {
            Pass::Again => judged.repeatedly(words, register, judgement).await,
            // The second attempt would be refused because of the first.
            _ => judged.once(words, register, judgement).await,
        };
        let raised = match done {
            // By this very call: that was all it was to do.
            Ok(_) | Err(Failure::Again) => Ok(()),
            Err(failure) => Err(failure.at(resource, fence, pass)),
        };
        self.report.told(Some(fence.lock()), raised)
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        let look = Call::new(&FENCE_HIGHEST, vec![self.keys.register(resource)], Vec::new());
        let seen = self.runner.read(look).await.and_then(seen);
        self.report.told(None, seen)
    }

    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        let forget = Call::new(&FENCE_FORGET, vec![self.keys.register(resource)], Vec::new());
        let done = self.runner.run(forget).await;
        let forgotten = done.and_then(|done| match (replies::yes(&done.reply)?, done.in_doubt) {
            (true, _) => Ok(true),
            (false, false) => Ok(false),
            // The attempt whose answer was lost may have done it.
            (false, true) => {
                let message = "the connection broke; it has seen nothing any more, by this or since before";
                Err(StoreError::unknown(ErrorKind::Unreachable, message))
            }
        });
        self.report.told(None, forgotten)
    }
}

fn seen(reply: Value) -> Result<Option<Fence>, StoreError> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(text) => {
            let fence = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            fence.map(Some).ok_or_else(|| corrupt("the register holds something else than a fence"))
        }
        Value::Array(parts) => match parts.as_slice() {
            [Value::Int(-1), Value::BulkString(why)] => Err(corrupt(String::from_utf8_lossy(why))),
            _ => Err(corrupt("the register's answer has the wrong parts")),
        },
        _ => Err(corrupt("the register's answer is no text")),
    }
}

impl fmt::Debug for RedisFences {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisFences")
            .field("server", &self.runner.link)
            .field("prefix", &self.keys.prefix())
            .finish_non_exhaustive()
    }
}
