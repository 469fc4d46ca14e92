//! The contract of a distributed lock, and everything that is the same for every store.

mod agenda;
mod batch;
mod capability;
mod client;
mod clock;
mod entropy;
mod error;
mod fence;
mod group;
mod listen;
mod memory;
mod name;
mod owner;
mod provider;
mod record;
mod request;
pub mod testing;
mod tick;
mod timing;
mod token;
mod told;
mod wake;

pub use agenda::Agenda;
pub use batch::{Request, in_waves};
pub use capability::{Capabilities, Durability, Fairness, KeptBy, TtlRange, Wake};
pub use client::{
    Busy, Event, Finished, Lease, LeaseGuard, Lock, LockError, Locks, LocksBuilder, LossReason, Lost, Observer,
    Outcome, ReleaseOutcome, Skipped, TestObserver, Told, TransactionError, Transactions, assert_locked, current,
};
pub use clock::{Clock, Moment, SystemClock, TestClock};
pub use entropy::{Entropy, OsEntropy, SeededEntropy};
pub use error::{Applied, ErrorKind, Operation, StoreError};
pub use fence::{
    Fence, FenceError, FenceRegister, FenceReport, InvalidFence, MemoryFences, NotHeld, OtherLock, Pass, RefusalReason,
    Resource, Stale, ToFence, admit,
};
pub use group::Grouped;
pub use listen::{EventSource, Heard, Listener};
pub use memory::MemoryLocks;
pub use name::LockName;
pub use owner::{HolderInfo, OwnerId};
pub use provider::LockProvider;
pub use record::{Record, Verdict};
pub use request::{
    AcquireRequest, Acquired, Grant, Held, Holding, ListRequest, LockState, LockStatus, Mode, ReleaseRequest, Released,
    RenewRequest, Renewed, Waiting,
};
pub use tick::{Tick, TickUse};
pub use timing::Timing;
pub use token::FencingToken;
pub use wake::{WakeHub, Watch};
