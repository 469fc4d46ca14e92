//! `#[locked]`: what it goes on, what it does, and what is left when it is dropped.

#![cfg(feature = "macros")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

mod cancelled;
mod forms;
mod time;
mod wishes;
