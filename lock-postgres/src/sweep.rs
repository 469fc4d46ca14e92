//! Sweeping: rows of locks that were idle for the retention go, now and then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_core::{Moment, OwnerId};
use sqlx::{Arguments, postgres::PgArguments};

use crate::{operation::Runner, rows};

const EVERY: Duration = Duration::from_secs(600);

/// One in so many processes sweeps at its first grant. Others do when they have lived for [`EVERY`]: where many
/// short processes take locks, the table isn't read by each of them.
const ONE_IN: u128 = 64;

#[derive(Debug)]
pub(crate) struct Sweeper {
    statement: Arc<str>,
    retention: Duration,
    started: Moment,
    /// When the next is due, in nanoseconds of the clock; zero before the first look.
    due: AtomicU64,
}

impl Sweeper {
    pub(crate) fn new(statement: Arc<str>, retention: Duration, started: Moment) -> Self {
        Self { statement, retention, started, due: AtomicU64::new(0) }
    }

    /// Sweeps in the background if it is time to. The owner is where chance comes from.
    pub(crate) fn look(&self, runner: &Arc<Runner>, owner: OwnerId) {
        let (now, due) = (runner.clock.now(), self.due.load(Ordering::Relaxed));
        if now.as_nanos() < due {
            return;
        }
        let next = (now + EVERY).as_nanos();
        let mine = self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let first = due == 0 && now.since(self.started) < EVERY;
        if !mine || (first && !owner.as_u128().is_multiple_of(ONE_IN)) {
            return;
        }
        let (runner, statement, retention) = (Arc::clone(runner), Arc::clone(&self.statement), self.retention);
        tokio::spawn(async move {
            let mut arguments = PgArguments::default();
            if arguments.add(rows::micros(retention)).is_ok()
                && let Err(error) = runner.run(&statement, arguments).await
            {
                tracing::debug!(%error, "idle locks were not swept; the next time will do");
            }
        });
    }
}
