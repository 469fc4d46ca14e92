//! Locks in etcd: leases, fencing tokens, waiters in order.
//!
//! ```no_run
//! # async fn example(client: etcd_client::Client) -> Result<(), lock_core::StoreError> {
//! use lock_etcd::EtcdLocks;
//!
//! let locks = EtcdLocks::connect("etcd://app:secret@etcd1,etcd2,etcd3/").await?;
//! // Or over the application's own client:
//! let locks = EtcdLocks::builder(client).prefix("locks/").build().await?;
//! # Ok(()) }
//! ```
//!
//! # What it offers
//!
//! Exclusive leases by consensus. Each holder and each waiter has a key of its own under the lock's name; the oldest one
//! holds the lock, and its `create_revision` is the token. A grant or a release is told when a majority has it on its
//! disks. Waiters are granted in the order in which they queued, over all processes; each watches the key before its own,
//! so a release wakes one.
//!
//! The last tick of a lock that was used up is kept for ever, under a key without a lease: a grant writes it in its own
//! transaction, and a waiter's turn in one more.
//!
//! All entries of a provider with the same ttl (in whole seconds) share one lease at the store, so that a thousand holds
//! are renewed by one message and a few reads. Each entry still ends by itself: its own process deletes it when nobody
//! renews it.
//!
//! # When a renewal counts
//!
//! An etcd server's OK to a keep-alive proves nothing: a leader that was deposed, or hangs in a write, says it too (etcd
//! #15247). Here one counts only if a linearizable read, begun after the answer, reports the raft term that stands in the
//! answer. Whoever handled the keep-alive was leader in that term or a later one; the read proves that a majority
//! followed the leader of that very term later still. So no other leader was there, and the lease was extended where it
//! counts. The read is the renewal's own look whether the holder's key is there. The end of a lease is counted from
//! before the keep-alive was sent.
//!
//! # Fencing
//!
//! A holder that stood still may send its writes when the lock is somebody else's already. Where those go to etcd, they are
//! refused there, in the transaction that would do them:
//!
//! - **The lock and the data in one cluster**: [`EtcdLocks::write`] does operations only if the grant holds its lock at the
//!   store, and [`EtcdLocks::hold`] gives the compares for the application's own transactions. They compare the holder's
//!   key, which is gone, or says so, after a release, a forced release and the end of its lease; while it is there, nobody
//!   was granted the lock since. No register is kept.
//! - **The lock elsewhere**, in any store: [`EtcdFences`] keeps the highest fence of each resource, and
//!   [`EtcdFences::write`] does operations only if theirs isn't below it; or, where each grant is to write once, only if it
//!   is above it ([`Pass`](lock_core::Pass)). A new holder raises it before its first read. [`EtcdFences::admit`] is for the
//!   application's own transactions.
//!
//! Either is one message to the server, as a plain write is; under a register, the first write of a grant takes two where
//! another process wrote last. A write that was refused has done nothing. One whose answer was lost may have been done, and
//! that is told: it isn't sent again by itself, since nobody knows whether it may be done twice. The very first write of a
//! resource takes two messages as well.
//!
//! What neither can do: fence a write that doesn't come in such a transaction. **After a restore from a backup** tokens begin
//! again at the backup's revision, and a holder from before it, still at work somewhere, has a *higher* token than all
//! new ones: stop all of them first, or restore with a revision above every token that was handed out (`--bump-revision`).
//! Programs that may write below
//! the prefix of the keys can undo all this: give them no right to it.
//!
//! # Connections
//!
//! One, to one server at a time: the next one is asked when it fails, says nothing for a third of
//! [`Builder::operation_timeout`], or knows no leader. Given a URL, servers must prove who they are over TLS (`etcds://`), by the
//! system's authorities or those of the file in `SSL_CERT_FILE`.
//!
//! The application's own client decides by itself which of its servers is asked; a server that falls silent then costs
//! every request that goes there its time. Let it have one endpoint, and `require_leader`, time-outs and keep-alives set.
//! A provider is bound to the tokio runtime on which it was built.
//!
//! # Limits
//!
//! - Tested on etcd 3.4.23, one server and three; it needs 3.4.
//! - A ttl is kept in whole seconds, rounded up, and the server has a least one (one and a half times its election
//!   timeout): [`Grant::ttl`](lock_core::Grant) says what is left of what was granted.
//! - After a change of the leader, the leases of holders that vanished begin anew: others wait for up to a ttl longer.
//! - What [`inspect`](lock_core::LockProvider::inspect) tells as remaining is rounded up to whole seconds for the holds of other
//!   processes; a refusal tells the ttl at most.
//! - No shared locks and no semaphores yet.
//!
//! # Building
//!
//! The driver compiles etcd's protocol files: it needs `protoc` and the files that come with it (on Debian and Ubuntu
//! `protobuf-compiler` and `libprotobuf-dev`).

#![forbid(unsafe_code)]

pub use etcd_client;

mod acquire;
mod book;
mod class;
mod config;
mod contact;
mod entry;
mod error;
mod fence;
mod keys;
mod line;
mod link;
mod people;
mod provider;
mod release;
mod renew;
mod source;
mod store;
mod tend;
mod tick;
mod txn;
mod wake;

pub use config::Builder;
pub use fence::{EtcdFences, FencesBuilder};
pub use provider::EtcdLocks;
pub use source::Source;
