//! What clients and the run that started them tell each other, a line each.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// What a process is started to be. Its seed, its number in the history and its clock are its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Which kind of store, as the test program calls it.
    pub(super) store: String,
    /// Where it is.
    pub(super) place: String,
    /// Where the history is written, and what all share.
    pub(super) folder: PathBuf,
    /// Which client; the same in its next life.
    pub(super) client: usize,
    /// Which process in the history.
    pub(super) number: u32,
    pub(super) seed: u64,
    /// How wrong its clock runs, in millionths.
    pub(super) ppm: i32,
    pub(super) ttl: Duration,
    /// How many tasks it has.
    pub(super) tasks: usize,
    /// How many leases it keeps beside that.
    pub(super) keeps: usize,
    /// How many are kept in all, by whomever.
    pub(super) kept: usize,
    /// Whether the store may lose what it acknowledged.
    pub(super) loses_data: bool,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// It is connected.
    Ready,
    /// It was granted this lock.
    Holds(String),
    /// It gives it back, or knows that it has lost it.
    Ends(String),
    /// It is about to append to what nothing fences.
    Tries,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Told {
    /// Its wall clock jumps by so many microseconds.
    Jump(i64),
    /// Ends its work and then itself.
    Stop,
}

/// In one write, and far shorter than what a pipe takes in one piece: nobody reads half a line.
pub(super) fn say(said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_string(said)?;
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}
