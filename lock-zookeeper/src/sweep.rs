//! Ends what nobody renews: a session outlives the leases and the places that live off it.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use crate::{
    line::Line,
    table::{Background, Table},
};

/// When an end that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The task that does it. It ends with this.
#[derive(Default)]
pub(crate) struct Sweeper(Mutex<Option<Background>>);

impl Sweeper {
    /// Sees to it that somebody looks, in this runtime if there is nobody yet.
    pub(crate) fn watch_over(&self, line: &Arc<Line>) {
        let mut task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(Background::is_finished) {
            *task = Some(tokio::spawn(sweep(Arc::downgrade(line), Arc::clone(&line.table))).into());
        }
    }
}

async fn sweep(line: Weak<Line>, table: Arc<Table>) {
    let Some(clock) = line.upgrade().map(|line| Arc::clone(&line.ground.clock)) else { return };
    loop {
        let earlier = table.earlier.notified();
        match table.first_due() {
            Some(due) => tokio::select! {
                () = clock.sleep_until(due) => {}
                () = earlier => continue,
            },
            None => {
                earlier.await;
                continue;
            }
        }
        let Some(line) = line.upgrade() else { return };
        let (now, limit) = (clock.now(), line.ground.operation_timeout);
        for claim in table.take_due(now, now + limit + AGAIN) {
            let line = Arc::clone(&line);
            tokio::spawn(async move {
                let patience = line.ground.patience(limit);
                if let Err(error) = line.leave(&claim, None, &patience).await {
                    tracing::debug!(lock = %claim.name, %error, "a lease that is over could not be ended; it will be tried again");
                }
            });
        }
    }
}
