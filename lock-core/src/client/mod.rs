//! What every store gets from the core: acquiring and waiting, the guard, the keeper.

mod acquire;
mod current;
mod error;
mod guard;
mod keeper;
mod lease;
mod lock;
mod locks;
mod observer;
mod queue;
mod run;
mod transaction;

pub use current::{assert_locked, current};
pub use error::{Busy, Finished, LockError, LossReason, Lost, Outcome, Skipped};
pub use guard::{LeaseGuard, ReleaseOutcome};
pub use lease::Lease;
pub use lock::Lock;
pub use locks::{Locks, LocksBuilder};
pub(crate) use observer::Watched;
pub use observer::{Event, Observer, TestObserver, Told};
pub use transaction::{TransactionError, Transactions};
