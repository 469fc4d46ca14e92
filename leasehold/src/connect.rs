//! From a URL to a store.

use lock_core::{ErrorKind, LockProvider, Locks, MemoryLocks, StoreError};

/// The stores of this crate: URL schemes, the word for the store, and the feature that brings it.
const STORES: [Store; 8] = [
    Store { schemes: &["memory"], feature: None, example: "memory:" },
    Store { schemes: &["sqlite"], feature: Some("sqlite"), example: "sqlite:/var/lib/app/locks.db" },
    Store { schemes: &["postgres", "postgresql"], feature: Some("postgres"), example: "postgres://user@host/database" },
    Store {
        schemes: &["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"],
        feature: Some("redis"),
        example: "redis://host:6379",
    },
    Store { schemes: &["redlock", "redlocks"], feature: Some("redis"), example: "redlock://a:6379,b:6379,c:6379" },
    Store {
        schemes: &["mongodb", "mongodb+srv"],
        feature: Some("mongo"),
        example: "mongodb://user@host/database?replicaSet=name",
    },
    Store { schemes: &["etcd", "etcds"], feature: Some("etcd"), example: "etcd://a:2379,b:2379,c:2379" },
    Store { schemes: &["zookeeper"], feature: Some("zookeeper"), example: "zookeeper://a:2181,b:2181,c:2181" },
];

struct Store {
    schemes: &'static [&'static str],
    feature: Option<&'static str>,
    example: &'static str,
}

/// Locks of the store that the URL names, once it was reached.
///
/// Cancel safe: dropped, it leaves at most the store's own tables behind.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for a URL that can't be understood, an unknown scheme, or one whose feature is switched off
/// (the message names it); otherwise the store's own, within a few seconds. No message holds the URL's credentials.
pub async fn connect(url: &str) -> Result<Locks, StoreError> {
    let scheme = scheme(url)?;
    match scheme.as_str() {
        "memory" => Ok(locks(MemoryLocks::new())),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(locks(lock_sqlite::SqliteLocks::connect(url).await?)),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(locks(lock_postgres::PostgresLocks::connect(url).await?)),
        #[cfg(feature = "redis")]
        "redlock" | "redlocks" => Ok(locks(lock_redis::Redlock::connect(url).await?)),
        #[cfg(feature = "redis")]
        redis if redis.starts_with("redis") => Ok(locks(lock_redis::RedisLocks::connect(url).await?)),
        #[cfg(feature = "mongo")]
        "mongodb" | "mongodb+srv" => Ok(locks(lock_mongo::MongoLocks::connect(url).await?)),
        #[cfg(feature = "etcd")]
        "etcd" | "etcds" => Ok(locks(lock_etcd::EtcdLocks::connect(url).await?)),
        #[cfg(feature = "zookeeper")]
        "zookeeper" => Ok(locks(lock_zookeeper::ZooKeeperLocks::connect(url).await?)),
        other => Err(not_here(other)),
    }
}

/// A client, which counts what happens where that feature is on.
fn locks(provider: impl LockProvider) -> Locks {
    let builder = Locks::builder(provider);
    #[cfg(feature = "metrics")]
    let builder = builder.observer(std::sync::Arc::new(crate::metrics::Metrics));
    builder.build()
}

/// The statements that make what a store keeps its locks and its fences in, for an administrator to run; `schema` where it
/// has one (on MongoDB the collection of the locks; that of the fences needs no statements).
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for a store without a schema of its own, an unknown one, or one that is switched off.
pub fn schema_ddl(store: &str, schema: Option<&str>) -> Result<String, StoreError> {
    match store {
        "memory" | "sqlite" if schema.is_some() => Err(StoreError::refused(
            ErrorKind::InvalidConfig,
            format!("the {store} store has no schemas to choose from"),
        )),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(both(lock_sqlite::SqliteLocks::ddl(), lock_sqlite::SqliteFences::ddl())),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let schema = schema.unwrap_or("leasehold");
            Ok(both(&lock_postgres::PostgresLocks::ddl(schema)?, &lock_postgres::PostgresFences::ddl(schema)?))
        }
        #[cfg(feature = "mongo")]
        "mongo" | "mongodb" => lock_mongo::MongoLocks::ddl(schema),
        "memory" | "redis" | "redlock" | "etcd" | "zookeeper" => {
            Err(StoreError::refused(ErrorKind::InvalidConfig, format!("the {store} store needs no schema")))
        }
        other => Err(not_here(other)),
    }
}

/// Two scripts as one.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn both(locks: &str, fences: &str) -> String {
    format!("{}\n\n{fences}", locks.trim_end())
}

pub(crate) fn scheme(url: &str) -> Result<String, StoreError> {
    match url.split_once(':') {
        // The characters of a scheme, as RFC 3986 has them (section 3.1).
        Some((scheme, _))
            if !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) =>
        {
            Ok(scheme.to_ascii_lowercase())
        }
        // The text may be a mangled URL with a password in it: it is not repeated.
        _ => {
            let message = format!("a store is named by a URL such as {}", examples());
            Err(StoreError::refused(ErrorKind::InvalidConfig, message))
        }
    }
}

/// Why a scheme leads nowhere: its feature is off, or nobody knows it.
pub(crate) fn not_here(scheme: &str) -> StoreError {
    let named = |store: &&Store| store.schemes.contains(&scheme) || store.feature == Some(scheme);
    let known = STORES.iter().find(named).and_then(|store| store.feature);
    let message = match known {
        Some(feature) => format!("{scheme}: is not in this build: switch on the feature \"{feature}\" of leasehold"),
        None => format!("{scheme}: is no store that leasehold knows; it knows {}", examples()),
    };
    StoreError::refused(ErrorKind::InvalidConfig, message)
}

fn examples() -> String {
    STORES.map(|store| store.example).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unknown_scheme_is_told_what_is_known() {
        let error = connect("carrier-pigeon://user:secret@loft").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let text = error.to_string();
        assert!(text.contains("sqlite:/") && !text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn what_is_no_url_is_not_repeated() {
        for bad in ["", "secret", "://secret", "user secret@host:5432"] {
            let error = connect(bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bad:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    /// Every scheme that is told to people gets as far as its store, or names the feature that brings it.
    #[tokio::test]
    async fn no_scheme_is_unknown() {
        for store in &STORES {
            for scheme in store.schemes.iter().filter(|scheme| **scheme != "memory") {
                // A URL that each store refuses before it sends anything.
                let error = connect(&format!("{scheme}:///?nonsense=%zz&leasehold_nonsense=1")).await.err();
                let text = error.map(|error| error.to_string()).unwrap_or_default();
                assert!(!text.contains("is no store that") && !text.contains("is named by a URL"), "{scheme}: {text}");
            }
        }
    }

    #[test]
    fn a_schema_is_printed_or_it_is_said_why_not() {
        assert!(schema_ddl("memory", None).is_err());
        #[cfg(feature = "sqlite")]
        {
            let ddl = schema_ddl("sqlite", None).unwrap();
            assert!(ddl.contains("leasehold_locks") && ddl.contains("leasehold_fences"), "{ddl}");
            assert!(schema_ddl("sqlite", Some("x")).is_err(), "it would be ignored");
        }
        #[cfg(feature = "postgres")]
        {
            let ddl = schema_ddl("postgres", Some("my locks")).unwrap();
            assert!(ddl.contains("\"my locks\".\"locks\"") && ddl.contains("\"my locks\".\"fences\""), "{ddl}");
            assert!(schema_ddl("postgres", Some("")).is_err());
        }
        #[cfg(feature = "mongo")]
        {
            assert!(schema_ddl("mongo", None).unwrap().contains("getCollection(\"leasehold_locks\")"));
            assert!(schema_ddl("mongo", Some("my \"locks\"")).unwrap().contains("(\"my \\\"locks\\\"\")"));
            assert!(schema_ddl("mongo", Some("")).is_err());
        }
        #[cfg(feature = "redis")]
        assert!(schema_ddl("redis", None).unwrap_err().to_string().contains("needs no schema"));
    }

    #[cfg(not(feature = "postgres"))]
    #[tokio::test]
    async fn a_store_that_is_switched_off_names_its_feature() {
        let error = connect("postgres://user:secret@host/db").await.unwrap_err();
        assert!(error.to_string().contains("feature \"postgres\""), "{error}");
    }
}
