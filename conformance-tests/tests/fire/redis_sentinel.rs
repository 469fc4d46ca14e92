//! Redis behind a sentinel under fire: a primary and a replica, of which either may be the primary at any time.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::{
    Failure, Outcome,
    fire::{Effect, Fault, Ground, Lane, Scale, Scene, Site, Stroke, Wired, blocking},
};
use futures_util::StreamExt;
use lock_core::{Clock, LockProvider, SystemClock};
use lock_redis::{RedisLocks, redis};
use testbed::{Error, PrivateServer};

use crate::{
    clocks::{self, Leaps},
    elsewhere, redis as server, servers,
};

/// Dropped in this order: who watches first.
struct Set {
    sentinel: PrivateServer,
    servers: [PrivateServer; 2],
    /// Whose turn it is to be broken.
    turn: Mutex<()>,
}

pub(crate) struct Ours(Arc<Set>);

pub(crate) fn start() -> Result<Arc<dyn Ground>, Failure> {
    let primary = testbed::redis_private_clocked()?;
    let replica = testbed::redis_replica_of(&primary)?;
    let sentinel = testbed::redis_sentinel_of(&primary)?;
    let set = Set { sentinel, servers: [primary, replica], turn: Mutex::new(()) };
    set.bear(PATIENT)?;
    Ok(Arc::new(Ours(Arc::new(set))))
}

const PASSWORD: &str = "leasehold";

/// For how long the sentinel bears a primary that doesn't answer, in ms: where that is the fault.
const IMPATIENT: &str = "1000";
/// And where it is none: longer than any machine stands still. Tokens rise over a promotion that missed writes, and over a clock
/// that steps, but not over both; so faults of these kinds never go on at once, and the sentinel is to make none by itself.
const PATIENT: &str = "600000";

impl Set {
    /// Which server the sentinel tells clients to go to.
    fn primary(&self) -> Result<usize, Failure> {
        let told: (String, String) = ask(&self.sentinel, &["SENTINEL", "get-master-addr-by-name", "leasehold"])?;
        let ends = format!(":{}", told.1);
        let primary = self.servers.iter().position(|server| server.host_port().ends_with(&ends));
        primary.ok_or_else(|| Failure::new(format!("the sentinel tells of a primary at {told:?}")))
    }

    fn bear(&self, millis: &str) -> Result<(), Failure> {
        ask(&self.sentinel, &["SENTINEL", "SET", "leasehold", "down-after-milliseconds", millis])
    }

    fn role(&self, server: usize) -> Result<String, Failure> {
        ask(&self.servers[server], &["INFO", "replication"])
    }

    /// Waits until one is the primary, the other follows it and has its data, and the sentinel knows both.
    fn until_whole(&self) -> Result<(), Failure> {
        let ends = SystemClock.now() + servers::BACK_WITHIN;
        loop {
            let whole = || -> Result<bool, Failure> {
                let primary = self.primary()?;
                let (first, second) = (self.role(primary)?, self.role(1 - primary)?);
                let told: redis::Value = ask(&self.sentinel, &["SENTINEL", "replicas", "leasehold"])?;
                let told = format!("{told:?}");
                Ok(first.contains("role:master")
                    && second.contains("role:slave")
                    && second.contains("master_link_status:up")
                    && told.contains("slave")
                    && !told.contains("s_down")
                    && !told.contains("disconnected"))
            };
            let last = whole();
            if matches!(last, Ok(true)) {
                return Ok(());
            }
            if SystemClock.now() > ends {
                return Err(Failure::new(format!("the primary and its replica are not whole again: {last:?}")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// An answer of a server that may be down.
fn ask<T: redis::FromRedisValue>(server: &PrivateServer, words: &[&str]) -> Result<T, Failure> {
    let limit = Duration::from_secs(10);
    let mut connection = redis::Client::open(server.url())?.get_connection_with_timeout(limit)?;
    connection.set_read_timeout(Some(limit))?;
    Ok(redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)?)
}

#[async_trait]
impl Ground for Ours {
    fn scale(&self) -> Scale {
        Scale { ttl: Duration::from_secs(2), grace: Duration::from_millis(500) }
    }

    fn wired(&self) -> Wired {
        let servers = self.0.servers.iter().map(|server| server.host_port().to_owned());
        Wired::Told { sentinel: self.0.sentinel.host_port().to_owned(), servers: servers.collect() }
    }

    fn place(&self, by: &[SocketAddr]) -> String {
        let sentinel = by.first().map_or(self.0.sentinel.host_port().to_owned(), SocketAddr::to_string);
        format!("redis-sentinel://:{PASSWORD}@{sentinel}/0?sentinelServiceName=leasehold")
    }

    fn faults(&self) -> Vec<Fault> {
        let urls: Vec<_> = self.0.servers.iter().map(|server| server.url().to_owned()).collect();
        let mut faults = vec![
            primary_killed(&self.0),
            primary_frozen(&self.0),
            replica_killed(&self.0),
            server::scripts_forgotten(&urls),
            server::listeners_cut(&urls),
        ];
        let set = Arc::clone(&self.0);
        let set = move |server: usize, ahead| set.servers[server].set_clock(0, ahead);
        faults.extend(clocks::faults(self.0.servers.len(), Leaps::Together, set));
        faults
    }

    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(RedisLocks::connect(&self.place(&[])).await?))
    }

    async fn healed(&self) -> Outcome {
        let set = Arc::clone(&self.0);
        blocking(move || set.until_whole()).await
    }

    /// The sentinel, which is never broken itself, can't tell a machine that stands still from a primary that does; while it is
    /// impatient, it may promote the replica before the fault has begun.
    async fn by_itself(&self) -> Result<Fault, Failure> {
        let mut heard = redis::Client::open(self.0.sentinel.url())?.get_async_pubsub().await?;
        heard.subscribe("+try-failover").await?;
        let begun = heard.on_message().next().await;
        begun.ok_or_else(|| Failure::new("the sentinel hung up"))?;
        Ok(failed_over(&self.0))
    }
}

/// What the replica hadn't got is lost.
fn primary_killed(set: &Arc<Set>) -> Fault {
    let about = "the primary is killed, and its replica promoted, which may have missed the last writes";
    of_primary(
        set,
        "primary-killed",
        about,
        |server| server.kill(),
        |server| {
            server.start()?;
            server.await_ready(servers::BACK_WITHIN)
        },
    )
}

/// Clients that hear it again before it learns that it was deposed write to it in vain.
fn primary_frozen(set: &Arc<Set>) -> Fault {
    let about =
        "the primary is frozen for longer than its replica takes to be promoted, and goes on as if nothing were";
    of_primary(set, "primary-frozen", about, |server| server.pause(), |server| server.unpause())
}

type Act = fn(&PrivateServer) -> Result<(), Error>;

fn of_primary(set: &Arc<Set>, name: &'static str, about: &'static str, begin: Act, end: Act) -> Fault {
    let set = Arc::clone(set);
    let fault = Fault::new(Lane::Server, name, about, move |chance, scale| {
        let (begins, ends) = (Arc::clone(&set), Arc::clone(&set));
        let (told, hears) = std::sync::mpsc::channel();
        let begins = blocking(move || -> Result<(), Failure> {
            let _turn = begins.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let primary = begins.primary()?;
            // Before: a replica that has been cut off for ten times as long is none that is promoted.
            begins.bear(IMPATIENT)?;
            // Before: what fails may have been done all the same.
            _ = told.send(primary);
            begin(&begins.servers[primary])?;
            // The promotion belongs to the fault.
            let ends = SystemClock.now() + servers::BACK_WITHIN;
            while begins.primary()? == primary {
                if SystemClock.now() > ends {
                    return Err(Failure::new("the replica was not promoted"));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            begins.bear(PATIENT)
        });
        let end = blocking(move || -> Result<(), Failure> {
            let _turn = ends.turn.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(primary) = hears.recv() {
                end(&ends.servers[primary])?;
            }
            ends.until_whole()
        });
        Some(Stroke::new("the primary", scale.ttls(0.5, 2.0, chance), begins, end))
    });
    fault.effect(Effect::DataLoss)
}

/// What the faults of the primary bring about as well, told from when the sentinel begins with it.
fn failed_over(set: &Arc<Set>) -> Fault {
    let set = Arc::clone(set);
    let about = "the sentinel promotes the replica, which may have missed the last writes";
    let fault = Fault::new(Lane::Server, "failed-over", about, move |_, _| {
        let set = Arc::clone(&set);
        let whole = blocking(move || set.until_whole());
        Some(Stroke::new("the primary", Duration::ZERO, async { Ok(()) }, whole))
    });
    fault.effect(Effect::DataLoss)
}

fn replica_killed(set: &Arc<Set>) -> Fault {
    let set = Arc::clone(set);
    let about = "the replica is killed, and started again";
    Fault::new(Lane::Server, "replica-killed", about, move |chance, scale| {
        let (begins, ends) = (Arc::clone(&set), Arc::clone(&set));
        let (told, hears) = std::sync::mpsc::channel();
        let begin = blocking(move || -> Result<(), Failure> {
            let replica = 1 - begins.primary()?;
            _ = told.send(replica);
            begins.servers[replica].kill()?;
            Ok(())
        });
        let end = blocking(move || -> Result<(), Failure> {
            if let Ok(replica) = hears.recv() {
                ends.servers[replica].start()?;
            }
            ends.until_whole()
        });
        Some(Stroke::new("the replica", scale.ttls(0.2, 1.5, chance), begin, end))
    })
}

/// A client's, or the operator's. Nothing is written to a store that loses writes at a fail-over.
pub(crate) async fn open(site: Site) -> Result<Scene, Failure> {
    let locks = RedisLocks::builder(site.place.as_str()).clock(Arc::clone(&site.clock)).build().await?;
    Ok(Scene {
        locks: Arc::new(locks),
        sets: vec![("elsewhere", elsewhere::set(&site.folder).await?)],
        transacted: None,
        counter: elsewhere::counter(&site.folder).await?,
    })
}
