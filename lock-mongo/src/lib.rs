//! Locks in MongoDB: leases, fencing tokens, wake-ups by change stream.
//!
//! ```no_run
//! # async fn example(client: mongodb::Client) -> Result<(), lock_core::StoreError> {
//! use lock_mongo::MongoLocks;
//!
//! let url = "mongodb://app:secret@db1.example,db2.example/prod?replicaSet=main&tls=true";
//! let locks = MongoLocks::connect(url).await?;
//! // Or with the application's own client, or its `Database`:
//! let locks = MongoLocks::builder(client).database("prod").collection("locks").build().await?;
//! # Ok(()) }
//! ```
//!
//! # What it offers
//!
//! Exclusive leases in one collection, `leasehold_locks` unless the URL (`leasehold_collection`) or the builder names
//! another one. Each operation is one `findAndModify` whose pipeline judges on the server's clock; operations that arrive
//! together share one `update` command. A grant, a renewal or a release is told when a majority of the replica set has it
//! in its journal; on a standalone, when the one server has. Tokens rise even if the collection is dropped, as long as
//! the servers' clocks go on.
//!
//! Waiters are woken by one change stream per process, which is open while somebody waits. A release sends nothing for it,
//! and who is refused writes nothing.
//!
//! A lock's record keeps the last [tick](lock_core::Tick) that was used up, for as long as its token: until seven days after
//! the end of its last lease ([`Builder::retention`]), or until the record is deleted. A tick is told used up only when a
//! majority has it so.
//!
//! # Connections
//!
//! Given a URL, it opens up to four connections for commands ([`Builder::connections`]) and one more for the change stream,
//! besides the driver's monitors. TLS is on where the URL says so (`tls=true`, or `mongodb+srv://`), and the server must
//! then prove who it is. Retries are its own, also where the URL says `retryWrites=true`: each request writes a number of
//! its own into the record, by which a second attempt recognises the first one's effect.
//!
//! The application's own client shares its pool. Let its `server_selection_timeout` be some seconds (the default is 30),
//! and its pool large enough that a renewal doesn't queue behind the application's own commands: such a lease gets lost
//! exactly when the application is busy. Its concerns and its read preference don't matter; they are set for each command.
//!
//! # Fencing
//!
//! - Where lock and data are in one replica set, a transaction can hold the lock itself ([`MongoTransactions`]): it begins
//!   only if the grant holds its lock, live by the server's clock, and nobody else is granted that before the transaction
//!   has ended. Its price is one command more, or two, and that renewals of the lease wait for its end: keep it short.
//! - Where the lock is elsewhere, the highest fence of each resource is kept next to the data ([`MongoFences`]), and
//!   judged and raised in the transaction of the write. Its price is one command more.
//! - Where a write is one update of one document, that one can carry the fence itself ([`DocumentFence`]): no transaction,
//!   and no command more.
//!
//! What a check refuses is undone by the server with all that the transaction wrote. A standalone server has no
//! transactions: there, [`DocumentFence`] is what fences a write.
//!
//! # Limits
//!
//! - **A standalone** has no change streams: waiters ask ([`Builder::poll_interval`]), and
//!   [`Capabilities::wake`](lock_core::Capabilities) says so.
//! - Tested on MongoDB 6.0, replica set and standalone; it needs 5.0. A sharded cluster should work through its routers,
//!   whose clocks then count the leases: add their differences to the grace. That isn't tested.
//! - Times are whole milliseconds, rounded so that no lease is kept for less than was told.
//! - The primary's wall clock decides. It may step, and differ from the next primary's, by up to the grace
//!   ([`Builder::grace`]).
//! - A client that is dropped keeps its change stream until the server's next answer, for up to half a minute.
//! - No shared locks, semaphores or queueing in order yet.

pub use mongodb;

mod config;
mod error;
mod fence;
mod group;
mod heartbeats;
mod leases;
mod operation;
mod pipelines;
mod provider;
mod records;
mod schema;
mod sweep;
mod url;
mod wake;

pub use config::{Builder, Source};
pub use fence::{DocumentFence, FencesBuilder, MongoFences, MongoTransactions};
pub use provider::MongoLocks;
