//! Small models of the protocols, searched to the end.
//!
//! Each is a [`Model`](stateright::Model) of which all states are looked at, so what holds in them holds whatever order things
//! happen in, as far as the model goes: its module says what it leaves out. A model is believed because it reaches the
//! situations that matter, and because it finds each of the mistakes that it can be given.
//!
//! `cargo run -p lock-verify --release --bin models` searches the full forms and prints a table.

mod catalogue;
pub mod lease;
pub mod redlock;
mod search;

pub use catalogue::{Case, Expected, Size, cases};
pub use search::{Found, Search};
