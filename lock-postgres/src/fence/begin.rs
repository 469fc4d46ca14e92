//! A beginning that was sent and goes on when nobody waits for it any more.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use sqlx::{AssertSqlSafe, PgPool, Postgres, SqlSafeStr, SqlStr, Transaction};
use tokio::runtime::Handle;

type Begun = Result<Transaction<'static, Postgres>, sqlx::Error>;

/// Begins a transaction; dropped in the middle, it is begun and rolled back in the background.
///
/// The driver alone would give the connection back with the transaction open, and with all that is locked in it. `statement`
/// is safe to execute.
pub(super) fn begin(pool: &PgPool, statement: String) -> Beginning {
    let (pool, sent) = (pool.clone(), Arc::new(AtomicBool::new(false)));
    let statement = Watched { statement, taken: Arc::clone(&sent) };
    Beginning { work: Box::pin(async move { pool.begin_with(statement).await }), sent, ended: false }
}

pub(super) struct Beginning {
    work: Pin<Box<dyn Future<Output = Begun> + Send>>,
    sent: Arc<AtomicBool>,
    ended: bool,
}

impl Future for Beginning {
    type Output = Begun;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Begun> {
        let polled = self.work.as_mut().poll(context);
        self.ended = polled.is_ready();
        polled
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        // Who still waits for a connection gives up his place for good.
        if self.ended || !self.sent.load(Ordering::Relaxed) {
            return;
        }
        // Without a runtime the connection ends with it, and the server rolls back.
        if let Ok(runtime) = Handle::try_current() {
            let rest = std::mem::replace(&mut self.work, Box::pin(std::future::pending()));
            runtime.spawn(async move { drop(rest.await) });
        }
    }
}

/// A statement that tells when it is taken to be sent: not before there is a connection.
struct Watched {
    statement: String,
    taken: Arc<AtomicBool>,
}

impl SqlSafeStr for Watched {
    fn into_sql_str(self) -> SqlStr {
        self.taken.store(true, Ordering::Relaxed);
        AssertSqlSafe(self.statement).into_sql_str()
    }
}
