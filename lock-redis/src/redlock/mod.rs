//! Redlock: a lock that a majority of independent masters agrees on.
//!
//! An acquire has two phases. First the masters are *claimed*: each that has the lock free makes the asker its owner for the
//! ttl, and tells the last token it knows of. If a majority did, the asker chooses a token above all of those, and above
//! the masters' clocks. Second, those very masters *accept* it: each that still has the asker as owner, by this very attempt,
//! takes note of it. The lock is held once a majority accepted.
//!
//! Why two phases: the highest of the tokens that the masters give out one by one is given to two grants sooner or later
//! (three masters that count 4, 5 and 1: one grant sees the first two, the next the last two). Here a grant that
//! returned was accepted by a majority, so each later claim of a majority meets one of those masters and learns of the token.
//!
//! What an attempt that came to nothing has claimed is taken back by the number of the attempt: a message that was
//! delayed must not free what a later attempt of the same owner relies on.

mod ballot;
mod campaign;
mod config;
mod masters;
mod people;
mod provider;
mod records;
mod rows;
mod scripts;

pub use config::Builder;
pub use provider::Redlock;
