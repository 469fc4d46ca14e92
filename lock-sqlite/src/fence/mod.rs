//! The check at the resource, in the transaction that writes.
//!
//! SQLite has one writer. So each check first takes the file's write lock, then reads, judges, and (a guard) looks at the
//! clock: whoever has the write lock knows that nothing it read can change before its transaction ends. A transaction that
//! has read before somebody else wrote can't get it any more (`SQLITE_BUSY_SNAPSHOT`): what it knows is old.

mod alive;
mod driver;
mod end;
mod failure;
mod guard;
mod mark;
mod refusal;
mod register;

pub use guard::SqliteTransactions;
pub use register::SqliteFences;

/// Takes the write lock at its beginning, where a wait for it is possible.
const BEGIN: &str = "BEGIN IMMEDIATE";
