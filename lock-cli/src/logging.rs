//! What the locks and the drivers tell of themselves (`-v`), on stderr.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::args::{LogFormat, Speech};

/// Starts telling, as asked for.
pub(crate) fn start(speech: &Speech) {
    // Without -v, what went wrong is said by the command itself, once.
    let (ours, drivers) = match speech.verbose {
        0 => return,
        1 => (LevelFilter::DEBUG, LevelFilter::WARN),
        _ => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    let stores = ["lock_sqlite", "lock_postgres", "lock_redis", "lock_mongo", "lock_etcd", "lock_zookeeper"];
    let which = Targets::new().with_default(drivers).with_targets(stores.map(|name| (name, ours)));
    let which = which.with_targets([("leasehold", ours), ("lock_core", ours)]);
    // Prints parameters of the URL that it doesn't know, values included: a misspelt password, for one.
    let which = which.with_target("sqlx_postgres::options", LevelFilter::OFF);
    // Prints the passwords of sessions in its debug lines.
    let which = which.with_target("zookeeper_client", drivers.min(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let told = tracing_subscriber::registry().with(which);
    match speech.log_format {
        LogFormat::Text => told.with(lines).init(),
        LogFormat::Json => told.with(lines.json()).init(),
    }
}
