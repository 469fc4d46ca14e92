//! Distributed locks in ZooKeeper: leases that live off sessions, fencing tokens, waiters in order.
//!
//! ```no_run
//! # async fn example() -> Result<(), lock_core::StoreError> {
//! use lock_zookeeper::ZooKeeperLocks;
//!
//! let url = "zookeeper://app:secret@zk1.example:2181,zk2.example:2181,zk3.example:2181";
//! let locks = ZooKeeperLocks::connect(url).await?;
//! // Or under another node, below a chroot that is there:
//! let url = "zookeeper://zk1.example:2181,zk2.example:2181,zk3.example:2181/apps";
//! let locks = ZooKeeperLocks::builder(url).path("/billing").build().await?;
//! # Ok(()) }
//! ```
//!
//! # What it offers
//!
//! Exclusive leases, each an ephemeral sequential node in the layout of Curator's `InterProcessMutex`, so that Curator's
//! clients and these exclude each other. A grant is told when a majority of the servers has it in its log; its token is the
//! node's `czxid`, the position of its making among all writes. Who waits stands in line with a node of its own, watches the
//! one before it, and is woken alone.
//!
//! # Sessions
//!
//! A lease's ttl is its session's timeout, or up to an eighth less, so a process has one session for each class of ttls, for all
//! leases of that class; a renewal costs no message. The session is opened by the first lease and closed half a minute after the last. The
//! servers bound what they grant, which [`Capabilities::ttl`](lock_core::Capabilities) tells (2 to 20 ticks: 4 to 40 s by
//! default). One more session, as long as can be had, answers what people ask.
//!
//! How long a session may be believed in is drawn from acknowledged writes alone, and never from pings, which a server that
//! is cut off from the others goes on answering. A lease therefore begins and goes on with somewhat less than its ttl: what
//! is certain of it, which is more than half. `belief.rs` has the argument.
//!
//! # Ticks
//!
//! The last tick that was used up is kept in a node for each lock, which outlives the lock's own and is never swept. A grant
//! uses its tick up in one step with a check that the holder's entry is still there, before it is told; a release with `done`
//! in one step with the entry's deletion. A version from before grants used ticks up can't read what they write: upgrade all
//! processes that share a job before one of them uses [`TickUse::AtGrant`](lock_core::TickUse).
//!
//! # Fencing
//!
//! Exclusion may fail at the client: it stands still, its session ends, and its write arrives late. Where the data are in
//! ZooKeeper too, the write takes a condition along in its multi, judged by the leader in the order of all writes:
//!
//! - [`ZooKeeperLocks::hold`], and [`write`](ZooKeeperLocks::write) which sends it too: the lease's own entry is there, so at
//!   the moment of the write nobody was granted the lock after it. For data on the servers that keep the lock.
//! - [`ZooKeeperFences`]: no higher token of the lock has written to the resource, wherever the lock is kept.
//!
//! Either costs one operation more in the multi, and no message; the register one look and two operations more for the first
//! write under a grant. A write whose answer is lost is told as such and not sent again. What it can't do: fence what is
//! written past it, without the condition; and after people have deleted a resource's node there, or
//! [forgotten](lock_core::FenceRegister::forget) it, refuse what comes first, whatever its token. **After a restore from a
//! backup** tokens begin again at the backup's transaction, and a holder from before it, still at work somewhere, has a
//! *higher* token than all new ones: stop all of them first, and forget the registers.
//!
//! # Limits
//!
//! - A lease is renewable by the client that acquired it only: it lives off that client's session. Any client can release it.
//! - At-least-for is kept by the process, since nothing outlives its session.
//! - Servers whose `minSessionTimeout` was set to less than two ticks need [`Builder::tick_time`]; so do clients of observers
//!   of observers, which tell twice the tick.
//! - `maxSessionTimeout` is the same at all servers, and isn't lowered while longer leases are held.
//! - No TLS and no SASL; digest users only. No shared locks and no semaphores yet.
//! - ZooKeeper 3.5.3 or later (container nodes). Tested on 3.8: one server, and three.
//! - It needs a tokio runtime that goes on: the sessions belong to the one in which they were opened.
#![forbid(unsafe_code)]

pub use zookeeper_client;

mod belief;
mod config;
mod data;
mod error;
mod fence;
mod greeting;
mod ground;
mod leave;
mod line;
mod names;
mod node;
mod opening;
mod people;
mod provider;
mod renegotiated;
mod session;
mod stand;
mod sweep;
mod table;
mod ticks;
mod url;

pub use config::{Builder, Source};
pub use fence::{FencesBuilder, ZooKeeperFences};
pub use provider::ZooKeeperLocks;
