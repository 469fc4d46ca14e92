//! The check at the resource, in the transaction that writes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

#[path = "../common/mod.rs"]
mod common;

mod app;
mod broken_off;
mod ended;
mod guard;
mod guarded;
mod nested;
mod refusal;
mod register;
mod transactions;
