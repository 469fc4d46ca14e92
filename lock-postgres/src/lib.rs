//! Locks in PostgreSQL: leases, fencing tokens, wake-ups by event.
//!
//! ```no_run
//! # async fn example(pool: sqlx::PgPool) -> Result<(), lock_core::StoreError> {
//! use lock_postgres::PostgresLocks;
//!
//! let locks = PostgresLocks::connect("postgres://app:secret@localhost/prod").await?;
//! // Or with the credentials of the application's own pool:
//! let locks = PostgresLocks::builder(pool).schema("leasehold").build().await?;
//! # Ok(()) }
//! ```
//!
//! # What it offers
//!
//! Exclusive leases in one table, `<schema>.locks`, one statement and one commit for each operation or group of
//! operations. Grants and renewals survive a crash of the server, also where its administrator or role turned
//! `synchronous_commit` off; with `fsync=off` they don't, and [`Capabilities::durability`](lock_core::Capabilities)
//! says so. Tokens rise even if the table is dropped, as long as the server's clock goes on. Waiters are woken by
//! `NOTIFY`, which is sent only for locks that somebody waits for.
//!
//! Ticks ([`AcquireRequest::tick`](lock_core::AcquireRequest)) are judged by the same statements: the last one that was used
//! up stands in the lock's row, as durable as the grant, and is kept as long as the token. A release that says
//! [`done`](lock_core::ReleaseRequest::done) waits for the disk, which others don't. A table of a version before ticks gets
//! the column at the connect, by a role that owns it; else the error says what the administrator is to run.
//!
//! # Fencing
//!
//! [`PostgresTransactions`], where locks and data are in one database. `begin`, `hold` in a transaction that was begun otherwise,
//! or the whole of it by [`run_in_transaction`](lock_core::Lock::run_in_transaction): it is done only if its grant holds the lock
//! at the server, and until it has ended nobody else is granted the lock, even if the lease expires, is given back or taken away.
//! `begin` needs no round trip of its own, nor does the second look when it is committed; `hold` is one.
//! It holds up neither renewals nor other locks. Who waits for the lock meanwhile asks ten times a second, since nothing tells of
//! a transaction's end; `inspect` calls the lock free. It needs the right to `UPDATE` the table `locks`.
//! A process that stands still in such a transaction keeps the lock for as long as its connection lives: the server's
//! `idle_in_transaction_session_timeout` bounds that, and what was written is undone then.
//!
//! Where a later grant was made, also one that is being committed, tokens decide and not the clock. All clients of these locks must
//! know that: those of a version before fences don't wait for guarded transactions, and those of the first one with fences
//! aren't waited for in the moment in which they commit a take-over.
//!
//! Under `REPEATABLE READ` and `SERIALIZABLE`, where a transaction sees the lock as it was at its first statement, each look is a
//! second one on another connection: [`PostgresTransactions`] opens up to two of its own for it.
//!
//! [`PostgresFences`], where the lock is elsewhere: the table `<schema>.fences` keeps the highest token of each resource, and
//! `admit` judges and raises it in the transaction that writes. One round trip, and no version of the row unless it raises. It
//! holds the resource's row to the end of the transaction, so the writers of one resource are done one by one.
//!
//! Both refuse in a way that the transaction can't be committed afterwards. Neither fences what a transaction does elsewhere, nor
//! what a program that doesn't ask writes.
//!
//! # Connections
//!
//! It opens up to four connections of its own ([`Builder::connections`]) and one more to `LISTEN` while somebody
//! waits. From the application's pool it takes the connect options alone: a renewal that queues behind the
//! application's own statements is a lock that gets lost.
//!
//! Given by URL, a server that is not on this host must prove who it is (`sslmode=verify-full`), unless the URL says
//! otherwise, such as `?sslmode=disable` in a trusted network. `sslrootcert=FILE` names the authority to trust.
//!
//! A connection that is cut silently is noticed within [`Builder::operation_timeout`] by an operation, and within
//! about half a minute by the `LISTEN` connection, which then wakes everybody. Idle connections are not
//! trusted for longer than some minutes.
//!
//! # Limits
//!
//! - **Poolers**: behind PgBouncer in transaction or session mode everything works but waking: that is noticed at the
//!   connect, waiters ask ([`Builder::poll_interval`]), and [`Capabilities::wake`](lock_core::Capabilities) says so. Each
//!   operation is then a transaction of four round trips that leaves nothing in the session. Statement mode is refused.
//! - Tested on PostgreSQL 15; it uses nothing that 12 doesn't have. Needs a database in UTF-8. A standby can't grant locks.
//! - Without synchronous replication a fail-over may lose the last grants: two may then believe until the
//!   first one's next renewal, and tokens still rise if the clocks of the two servers agree.
//! - The server's wall clock decides. It may step by up to the grace ([`Builder::grace`]).
//! - No shared locks, semaphores or queueing in order yet.

pub use sqlx;

mod config;
mod connections;
mod error;
mod fence;
mod group;
mod operation;
mod provider;
mod rows;
mod schema;
mod session;
mod statements;
mod sweep;
mod wake;

pub use config::{Builder, Source};
pub use fence::{FencesBuilder, PostgresFences, PostgresTransactions};
pub use provider::PostgresLocks;
