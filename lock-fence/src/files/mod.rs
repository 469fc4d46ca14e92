//! Fenced writes to the files of a directory, for locks that are kept anywhere.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use lock_core::{Fence, Pass, Resource};
//! use lock_fence::files::FileFences;
//!
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! let fences = FileFences::open(directory).await?;
//! let prices = Resource::new("prices")?;
//!
//! // A lease's, or as it came along with a request.
//! let fence: Fence = "1764328000123456@prices".parse()?;
//! fences.write(&prices, &fence, Pass::Again, "prices.json", "{}").await?;
//!
//! // Read, think, write: in one step, since nobody else is let in meanwhile.
//! let admission = fences.admit(&prices, &fence, Pass::Again).await?;
//! let mut text = admission.read("prices.json").await?.unwrap_or_default();
//! text.push(b'\n');
//! admission.write("prices.json", text).await?;
//! drop(admission);
//!
//! let stale: Fence = "1764328000000000@prices".parse()?;
//! assert!(fences.write(&prices, &stale, Pass::Again, "prices.json", "late").await.is_err());
//! # Ok(()) }
//! ```
//!
//! # What it guarantees
//! - Among all processes that write the directory by this crate, one is let in at a time (a lock of the operating system on
//!   a file). Check and writes are under it, so no write of another holder comes between; when a process is killed, the
//!   kernel frees it.
//! - The fence is raised, and on the disk, before the first write under it. So a crash in between leaves a higher fence and
//!   the old data: nothing that was refused can pass later.
//! - A file is replaced as a whole: who reads it without asking, or after a crash, sees the old one or the new one. Once a
//!   write is told as done, it survives a power cut.
//!
//! # What it costs
//! A write costs what a durable replacement does: the flush of the new file and that of its directory. The check adds a flush
//! of the register's directory, and that of a small file where the fence is raised, which is once per grant. Where this was
//! written a plain replacement took 2.5 ms, a fenced one 1.2 to 1.4 times as long, and one that raises 2.1 times.
//!
//! # What it can't do
//! - Several files at once: each is replaced as a whole, one after the other. Put what belongs together into one file, or
//!   into a database.
//! - Fence who writes the files by other means.
//! - Network file systems: the lock and the order of flushes can't be relied on there. Use a local disk; it isn't checked.
//! - Do without tokio's time driver, or on a system that isn't Unix.
//! - Go on while a process that was let in stands still (`SIGSTOP`): the others wait, and are told `Contention` in the end.

mod admission;
mod directory;
mod failure;
mod fences;
mod name;

pub use admission::FileAdmission;
pub use fences::FileFences;
