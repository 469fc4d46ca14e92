//! Stores that stall, fail, answer late or less than asked, and runtimes that end: what the client makes of them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

#[path = "../support/mod.rs"]
mod support;

mod ends;
mod renewals;
mod runtimes;
mod waiting;

use std::time::Duration;

use lock_core::*;

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

async fn pass(clock: &TestClock, by: Duration) {
    clock.sleep_until(clock.now() + by).await;
}
