//! Each law is kept by a good history, and each way to break it is caught, with the events that show it.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod drawn;
mod holding;
mod judged;
mod linear;
mod mutations;
mod reference;
mod resource;
mod strange;
mod tape;
mod waiting;
