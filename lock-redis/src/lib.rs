//! Locks in Redis: leases, fencing tokens, wake-ups by event; on one server, in a cluster, behind sentinels.
//!
//! ```no_run
//! # async fn example(manager: redis::aio::ConnectionManager, client: redis::Client) -> Result<(), lock_core::StoreError> {
//! use lock_redis::RedisLocks;
//!
//! let locks = RedisLocks::connect("redis://app:secret@localhost/0").await?;
//! // Or over the application's own connection; waiters hear of releases at that server:
//! let locks = RedisLocks::builder(manager).listen_with(&client).prefix("locks:").build().await?;
//! # Ok(()) }
//! ```
//!
//! # What it offers
//!
//! Exclusive leases, one hash for each lock (`leasehold:{name}`), one Lua script for each operation or group of
//! operations. How long a grant that was told survives is the server's own configuration, which is read at the connect:
//! [`Capabilities::durability`](lock_core::Capabilities) is `Durable` with `appendonly yes`, `appendfsync always` and no
//! replicas, and `Volatile` otherwise. Tokens rise even if the server comes back empty, as long as its clock goes on.
//! Waiters are woken by `PUBLISH`, which is sent only for locks that somebody waits for. The record keeps the last tick
//! that was used up, as long as the token and no safer than it.
//!
//! # URLs
//!
//! | | |
//! |---|---|
//! | `redis://user:password@host:port/database` | one server; `rediss://` over TLS, `redis+unix:///path?db=0` by its socket |
//! | `redis-cluster://user:password@a:port,b:port` | a cluster, through any of these nodes; `rediss-cluster://` |
//! | `redis-sentinel://user:password@a:port,b:port/database?sentinelServiceName=name` | the primary that sentinels tell; `sentinelUsername` and `sentinelPassword` are for the sentinels, the others for the primary; `rediss-sentinel://` |
//!
//! `?leasehold_prefix=…` names what all keys begin with. Over TLS a server must prove who it is, by the system's
//! authorities or those of the file in `SSL_CERT_FILE`. If the application has set no default for rustls' cryptography,
//! the first connection over TLS makes it ring.
//!
//! # Connections
//!
//! One for all commands and one more that listens while somebody waits. A connection that is cut silently is noticed
//! within [`Builder::operation_timeout`] by an operation, and within about twenty seconds by the one that listens, which
//! then wakes everybody.
//!
//! # Fencing
//!
//! A holder that stood still for longer than its lease goes on to write. [`RedisLocks::script`] and [`RedisFences::script`]
//! take a Lua script as it would be given to `EVAL`, and run it only if the holder may still write: the check and the
//! script are one script to the server, which runs one at a time.
//!
//! | | for data in | passes | refuses |
//! |---|---|---|---|
//! | [`RedisLocks::script`] | the Redis that keeps the lock | while the grant holds its lock, by the lock's record and the server's clock; nobody is granted it before the script has ended | [`NotHeld`](lock_core::FenceError::NotHeld) |
//! | [`RedisFences::script`] | a Redis, with the lock in any store | the highest token that the resource has seen, and higher ones, of the lock that came first | [`Stale`](lock_core::FenceError::Stale), [`OtherLock`](lock_core::FenceError::OtherLock) |
//!
//! A refusal has written nothing, neither data nor register.
//!
//! It costs no message. Measured on Redis 7.0 with a script of two commands, which takes 3 µs of the server's time and 22 µs
//! from call to reply: 2.5 µs more of the server's time behind a register and 5 µs behind the lock's record, and 1.1 and
//! 1.15 times as long from call to reply. With 64 such calls at once a server does from a half to three quarters of what it
//! did. A register is written by each call that passes, also where it doesn't rise and the script only reads: to the disk
//! and to the replicas like any write.
//!
//! What it can't do:
//!
//! - *Redis rolls nothing back.* A script that ends with an error has written what it wrote before, and has raised the
//!   register. The error is passed on, as one that may have been applied.
//! - *It runs at most once*, and what isn't known is said: a call that got no answer is not sent again. In a cluster the driver
//!   does that by itself when a connection breaks; so there each call leaves a mark for some seconds (`…:call:…`), and a
//!   second arrival is refused by it.
//! - *A register that is lost lets an old token pass*, and a lock's record that is lost lets nobody pass. Both are as safe as
//!   the server's settings: [`RedisFences::durability`], [`Capabilities::durability`](lock_core::Capabilities). A fail-over to
//!   a replica may lose the last of either, and a primary that was cut off goes on to judge by what it has until it learns
//!   that it was deposed (or, with `min-replicas-to-write`, that it misses its replicas). From then on it lets nothing pass by
//!   a register, no raise either; by a lock's record it still lets scripts pass that only read. What must not be written
//!   twice over a fail-over doesn't belong in a store that loses writes at one.
//! - In a cluster the keys of one script must be of one slot, that of the lock or of the resource: their names begin with
//!   [`RedisLocks::tag`] or [`RedisFences::tag`]. A lock whose name begins with a closing brace has none there.
//! - While a cluster moves a slot to another node, fenced calls of that slot fail: their keys are never all at one node.
//!   The driver tries again until the time is over, so that it is told as an unknown outcome.
//! - A script that says `#!lua flags=no-writes` can't be fenced by a register, and in a cluster not by a lock either: what
//!   stands before it writes. The server's error says so.
//! - [`Redlock`] has no script of its own, since no single master can tell who holds the lock. Fence what it protects with a
//!   register where the data is.
//!
//! Registers need the rights `+evalsha +eval +get +set +del` on their keys, the application's scripts what they call; in a
//! cluster both kinds need `+set +exists` for the marks.
//!
//! # Limits
//!
//! - Redis 6 or later (tested on 7.0). A server that may evict locks is refused ([`Builder::allow_eviction`]), a replica too.
//! - A fail-over to a replica may lose the last grants: two may then believe until the first one's next renewal, and
//!   tokens still rise if the clocks of the two servers agree.
//! - The server's wall clock decides. It may step by up to the grace ([`Builder::grace`]).
//! - No shared locks, semaphores or queueing in order yet.

pub use redis;

mod config;
mod connect;
mod door;
mod error;
mod fence;
mod keys;
mod link;
mod list;
mod node;
mod operation;
mod provider;
pub mod redlock;
mod replies;
mod scripts;
mod sentinel;
mod server;
mod source;
mod tls;
mod wake;

pub use config::Builder;
pub use fence::{FencedCall, FencedScript, FencesBuilder, HeldCall, HeldScript, RedisFences};
pub use provider::RedisLocks;
pub use redlock::Redlock;
pub use source::Source;
