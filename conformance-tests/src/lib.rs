//! The properties that every lock provider keeps, as a suite for any provider.
//!
//! The contract of [`lock_core::LockProvider`] is a dozen laws. This crate turns them into properties, each a public
//! async function under its own name ([`grants`], [`leases`], [`strangers`], [`fence`], [`waiting`], [`doubt`],
//! [`guard`], [`people`]; all of them in [`PROPERTIES`]), and runs them over a store as a test program that reads as a
//! table:
//!
//! ```text
//! test grants::a_free_lock_is_granted     ... ok
//! test fence::tokens_rise_over_a_restart  ... ignored (memory: no server to restart)
//! ```
//!
//! # A suite for your provider
//!
//! Write a [`Harness`]: how to reach a store, and how to get a client of it. Then one line makes the test program, in a
//! file such as `tests/conformance.rs`:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use conformance_tests::{Failure, Harness, Missing, suite};
//! use lock_core::{LockProvider, MemoryLocks};
//!
//! struct MyHarness(MemoryLocks);
//!
//! #[async_trait]
//! impl Harness for MyHarness {
//!     async fn open() -> Result<Self, Missing> {
//!         // A server: say in one line what is missing and what to do, if it isn't there.
//!         Ok(Self(MemoryLocks::new()))
//!     }
//!
//!     fn store(&self) -> &'static str {
//!         "my-store"
//!     }
//!
//!     async fn provider(&self) -> Result<Arc<dyn LockProvider>, Failure> {
//!         // A fresh client, with connections of its own.
//!         Ok(Arc::new(self.0.clone()))
//!     }
//! }
//!
//! suite!(MyHarness);
//! ```
//!
//! The program has a `main` of its own, so `Cargo.toml` says:
//!
//! ```toml
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! `cargo test --test conformance` runs all, with cargo's own options (`-- leases::`, `-- --test-threads 1`). This much
//! tests two thirds of the properties. The others show as ignored and say what they miss: each [`Harness`] method with a
//! default is a *hook*, a way to do to the store what no provider can, and opens the properties that need it.
//!
//! | hook | opens |
//! |---|---|
//! | [`faulty`](Harness::faulty), with [`Proxy`] before a server or [`Unreliable`] where there is none | doubt, loss at the deadline, dropped acquires |
//! | [`child_spec`](Harness::child_spec), [`open_in_child`](Harness::open_in_child) | two processes, stopped and killed ones |
//! | [`delete_record`](Harness::delete_record), [`wipe`](Harness::wipe), [`restartable`](Harness::restartable) | the fence over lost data and restarts |
//! | [`commands`](Harness::commands), with [`Counted`] where there is no server that counts | waiting costs nothing |
//! | [`cut_subscriptions`](Harness::cut_subscriptions) | lost wake-ups are made good |
//! | [`skewed_provider`](Harness::skewed_provider), with [`SkewedClock`] | wrong wall clocks |
//!
//! [`MemoryHarness`] is a harness to read first. What a *capability* of the store rules out (waiters that aren't woken by events) is
//! ignored in the same way; there is no list of exceptions.
//!
//! # Fencing
//!
//! Beyond locks, a store may keep the highest token of each resource, and do a write only together with that check. What
//! every such register keeps is in [`registers`]; that late writes are refused indeed, by a register or by the lock itself,
//! is shown by processes that are frozen while they write: [`frozen`].
//!
//! # Under fire
//!
//! Clients in processes of their own, on servers that are frozen, killed and cut off at random, and the laws over the history
//! of all that: [`fire`], a feature of this crate.
//!
//! # What a run promises
//!
//! - Names are random for each property and run, so properties run at the same time on one store, eight at once. Those
//!   that disturb others (wiping, cutting, counting) run alone. Each has three minutes.
//! - "Never before" is strict: measured from the earliest moment the store can have counted from, so that a slow
//!   machine can neither hide a violation nor make one up. "Soon after" is generous, ten seconds.
//! - A store that isn't there ignores everything, with one line that says why. With `CI` set it fails the run.
//! - With `LEASEHOLD_CONFORMANCE_RESULTS` set to a folder, each property appends a line of JSON to `<store>.jsonl` there:
//!   `{"property":…,"store":…,"outcome":"passed"|"failed"|"ignored","reason":…,"seconds":…}`.
//! - The suite can fail: `tests/suite_catches` runs it over stores that are wrong in one way each.
//!
//! Unix only: processes are stopped and killed by signals.

mod asker;
mod child;
pub mod contention;
mod counted;
pub mod doubt;
mod failure;
mod faults;
pub mod fence;
#[cfg(feature = "fire")]
pub mod fire;
pub mod frozen;
pub mod grants;
pub mod guard;
mod harness;
pub mod leases;
mod memory;
pub mod people;
mod proxy;
pub mod registers;
mod results;
mod runner;
mod scripts;
mod skewed;
pub mod strangers;
mod table;
pub mod ticks;
mod unreliable;
pub mod waiting;

pub use asker::Outcome;
pub use contention::{Contended, Contention};
pub use counted::Counted;
pub(crate) use failure::ensure;
pub use failure::{Failure, Lacking};
pub use faults::{Faults, Faulty};
pub use frozen::{FencedList, FrozenWriters};
pub use harness::{Harness, Hook, Missing, Restartable};
pub use memory::MemoryHarness;
pub use proxy::Proxy;
pub use runner::run;
pub use skewed::SkewedClock;
pub use table::{Need, PROPERTIES, Property};
pub use unreliable::Unreliable;

/// Writes the `main` of a test program that runs the suite over a [`Harness`].
#[macro_export]
macro_rules! suite {
    ($harness:ty) => {
        fn main() -> ::std::process::ExitCode {
            $crate::run::<$harness>()
        }
    };
}
