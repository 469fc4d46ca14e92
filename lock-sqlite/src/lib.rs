//! Locks of one host's processes in an SQLite file: no server to run.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use lock_core::{AcquireRequest, Acquired, LockName, LockProvider, OsEntropy, OwnerId};
//! use lock_sqlite::SqliteLocks;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("locks.db");
//! let locks = SqliteLocks::builder(path).build().await?;
//! let mine = AcquireRequest::new(LockName::new("invoice-42")?, OwnerId::random(&OsEntropy), Duration::from_secs(10));
//! assert!(matches!(locks.acquire(&mine).await?, Acquired::Granted(_)));
//! # Ok(()) }
//! ```
//!
//! # What it guarantees
//! - Every operation is one `BEGIN IMMEDIATE` transaction, a whole group of them too; the records are read, judged and
//!   written under the file's one write lock, on the host's `CLOCK_BOOTTIME` as read after that lock was had.
//! - A grant is on the disk before it is told (`synchronous = FULL`). Another boot of the host frees every lease, and
//!   tokens rise over it, as over deletion of a record or of the whole file.
//! - An acquire that is refused only reads. Waiting costs nothing: whoever frees a lock sets the file's times after its
//!   commit, and the kernel tells the waiting processes (inotify). Where that can't be had,
//!   [`Capabilities::wake`](lock_core::Capabilities::wake) says `Poll`.
//! - Ticks ([`AcquireRequest::tick`](lock_core::AcquireRequest)): the last one that was used up stands in the lock's record
//!   and is read, judged and written with the rest of it. Who is told that a tick was used up only reads.
//! - Records of idle locks are swept after a retention, and their last ticks with them: a tick is known for as long as the
//!   token is.
//!
//! # Fencing
//! A lease can end while its holder stands still, so that its writes come late. They are refused in the transaction that
//! makes them:
//! - [`SqliteTransactions`], where lock and data are in one file: a transaction passes the check only if its grant holds the
//!   lock, and nobody is granted the lock before the transaction ends, whatever becomes of the lease. That is what
//!   [`Lock::run_in_transaction`](lock_core::Lock::run_in_transaction) takes, too.
//! - [`SqliteFences`], where the lock is kept elsewhere: the file keeps the highest token that each resource has seen, and
//!   lets no lower one through.
//!
//! A transaction that was refused can't be committed, also if its user doesn't heed the refusal; where `foreign_keys` is
//! switched off on its connection, what is written *after* the refusal can. And a transaction that SQLite ended by itself,
//! as it may when a statement fails (a full disk, `OR ROLLBACK`), is guarded no more: the next check tells of it, and so
//! does its end through [`Transactions`](lock_core::Transactions), but statements in between were committed on their own.
//! After an error that may be one of those, write no more.
//!
//! Both cost two short statements and no flush of their own: a durable one-row transaction of 0.35 ms took 1.1 to 1.2 times as
//! long on the two-core machine where this was written. Both take the file's one write lock, so whatever comes after an
//! open transaction waits for it, renewals as well: keep them shorter than the leases. What a commit is worth in a power cut
//! is settled by the application's own pool (`synchronous`). Neither can fence what isn't in the file: a message that was
//! sent, another database.
//!
//! # What it can't do
//! - Several hosts: a file on a network file system is refused where it can be told.
//! - Outlive its file's deletion: who deletes the file frees the locks in it, though their holders still believe. They
//!   learn at their next renewal, and the next tokens are higher.
//! - Paused tokio time (`start_paused`): SQLite works on threads of its own, of which tokio's paused clock knows nothing.
//!
//! The tables stand under names of their own (`leasehold_…`), so the file may be an application's database; it is put
//! in WAL mode. The runtime needs tokio's time and IO drivers.

mod boot;
mod config;
mod database;
mod failure;
mod fence;
mod ledger;
mod place;
mod provider;
mod row;
mod store;
mod url;
mod wake;

pub use config::SqliteLocksBuilder;
pub use fence::{SqliteFences, SqliteTransactions};
pub use provider::SqliteLocks;
pub use sqlx;
