//! The check at the resource: a write says under which grant it is made, and one that comes late is refused.
//!
//! Exclusion may fail: a process stands still, its lease ends, another one takes the lock, and then the first one's write
//! arrives. So the resource keeps the highest token it has seen, and refuses what comes with a lower one (law 4).

mod error;
mod judge;
mod memory;
mod register;
mod report;
mod resource;
mod value;

pub use error::{FenceError, InvalidFence, NotHeld, OtherLock, RefusalReason, Stale};
pub use judge::{Pass, admit};
pub use memory::MemoryFences;
pub use register::FenceRegister;
pub use report::FenceReport;
pub use resource::Resource;
pub use value::{Fence, ToFence};
