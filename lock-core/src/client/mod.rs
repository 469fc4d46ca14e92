//! What every store gets from the core: acquiring and waiting, the guard, the keeper.

mod acquire;
mod error;
mod guard;
mod keeper;
mod lease;
mod lock;
mod locks;
mod queue;

pub use error::{Busy, LockError, LossReason, Lost};
pub use guard::{LeaseGuard, ReleaseOutcome};
pub use lease::Lease;
pub use lock::Lock;
pub use locks::{Locks, LocksBuilder};
