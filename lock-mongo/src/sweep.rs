//! Sweeping is the server's: its TTL index deletes records of locks that were idle for the retention. Here one looks now
//! and then that the index is still there; whoever drops the collection drops it too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_core::Moment;

use crate::{operation::Runner, schema};

const EVERY: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Sweeper {
    /// Whether an index that is gone is made again.
    create: bool,
    /// When the next look is due, in nanoseconds of the clock.
    due: AtomicU64,
}

impl Sweeper {
    /// It was looked at just now.
    pub(crate) fn new(now: Moment, create: bool) -> Self {
        Self { create, due: AtomicU64::new((now + EVERY).as_nanos()) }
    }

    /// Looks in the background if it is time to.
    pub(crate) fn look(&self, runner: &Arc<Runner>) {
        let (now, due) = (runner.clock.now(), self.due.load(Ordering::Relaxed));
        let next = (now + EVERY).as_nanos();
        if now.as_nanos() < due || self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let (runner, create) = (Arc::clone(runner), self.create);
        tokio::spawn(async move {
            if let Err(error) =
                schema::ensure_index(&runner.database, runner.collection.name(), create, runner.timeout).await
            {
                tracing::debug!(error = %crate::error::of_reading(error), "no look at the index; the next time will do");
            }
        });
    }
}
