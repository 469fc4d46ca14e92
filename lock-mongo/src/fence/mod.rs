//! The check at the resource: of the grant itself, where lock and data share a replica set.

mod session;
mod transactions;

pub use transactions::MongoTransactions;
