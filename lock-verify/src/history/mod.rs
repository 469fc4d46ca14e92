//! What the clients of a run did and saw, event by event.
//!
//! Every call of a client is two events: its [`Kind::Invoke`], and how it ended: [`Kind::Ok`], [`Kind::Fail`] (it definitely
//! changed nothing) or [`Kind::Info`] (nobody knows; it may even be applied later). What a client learns unasked (a loss, a
//! place in line) and what the nemesis does are single events. All times are of one machine's clock.
//!
//! Each process writes a file of its own through a [`Recorder`], one JSON object per line, at once; [`read`] puts several of
//! them together. What a checker needs is that the invoke is recorded *before* the call begins and its end *after* it has
//! returned: then a recorded call covers the true one, and the laws, which are strict only about what covers leave no doubt
//! of, can't cry wolf.

mod calls;
mod edn;
mod event;
mod kinds;
mod nanos;
mod reader;
mod recorder;
mod shape;

pub use calls::{Call, History, Malformed};
pub use edn::to_edn;
pub use event::{Entry, Event};
pub use kinds::{Effect, F, Kind, Mode, Process, Why};
pub use reader::{ReadError, Recorded, read};
pub use recorder::Recorder;
