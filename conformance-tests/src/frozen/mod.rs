//! Fencing under fire (law 4): processes that stand still for longer than their leases, and then go on writing.
//!
//! Several processes of the test's own binary take turns at a lock. Each, while it holds it, looks at its lease, thinks, and
//! appends to a list; and all the time somebody stops processes (SIGSTOP), best the one that holds the lock and best
//! between its look and its write, as a collection of garbage or a suspended virtual machine would. When it goes on, the
//! lock is another's, and its write is late. Afterwards the list is read:
//!
//! - the tokens of its entries never fall;
//! - every acknowledged entry is there exactly once;
//! - nothing is there that nobody attempted, and nothing that was refused;
//! - it is in the order in which it was written, by the clock that all processes of a host share.
//!
//! A run in which too little happened (no holder was frozen, no late write came) shows nothing and fails. The same run
//! without the check is the negative control: tokens must be found that fall.
//!
//! # For your provider
//!
//! Implement [`FencedList`], and write a test program with a `main` of its own (`harness = false`). Its `main` calls
//! [`FrozenWriters::play`] first: the processes are the same program, started once more.
//!
//! ```no_run
//! use std::{process::ExitCode, sync::Arc, time::Duration};
//!
//! use conformance_tests::{
//!     FencedList, FrozenWriters,
//!     frozen::{Scene, Site},
//! };
//! # async fn my_locks(_: &str) -> Result<lock_core::MemoryLocks, lock_core::StoreError> { unimplemented!() }
//! # async fn my_list(_: &str, _: &str) -> Arc<dyn FencedList> { unimplemented!() }
//!
//! fn main() -> ExitCode {
//!     let open = |site: Site| async move {
//!         let locks = my_locks(&site.place).await?;
//!         Ok(Scene::new(locks, my_list(&site.place, &site.name).await))
//!     };
//!     if let Some(code) = FrozenWriters::play(open) {
//!         return code;
//!     }
//!     let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
//!     runtime.block_on(async {
//!         let writers = FrozenWriters::new("my-store", "my-store://localhost", Duration::from_secs(1));
//!         let list = my_list("my-store://localhost", writers.name()).await;
//!         println!("{}", writers.must_be_fenced(&*list).await.unwrap());
//!         let control = FrozenWriters::new("my-store", "my-store://localhost", Duration::from_secs(1));
//!         let list = my_list("my-store://localhost", control.name()).await;
//!         println!("{}", control.must_be_caught(&*list).await.unwrap());
//!     });
//!     ExitCode::SUCCESS
//! }
//! ```

mod faults;
mod herd;
mod history;
mod list;
mod ordeal;
mod seen;
mod words;
mod writer;

pub use list::FencedList;
pub use ordeal::FrozenWriters;
pub use seen::Seen;
pub use writer::{Scene, Site};
