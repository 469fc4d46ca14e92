//! The check at the resource, where that is in etcd too: `register.rs` keeps the highest fence that a resource has seen next
//! to the data, wherever the lock is.

mod config;
mod known;
mod register;

pub use config::FencesBuilder;
pub use register::EtcdFences;
