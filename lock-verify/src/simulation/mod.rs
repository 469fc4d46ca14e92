//! The core under simulated networks and clocks: one seed is one run, to the byte.
//!
//! Each node is a [`Locks`](lock_core::Locks) with a clock, a source of chance and a runtime of its own, over a network that
//! delays, loses, doubles and reorders, to one [`MemoryLocks`](lock_core::MemoryLocks). Nothing in it takes real time:
//! events happen one after the other in the order of true time, and each node does what comes of one until all its tasks
//! wait again. A node can so be stopped between two steps and in the midst of one, as by a SIGSTOP.
//!
//! While it runs, a checker that knows true time judges the laws: see [`Violation`].

mod belief;
mod chance;
mod clock;
mod events;
mod faults;
mod jobs;
mod network;
mod node;
mod plan;
mod record;
mod report;
mod resource;
mod run;
mod trace;
mod traffic;
mod truth;
mod waiting;
mod work;
mod world;

pub use report::{Counts, Outcome, Violation};
pub use run::{Told, simulate};
