//! The check at the resource: of the grant itself where lock and data share a replica set, of the highest fence where they
//! don't.

mod config;
mod document;
mod register;
mod session;
mod step;
mod transactions;

pub use config::FencesBuilder;
pub use document::DocumentFence;
pub use register::MongoFences;
pub use transactions::MongoTransactions;
