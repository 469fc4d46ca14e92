//! From a URL to a register of fences.

use std::sync::Arc;

use lock_core::{FenceRegister, MemoryFences, StoreError};

use crate::connect::{not_here, scheme};

/// The register, which counts what it refuses where that feature is on.
macro_rules! counted {
    ($register:expr) => {{
        let register = $register;
        #[cfg(feature = "metrics")]
        let register = register.observer(Arc::new(crate::metrics::Metrics));
        Arc::new(register)
    }};
}

/// The register of fences of the store that the URL names, once it was reached: the same URLs as those of
/// [`connect`](crate::connect).
///
/// It raises and looks. For a check that is one step with a write, use the store crate's own register: the check has to be in
/// the write's own transaction, script or message.
///
/// Where the feature `metrics` is on, what it refuses is counted.
///
/// Cancel safe: dropped, it leaves at most the store's own tables behind.
///
/// # Errors
/// Those of [`connect`](crate::connect); [`ErrorKind::Unsupported`](crate::ErrorKind) for Redlock, which has no one place
/// to keep the highest token in.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use leasehold::{Fence, Pass, Resource};
///
/// let fences = leasehold::connect_fences("memory:").await?;
/// let (accounts, fence): (_, Fence) = (Resource::new("accounts")?, "5@accounts".parse()?);
/// fences.raise(&accounts, &fence, Pass::Again).await?;
/// assert_eq!(fences.highest(&accounts).await?, Some(fence));
/// # Ok(()) }
/// ```
pub async fn connect_fences(url: &str) -> Result<Arc<dyn FenceRegister>, StoreError> {
    let scheme = scheme(url)?;
    Ok(match scheme.as_str() {
        "memory" => counted!(MemoryFences::new()),
        #[cfg(feature = "sqlite")]
        "sqlite" => counted!(lock_sqlite::SqliteFences::connect(url).await?),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => counted!(lock_postgres::PostgresFences::connect(url).await?),
        #[cfg(feature = "redis")]
        "redlock" | "redlocks" => {
            let message = "redlock: keeps no fences: its masters know nothing of each other, so none of them has the highest \
                           token; keep them where the data is, or on one Redis";
            return Err(StoreError::refused(lock_core::ErrorKind::Unsupported, message));
        }
        #[cfg(feature = "redis")]
        redis if redis.starts_with("redis") => counted!(lock_redis::RedisFences::connect(url).await?),
        #[cfg(feature = "mongo")]
        "mongodb" | "mongodb+srv" => counted!(lock_mongo::MongoFences::connect(url).await?),
        #[cfg(feature = "etcd")]
        "etcd" | "etcds" => counted!(lock_etcd::EtcdFences::connect(url).await?),
        #[cfg(feature = "zookeeper")]
        "zookeeper" => counted!(lock_zookeeper::ZooKeeperFences::connect(url).await?),
        other => return Err(not_here(other)),
    })
}
