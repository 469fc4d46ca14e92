//! Real fire: clients in processes of their own, on servers that are broken in every way there is, by a seed; everything
//! they did is a history, which the laws judge.
//!
//! Each client is the test's own binary, started once more. It has several tasks, which take turns by chance: a counter under
//! a fence, sets behind fences (at the store, and elsewhere), a set in transactions of the store, a queue with time-outs,
//! calls of owners whose holds are over, and, in one client, hundreds of leases that are kept for long. It writes each event at
//! once to a file of its own.
//!
//! Meanwhile chance makes faults, in lanes that go on side by side: clients are frozen beyond their ttls, killed between
//! any two steps, and have clocks that run wrong and jump; what passes between a client and a server is lost, held in one direction
//! or both, delayed, cut; servers are frozen, killed, restarted, cut off from one another, and their clocks are set; people take
//! locks away. Each is an event of the history, with what it may excuse. Where the store loses its data, or its clock leaps, two
//! may believe (law 1), which is counted; the fence at the resource must hold all the same.
//!
//! One set takes whatever comes. Its holders are frozen while they write, and the checker that passes the others must
//! find that it broke law 4: otherwise the run was too tame and fails.
//!
//! When all was healed and the clients have ended, one of each client's kind queues behind another, and asks as the holder that
//! it was: so laws 5 and 8 have something to be judged by in the shortest run. Then many wait for one lock, and what that costs the store is counted.
//!
//! # For your provider
//!
//! Implement [`Ground`], which has servers of the run's own and what can be done to them, and a function that opens a
//! [`Scene`]. Then [`Fire::play`] comes first in `main`, and [`Fire::burn`] runs it.
//!
//! # What it promises
//!
//! No bound rests on a sleep: the run waits for what it needs to see. Where something has to happen soon, the time for
//! which the machine itself stood still is measured and added.

mod about;
mod chance;
mod client;
mod clock;
mod control;
mod fault;
mod ground;
mod herd;
mod holds;
mod last_line;
mod last_look;
mod nemesis;
mod network;
mod on_clients;
mod on_network;
mod owners;
mod pen;
mod people;
mod port;
mod recorded;
mod report;
mod run;
mod scale;
mod scene;
mod sentinel;
mod silence;
mod socks;
mod stalls;
mod tasks;
mod wire;
mod words;

pub use chance::Chance;
pub use clock::WrongClock;
pub use fault::{Fault, Lane, Stroke, blocking};
pub use ground::{Ground, Wired};
pub use lock_verify::history::Effect;
pub use report::Burnt;
pub use run::Fire;
pub use scale::Scale;
pub use scene::{Begun, FencedCounter, NotCommitted, Scene, Site, TransactedSet};
