//! The check at the resource, where that is in etcd too.
//!
//! Two ways. `hold.rs`: the lock is in the same cluster, and its own key is compared in the write's transaction.
//! `register.rs`: the lock may be anywhere, and the highest fence that a resource has seen is kept next to the data.

mod config;
mod hold;
mod known;
mod register;

pub use config::FencesBuilder;
pub use register::EtcdFences;
