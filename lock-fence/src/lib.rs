//! The check at the resource for what keeps no locks itself.
//!
//! A lock hands out a fencing token with each grant, and a write that comes with a lower token than the resource has seen is
//! late: its holder stood still, its lease ended, and somebody else writes now. The store crates check that inside their own
//! databases (`PostgresFences`, `RedisFences` and so on). Here are the checks for the rest:
//!
//! - [`service`] (feature `tower`; `axum` for the extractor): an HTTP service of one's own refuses stale requests.
//! - [`files`] (feature `files`): the files of a directory are replaced only under the highest token.
//! - [`object`] (feature `object-store`): an object in a bucket is replaced only under the highest token it has seen.
//!
//! What can't check, such as an e-mail or a third party's API, can't be fenced: give it the token as an idempotency key.
#![forbid(unsafe_code)]

#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "object-store")]
pub mod object;
#[cfg(feature = "tower")]
pub mod service;

pub use lock_core::{Fence, FenceError, FenceRegister, Pass, Resource};
