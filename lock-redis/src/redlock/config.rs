//! How the provider is set up.

use std::{collections::BTreeSet, fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{
    Capabilities, Clock, Durability, ErrorKind, KeptBy, Listener, Operation, StoreError, SystemClock, TtlRange, Wake,
    WakeHub,
};

use super::{
    ballot::quorum,
    masters::Masters,
    provider::{Redlock, STORE},
    records::Records,
};
use crate::{
    door::{Door, Place},
    keys::Keys,
    link::{Link, Primary},
    node::{Node, NodeConfig},
    operation::Runner,
    server::{EVICTS, examine},
    source::{Given, Source, Way},
    wake::Announcements,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How many requests one script carries at most.
const MOST: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Redlock's own margin against the difference of clocks' rates, on top of the core's share of the ttl: the 2 ms of
/// redis.io's "Distributed Locks with Redis".
const MARGIN: Duration = Duration::from_millis(2);

/// Sets a [`Redlock`] up.
#[must_use]
pub struct Builder {
    masters: Vec<String>,
    prefix: Option<String>,
    clock: Arc<dyn Clock>,
    grace: Duration,
    retention: Duration,
    node_timeout: Duration,
    connect_timeout: Duration,
    allow_eviction: bool,
}

/// What a [`Builder`] came to, once enough masters were reached.
pub(crate) struct Settings {
    pub(crate) masters: Masters,
    pub(crate) records: Records,
    pub(crate) hub: WakeHub,
    pub(crate) releases: Vec<Arc<Listener<Announcements>>>,
    pub(crate) capabilities: Capabilities,
}

impl Builder {
    pub(crate) fn new(masters: Vec<String>) -> Self {
        Self {
            masters,
            prefix: None,
            clock: Arc::new(SystemClock),
            grace: Duration::from_millis(500),
            retention: 7 * DAY,
            node_timeout: Duration::from_millis(200),
            connect_timeout: Duration::from_secs(3),
            allow_eviction: false,
        }
    }

    /// Of `redlock://user:password@a,b,c/database?leasehold_prefix=…`.
    pub(crate) fn from_url(url: &str) -> Result<Self, StoreError> {
        each_master(url).map(Self::new).map_err(|error| error.at(STORE, Operation::Connect, None))
    }

    /// The prefix of all keys, 1 to 128 bytes without braces and control characters. Default: the URLs'
    /// `leasehold_prefix`, or `leasehold:redlock:`. Programs that are to exclude each other use the same.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// The clock for time-outs and pauses. It never decides about a lease: the masters' do.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long after a lease's expiry others still wait: it covers steps of the masters' wall clocks. Default 500 ms,
    /// at most an hour. Each lease has the grace of its own holder.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long the record of an idle lock is kept, counted from the end of its lease. Default 7 days, at least 24 hours.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// How long one master may take to answer, a new connection included. Default 200 ms, from 5 ms to a minute.
    ///
    /// Nobody waits so long while a majority answers faster. For an acquire it is also at most a quarter of the ttl:
    /// masters that hang must not eat it.
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.node_timeout = timeout;
        self
    }

    /// How long the first contact with a master may take. Default 3 s, from 10 ms to an hour.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Whether masters that evict locks when their memory is full are accepted: a lock that is evicted by a majority has
    /// two holders. Default `false`: then one such master fails the build.
    pub fn allow_eviction(mut self, allow: bool) -> Self {
        self.allow_eviction = allow;
        self
    }

    /// Connects to the masters and examines each; it is enough if a majority can be used, the others are tried behind.
    ///
    /// A master that can't be reached now takes part later without having been examined: make sure by other means that it
    /// doesn't evict locks and is none of the others under another name. A warning tells how many were examined.
    ///
    /// Cancel safe: nothing is left.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] before anything is sent, or if two of the masters are one; otherwise that too few can be
    /// used, with what the first of the others said.
    pub async fn build(self) -> Result<Redlock, StoreError> {
        let at_connect = |error: StoreError| error.at(STORE, Operation::Connect, None);
        let settings = self.settings().await.map_err(at_connect)?;
        Ok(Redlock::start(settings))
    }

    async fn settings(self) -> Result<Settings, StoreError> {
        let hour = Duration::from_secs(3600);
        within("the grace", self.grace, Duration::ZERO, hour)?;
        within("the retention", self.retention, DAY, 36_500 * DAY)?;
        within("the time-out of a master", self.node_timeout, Duration::from_millis(5), Duration::from_secs(60))?;
        within("the connect timeout", self.connect_timeout, Duration::from_millis(10), hour)?;
        let (doors, keys) = self.doors()?;

        let hub = WakeHub::default();
        let new_node = |door: &Arc<Door>| {
            let config = NodeConfig {
                door: Arc::clone(door),
                operation_timeout: self.node_timeout,
                clock: Arc::clone(&self.clock),
            };
            Node::unconnected(config)
        };
        let nodes: Vec<Node> = doors.iter().map(new_node).collect();
        let releases = doors.iter().map(|door| {
            let (door, clock) = (Arc::clone(door), Arc::clone(&self.clock));
            let announcements = Announcements { door, channel: keys.channel(), clock: Arc::clone(&clock) };
            Arc::new(Listener::new(hub.clone(), announcements, clock))
        });
        let releases = releases.collect();
        let masters = Masters { nodes, clock: Arc::clone(&self.clock), node_timeout: self.node_timeout };
        let mut capabilities = Capabilities::new(STORE);
        capabilities.durability = self.examine(&masters, &keys).await?;
        capabilities.ttl = TtlRange { granularity: MARGIN, ..capabilities.ttl };
        capabilities.grace = self.grace;
        capabilities.wake = Wake::Event;
        capabilities.minimum_hold = KeptBy::Store;
        capabilities.ticks = true;
        capabilities.grouping = Some(MOST);
        let records = Records { keys, grace: self.grace, retention: self.retention };
        Ok(Settings { masters, records, hub, releases, capabilities })
    }

    /// The way to each master, and how keys are named at all of them.
    fn doors(&self) -> Result<(Vec<Arc<Door>>, Keys), StoreError> {
        if self.masters.len() < 3 {
            let message = "a majority that outlasts the loss of one needs at least three masters; for a single server use redis://";
            return Err(invalid(message));
        }
        let (mut doors, mut named) = (Vec::new(), Vec::new());
        let mut addresses = BTreeSet::new();
        let mut prefixes = BTreeSet::new();
        for url in &self.masters {
            let Given { way, prefix } = Source::from(url).0?;
            let Way::Own(place @ Place::Server(_)) = way else {
                return Err(invalid("each master is a server of its own: redis://… or rediss://…"));
            };
            let database = match &place {
                Place::Server(info) => info.redis_settings().db(),
                _ => 0,
            };
            prefixes.insert(prefix.clone());
            let prefix = self.prefix.clone().or(prefix).unwrap_or_else(|| "leasehold:redlock:".to_owned());
            let keys = Keys::new(&prefix)?.in_database(database);
            let door = Door::new(place, self.connect_timeout, Arc::clone(&self.clock));
            if !addresses.insert(door.address().to_owned()) {
                return Err(invalid(format!("{} is named twice: each master counts once", door.address())));
            }
            doors.push(Arc::new(door));
            named.push(keys);
        }
        if self.prefix.is_none() && prefixes.len() > 1 {
            return Err(invalid("the masters' URLs name different prefixes"));
        }
        let channels: BTreeSet<String> = named.iter().map(Keys::channel).collect();
        if channels.len() > 1 {
            return Err(invalid("the locks are in the same database at each master"));
        }
        Ok((doors, named.swap_remove(0)))
    }

    /// How durable a grant is. The slowest masters aren't waited for once a majority could be examined.
    async fn examine(&self, masters: &Masters, keys: &Keys) -> Result<Durability, StoreError> {
        let begun = self.clock.now();
        let mut until = begun + self.connect_timeout;
        let mut looks: FuturesUnordered<_> = masters
            .nodes
            .iter()
            .map(|node| {
                let link = Link::Node(node.clone());
                let runner = Runner { link, timeout: self.connect_timeout, clock: Arc::clone(&self.clock) };
                async move {
                    let durability = examine(&runner, keys, self.allow_eviction).await?;
                    Ok::<_, StoreError>((durability, run_id(&runner).await?))
                }
            })
            .collect();
        let (mut durable, mut ids, mut answered, mut failures) = (0, BTreeSet::new(), 0, Vec::new());
        loop {
            let looked = tokio::select! {
                looked = looks.next() => looked,
                () = self.clock.sleep_until(until) => break,
            };
            match looked {
                Some(Ok((durability, id))) => {
                    answered += 1;
                    durable += usize::from(durability == Durability::Durable);
                    if id.is_some_and(|id| !ids.insert(id)) {
                        return Err(invalid("two of the masters are the same server: each counts once"));
                    }
                }
                // It would forget locks that others rely on it for, and it can't be told from the others when it votes.
                Some(Err(error)) if error.to_string().contains(EVICTS) => return Err(error),
                Some(Err(error)) => failures.push(error),
                None => break,
            }
            if answered == quorum(masters.count()) {
                let now = self.clock.now();
                until = until.min(now + now.since(begun).max(self.node_timeout));
            }
        }
        if answered < quorum(masters.count()) {
            return Err(masters.too_few(answered, &failures, false));
        }
        for error in &failures {
            tracing::warn!(%error, "a master can't be used now; going on with the others");
        }
        if answered < masters.count() {
            tracing::warn!(answered, of = masters.count(), "not every master's settings could be looked at");
        }
        // It fences as long as no master that accepted a token forgets it.
        Ok(if durable == masters.count() { Durability::Durable } else { Durability::Volatile })
    }
}

/// The URL of each master that a `redlock://` URL names.
fn each_master(url: &str) -> Result<Vec<String>, StoreError> {
    // Nothing of it is quoted: a password with an unescaped sign may stand anywhere.
    let unfit =
        || invalid("the URL of independent masters is redlock://host:port,host:port,host:port, or redlocks:// for TLS");
    let (scheme, rest) = url.split_once("://").ok_or_else(unfit)?;
    let scheme = match scheme {
        "redlock" => "redis",
        "redlocks" => "rediss",
        _ => return Err(unfit()),
    };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    Ok(hosts.split(',').map(|host| format!("{scheme}://{login}{host}{tail}")).collect())
}

/// What the server calls itself since it was started, if it tells.
async fn run_id(runner: &Runner) -> Result<Option<String>, StoreError> {
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let text: String = match redis::from_redis_value(runner.ask(Primary::Only, info).await?) {
        Ok(text) => text,
        Err(_) => return Ok(None),
    };
    Ok(text.lines().find_map(|line| line.strip_prefix("run_id:")).map(|id| id.trim_end().to_owned()))
}

fn within(what: &str, value: Duration, least: Duration, most: Duration) -> Result<(), StoreError> {
    if value < least || value > most {
        return Err(invalid(format!("{what} must be {least:?} to {most:?}, not {value:?}")));
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::refused(ErrorKind::InvalidConfig, message)
}

impl fmt::Debug for Builder {
    /// Without the URLs: they hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("masters", &self.masters.len())
            .field("prefix", &self.prefix)
            .field("grace", &self.grace)
            .field("retention", &self.retention)
            .field("node_timeout", &self.node_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Builder {
        Builder::new(["redis://:s3cret@a", "redis://:s3cret@b", "redis://:s3cret@c"].map(str::to_owned).to_vec())
    }

    #[test]
    fn one_url_names_them_all() {
        let urls = each_master("redlocks://u:p@a:1,b,[::1]:3/2?leasehold_prefix=x").unwrap();
        assert_eq!(urls[0], "rediss://u:p@a:1/2?leasehold_prefix=x");
        assert_eq!(urls[2], "rediss://u:p@[::1]:3/2?leasehold_prefix=x");
        assert!(each_master("redis://a,b,c").is_err());
        assert!(each_master("a,b,c").is_err());
    }

    #[tokio::test]
    async fn bad_settings_are_refused_before_anything_is_sent() {
        let of = |urls: &[&str]| Builder::new(urls.iter().map(|url| (*url).to_owned()).collect());
        for bad in [
            of(&["redis://:s3cret@a", "redis://:s3cret@b"]),
            of(&["redis://:s3cret@a", "redis://:s3cret@b", "redis://:s3cret@a:6379"]),
            of(&["redis://:s3cret@a", "redis://:s3cret@b", "redis-cluster://:s3cret@c"]),
            of(&["redis://:s3cret@a", "redis://:s3cret@b", "redis://:s3cret@c/1"]),
            of(&["redis://:s3cret@a", "redis://:s3cret@b", "redis://:s3cret@c?leasehold_prefix=x"]),
            three().prefix("{"),
            three().grace(Duration::from_secs(3601)),
            three().retention(Duration::from_secs(23 * 3600)),
            three().node_timeout(Duration::ZERO),
            three().connect_timeout(Duration::ZERO),
        ] {
            let shown = format!("{bad:?}");
            let error = bad.build().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{shown}: {error}");
            assert!(!format!("{shown}{error}{error:?}").contains("s3cret"), "{shown} {error}");
        }
    }
}
