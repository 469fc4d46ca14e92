//! Choosing the store: by a URL when the program runs, or by a feature when it is built.
//!
//! ```text
//! cargo run -p leasehold --example choose
//! cargo run -p leasehold --example choose -- memory:
//! cargo run -p leasehold --features etcd --example choose -- etcd://localhost:2379
//! ```

use std::error::Error;

use leasehold::prelude::*;

/// By a URL: the program has the stores that its features brought, and is told which one to use.
async fn by_url(url: &str) -> Result<Locks, leasehold::StoreError> {
    leasehold::connect(url).await
}

/// By a feature: the program has one store, with more to say than a URL can.
#[cfg(feature = "sqlite")]
async fn by_feature() -> Result<Locks, leasehold::StoreError> {
    let file = std::env::temp_dir().join("leasehold-choose.db");
    let store = leasehold::sqlite::SqliteLocks::builder(file).build().await?;
    Ok(Locks::new(store))
}

#[cfg(not(feature = "sqlite"))]
async fn by_feature() -> Result<Locks, leasehold::StoreError> {
    Ok(Locks::new(leasehold::MemoryLocks::new()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let locks = match std::env::args().nth(1) {
        Some(url) => by_url(&url).await?,
        None => by_feature().await?,
    };
    let can = locks.provider().capabilities();
    println!("{}: ttls of {}, {:?}, {:?}", can.store, can.ttl, can.durability, can.wake);
    let token = locks.lock("choose").run(|lease| async move { lease.token() }).await?;
    println!("held once, under token {token}");
    Ok(())
}
