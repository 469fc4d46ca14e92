//! MongoDB under fire: a replica set of three.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{
    Failure, Outcome,
    fire::{Begun, Fault, Ground, Lane, NotCommitted, Scale, Scene, Site, Stroke, TransactedSet, Wired, blocking},
};
use lock_core::{Clock, FenceError, Lease, Lock, LockProvider, SystemClock};
use lock_mongo::{MongoLocks, MongoTransactions};
use mongodb::{
    Client, ClientSession, Collection,
    bson::{Document, doc},
};
use testbed::{Error, MongoMembers, PrivateServer};

use crate::{
    clocks::Leaps,
    elsewhere, mongo_lists, not_committed, not_written, opened,
    servers::{self, BACK_WITHIN},
};

pub(crate) struct Ours(Arc<PrivateServer>);

pub(crate) fn start() -> Result<Arc<dyn Ground>, Failure> {
    Ok(Arc::new(Ours(Arc::new(testbed::mongo_private_clocked()?))))
}

#[async_trait]
impl Ground for Ours {
    fn scale(&self) -> Scale {
        Scale { ttl: Duration::from_secs(3), grace: Duration::from_millis(500) }
    }

    /// The members tell clients their own addresses.
    fn wired(&self) -> Wired {
        Wired::Proxied(self.0.host_ports().to_vec())
    }

    fn place(&self, by: &[SocketAddr]) -> String {
        let url = self.0.url();
        by.first().map_or(url.to_owned(), |proxy| format!("{url}&proxyHost={}&proxyPort={}", proxy.ip(), proxy.port()))
    }

    fn faults(&self) -> Vec<Fault> {
        let primary = |members: &MongoMembers<'_>, _| primary(members).map(|primary| vec![primary]);
        let secondary = |members: &MongoMembers<'_>, other| Ok(vec![(self::primary(members)? + other) % 3]);
        let majority = |members: &MongoMembers<'_>, other| {
            let primary = self::primary(members)?;
            Ok(vec![primary, (primary + other) % 3])
        };
        let mut faults = vec![
            of(
                &self.0,
                "primary-killed",
                "the primary is killed (SIGKILL), another elected, and it comes back",
                (0.2, 2.0),
                primary,
                kill,
            ),
            of(
                &self.0,
                "primary-frozen",
                "the primary is frozen while another is elected, and goes on as if nothing were",
                (0.5, 2.0),
                primary,
                freeze,
            ),
            of(&self.0, "secondary-killed", "a secondary is killed, and comes back", (0.2, 2.0), secondary, kill),
            of(&self.0, "secondary-frozen", "a secondary is frozen", (0.5, 2.0), secondary, freeze),
            of(
                &self.0,
                "majority-frozen",
                "two members are frozen, so that there is no majority",
                (0.2, 1.0),
                majority,
                freeze,
            ),
            stepped_down(&self.0),
        ];
        // A mongod whose clock leaps back waits with its heartbeats until the clock has come to where it was, and longer.
        faults.extend(servers::clocks_of(&self.0, Leaps::TogetherAhead));
        faults
    }

    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(MongoLocks::connect(self.0.url()).await?))
    }

    async fn healed(&self) -> Outcome {
        let server = Arc::clone(&self.0);
        blocking(move || whole(&server)).await
    }
}

fn primary(members: &MongoMembers<'_>) -> Result<usize, Error> {
    // Two may say that they are, until one has heard of the other.
    for _ in 0..600 {
        if let Some(primary) = members.primary() {
            return Ok(primary);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(0)
}

fn whole(server: &PrivateServer) -> Result<(), Error> {
    server.await_ready(BACK_WITHIN)?;
    // Members that come back copy what they missed; the wait for that is over after a while.
    let ends = SystemClock.now() + BACK_WITHIN;
    loop {
        let whole = MongoMembers::of(server).await_all();
        if whole.is_ok() || SystemClock.now() > ends {
            return whole;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

type Whom = fn(&MongoMembers<'_>, usize) -> Result<Vec<usize>, Error>;
/// How it begins and how it ends.
type Acts = (fn(&MongoMembers<'_>, usize) -> Result<(), Error>, fn(&MongoMembers<'_>, usize) -> Result<(), Error>);

#[allow(non_upper_case_globals, reason = "it reads as what it does")]
const kill: Acts = (|members, member| members.kill(member), |members, member| members.start(member));
#[allow(non_upper_case_globals, reason = "it reads as what it does")]
const freeze: Acts = (|members, member| members.freeze(member), |members, member| members.thaw(member));

fn of(
    server: &Arc<PrivateServer>,
    name: &'static str,
    about: &'static str,
    (least, most): (f64, f64),
    whom: Whom,
    acts: Acts,
) -> Fault {
    let server = Arc::clone(server);
    Fault::new(Lane::Server, name, about, move |chance, scale| {
        let (begins, ends) = (Arc::clone(&server), Arc::clone(&server));
        let (told, hears) = std::sync::mpsc::channel();
        let other = 1 + chance.below(2);
        let begin = blocking(move || -> Result<(), Error> {
            let members = MongoMembers::of(&begins);
            for member in whom(&members, other)? {
                // Before: what fails may have been done all the same.
                _ = told.send(member);
                acts.0(&members, member)?;
            }
            Ok(())
        });
        let end = blocking(move || -> Result<(), Error> {
            for member in hears {
                acts.1(&MongoMembers::of(&ends), member)?;
            }
            whole(&ends)
        });
        Some(Stroke::new("a member", scale.ttls(least, most, chance), begin, end))
    })
}

fn stepped_down(server: &Arc<PrivateServer>) -> Fault {
    let server = Arc::clone(server);
    let about = "the primary steps down, and another is elected";
    Fault::new(Lane::Server, "stepped-down", about, move |_, _| {
        let server = Arc::clone(&server);
        Some(Stroke::at_once(
            "the primary",
            blocking(move || -> Result<(), Error> {
                // There may be no primary just now.
                _ = MongoMembers::of(&server).step_down();
                whole(&server)
            }),
        ))
    })
}

/// A client's, or the operator's.
pub(crate) async fn open(site: Site) -> Result<Scene, Failure> {
    let locks = MongoLocks::builder(site.place.as_str()).clock(Arc::clone(&site.clock)).build().await?;
    let (one, other) = (site.place.clone(), site.place.clone());
    Ok(Scene {
        locks: Arc::new(locks),
        sets: vec![
            ("elsewhere", elsewhere::set(&site.folder).await?),
            ("guarded", opened(async move { mongo_lists::guard_list(&one, "guarded").await }).await?),
            ("registered", opened(async move { mongo_lists::register_list(&other, "registered").await }).await?),
        ],
        transacted: Some(Arc::new(Transacted::open(&site.place).await?)),
        counter: elsewhere::counter(&site.folder).await?,
    })
}

struct Transacted {
    sets: Collection<Document>,
    transactions: MongoTransactions,
}

/// The set is one document, so that its entries have an order.
const SET: &str = "transacted";

impl Transacted {
    async fn open(url: &str) -> Result<Self, Failure> {
        let client = Client::with_uri_str(url).await?;
        let database = client.default_database().ok_or_else(|| Failure::new("no database in the URL"))?;
        let sets = database.collection("fire_sets");
        let empty = doc! { "$setOnInsert": { "entries": [] } };
        sets.update_one(doc! { "_id": SET }, empty).upsert(true).await?;
        Ok(Self { sets, transactions: MongoTransactions::new(client) })
    }
}

#[async_trait(?Send)]
impl TransactedSet for Transacted {
    async fn append(&self, lock: Lock, begun: &Begun<'_>) -> Result<(), NotCommitted> {
        let work = async |session: &mut ClientSession, lease: &Lease| {
            let push = doc! { "$push": { "entries": begun(lease) } };
            self.sets.update_one(doc! { "_id": SET }, push).session(session).await.map(drop)
        };
        lock.run_in_transaction(&self.transactions, work).await.map_err(not_committed)
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        let found = self.sets.find_one(doc! { "_id": SET }).await.map_err(not_written)?.unwrap_or_default();
        let entries = found.get_array("entries").map_err(not_written)?;
        Ok(entries.iter().filter_map(|entry| entry.as_str()).map(str::to_owned).collect())
    }
}
