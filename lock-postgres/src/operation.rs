//! Runs one statement: in a task of its own, within its time, retried where that is safe.

use std::{sync::Arc, time::Duration};

use lock_core::{Applied, Clock, Durability, ErrorKind, StoreError};
use sqlx::postgres::{PgArguments, PgRow};

use crate::{
    connections::Connections,
    error::{self, Remedy},
    schema::Server,
    session::Progress,
    statements::Schema,
};

/// Attempts at a statement that another transaction was in the way of.
const ATTEMPTS_IN_CONFLICT: u32 = 5;

/// What statements are run with.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) connections: Connections,
    pub(crate) schema: Schema,
    pub(crate) may_create: bool,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What came of a statement.
pub(crate) struct Done {
    pub(crate) rows: Vec<PgRow>,
    /// Whether an earlier attempt broke off unanswered, so that these rows may tell of its effect and not of their own.
    pub(crate) in_doubt: bool,
}

impl Runner {
    /// Runs a statement that may safely be run twice, as all of ours are: they name the owner and the token.
    ///
    /// Dropping the future leaves the statement running, and its connection in order.
    pub(crate) async fn run(self: &Arc<Self>, sql: &Arc<str>, arguments: PgArguments) -> Result<Done, StoreError> {
        let (runner, sql) = (Arc::clone(self), Arc::clone(sql));
        let task = tokio::spawn(async move { runner.run_in_time(&sql, arguments).await });
        task.await.unwrap_or_else(|error| {
            Err(StoreError::unknown(ErrorKind::Other, "the runtime ended the operation").caused_by(error))
        })
    }

    /// Runs a statement that only reads: no failure of it may have been applied.
    pub(crate) async fn read(
        self: &Arc<Self>,
        sql: &Arc<str>,
        arguments: PgArguments,
    ) -> Result<Vec<PgRow>, StoreError> {
        match self.run(sql, arguments).await {
            Ok(done) => Ok(done.rows),
            Err(error) if error.applied() == Applied::No => Err(error),
            Err(error) => Err(StoreError::refused(error.kind(), "the server didn't answer").caused_by(error)),
        }
    }

    /// Connects, looks at the server and at what stands before it, and makes sure of the schema; says how durable a
    /// grant is.
    pub(crate) async fn prepare(&mut self) -> Result<Durability, StoreError> {
        let began = self.clock.now();
        let mut connection = self.connections.connect_first().await?;
        let (clock, give_up) = (Arc::clone(&self.clock), self.clock.now() + self.timeout);
        let prepare = async {
            let session = &mut self.connections.session;
            let server = Server::probe(&mut connection, &self.schema, session.settings()).await?;
            if server.is_pooled(clock.now().since(began)) {
                session.share();
            }
            if session.is_pooled() {
                session.try_out(&mut connection).await?;
            }
            let durability = server.durability();
            server.ensure_table(&mut connection, &self.schema, self.may_create).await?;
            Ok(durability)
        };
        let durability = tokio::select! {
            done = prepare => done?,
            () = clock.sleep_until(give_up) => {
                let message = format!("the server didn't answer within {:?}", self.timeout);
                return Err(StoreError::refused(ErrorKind::Timeout, message));
            }
        };
        self.connections.keep(connection);
        Ok(durability)
    }

    async fn run_in_time(&self, sql: &Arc<str>, arguments: PgArguments) -> Result<Done, StoreError> {
        let give_up = self.clock.now() + self.timeout;
        let progress = Progress::default();
        tokio::select! {
            done = self.attempts(sql, arguments, &progress) => done,
            // The future of the attempt is dropped, and with it its connection.
            () = self.clock.sleep_until(give_up) => Err(if progress.is_talking() {
                // The others were cut off with it, as likely as not.
                self.connections.forget_idle();
                let new = if progress.may_be_applied() { StoreError::unknown } else { StoreError::refused };
                new(ErrorKind::Timeout, format!("the server didn't answer within {:?}", self.timeout))
            } else {
                StoreError::refused(ErrorKind::Timeout, format!("no connection was free within {:?}", self.timeout))
            }),
        }
    }

    async fn attempts(&self, sql: &Arc<str>, arguments: PgArguments, progress: &Progress) -> Result<Done, StoreError> {
        let (mut in_doubt, mut created, mut conflicts) = (false, false, 0);
        // An error of a later attempt says nothing of an earlier one that broke off.
        let doubting = |error: StoreError, in_doubt| match (in_doubt, error.applied()) {
            (true, Applied::No) => {
                let message = format!("the connection broke, and then: {error}");
                StoreError::unknown(error.kind(), message).caused_by(error)
            }
            _ => error,
        };
        loop {
            let mut taken = self.connections.take().await.map_err(|error| doubting(error, in_doubt))?;
            let run = self.connections.session.run(&mut taken.connection, sql, arguments.clone(), progress);
            let failed = match run.await {
                Ok(rows) => {
                    self.connections.put_back(taken);
                    return Ok(Done { rows, in_doubt });
                }
                Err(failed) => failed,
            };
            let used_before = taken.used_before;
            if failed.reusable {
                self.connections.put_back(taken);
            }
            match error::remedy(&failed.error) {
                // A fresh connection that broke is no relic of an earlier time: the server is in trouble.
                Remedy::Reconnect if used_before => {
                    self.connections.forget_idle();
                    in_doubt |= failed.applied == Applied::Maybe;
                }
                Remedy::CreateSchema if self.may_create && !created => {
                    created = true;
                    self.create_again().await.map_err(|error| doubting(error, in_doubt))?;
                }
                Remedy::TryAgain if conflicts < ATTEMPTS_IN_CONFLICT => conflicts += 1,
                _ => return Err(doubting(error::of_statement(failed.error, failed.applied), in_doubt)),
            }
        }
    }

    /// Somebody dropped the schema, or an earlier version made it anew. The tokens rise all the same, by the clock.
    async fn create_again(&self) -> Result<(), StoreError> {
        tracing::warn!(schema = self.schema.as_str(), "the table of locks or a part of it is gone; creating it again");
        let mut connection = self.connections.connect().await?;
        let server = Server::probe(&mut connection, &self.schema, self.connections.session.settings()).await?;
        server.ensure_table(&mut connection, &self.schema, self.may_create).await
    }
}
