//! The settings that our statements run under, and how a statement is run: in a session of our own, which has them
//! from its start, or behind a pooler, which hands the server's sessions from client to client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lock_core::{Applied, StoreError};
use sqlx::{
    AssertSqlSafe, ConnectOptions, PgConnection,
    postgres::{PgArguments, PgConnectOptions, PgRow},
};

use crate::error;

/// For how long a transaction behind a pooler may stand still between two of its messages, at most.
///
/// Whoever is stopped there keeps rows locked, and the pooler would wait for it as long as TCP does.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// For how long a statement waits for a row that another transaction holds, at most.
///
/// Ours hold one for as long as a commit takes. Others are people, and applications that guard their own
/// transactions with the row of a lock.
const LONGEST_WAIT_FOR_A_ROW: Duration = Duration::from_millis(250);

/// How our statements are run.
pub(crate) struct Session {
    /// Asks for the settings in the startup packet.
    own: PgConnectOptions,
    /// Asks for nothing a pooler could refuse.
    plain: PgConnectOptions,
    settings: Vec<(&'static str, String)>,
    /// Begins a transaction with these settings, which end with it.
    begin: Arc<str>,
    pooled: bool,
}

/// How far a statement has come, for whoever gives it up.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    talking: AtomicBool,
    may_be_applied: AtomicBool,
}

/// Why a statement failed.
pub(crate) struct Failed {
    pub(crate) error: sqlx::Error,
    pub(crate) applied: Applied,
    /// Whether the connection can be used again.
    pub(crate) reusable: bool,
}

impl Session {
    pub(crate) fn new(options: PgConnectOptions, operation_timeout: Duration) -> Self {
        let named = options.get_application_name().is_some();
        let options = if named { options } else { options.application_name("leasehold") };
        let options = options.disable_statement_logging();
        let settings = settings(operation_timeout);
        let set: String = settings.iter().map(|(name, value)| format!("; SET LOCAL {name} = '{value}'")).collect();
        let pause = operation_timeout.min(LONGEST_PAUSE).as_millis();
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED{set}; SET LOCAL idle_in_transaction_session_timeout = {pause}"
        );
        Self {
            own: options.clone().options(settings.iter().map(|(name, value)| (name, value))),
            // We read no floats.
            plain: options.extra_float_digits(None),
            settings,
            begin: begin.into(),
            pooled: false,
        }
    }

    /// How to connect.
    pub(crate) fn options(&self) -> &PgConnectOptions {
        if self.pooled { &self.plain } else { &self.own }
    }

    /// The settings a session of our own has, by the server's names and in the form of its `pg_settings`.
    pub(crate) fn settings(&self) -> &[(&'static str, String)] {
        &self.settings
    }

    /// Whether the server's sessions are handed out by a pooler.
    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// From now on nothing is left to a session: it may be another one for each transaction, and others' in between.
    pub(crate) fn share(&mut self) {
        self.pooled = true;
    }

    /// Fails where a pooler gives us a session for one statement alone: nothing could be run there.
    pub(crate) async fn try_out(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let tried = self.run(connection, &Arc::from("SELECT"), PgArguments::default(), &Progress::default()).await;
        // Nothing is changed by it.
        tried.map(drop).map_err(|failed| error::of_statement(failed.error, Applied::No))
    }

    /// Runs one statement, in a transaction of its own.
    ///
    /// In a session of our own that is one round trip, once the statement is prepared. Behind a pooler it is an explicit
    /// transaction, which keeps the session ours: four, and nothing is left in the session.
    pub(crate) async fn run(
        &self,
        connection: &mut PgConnection,
        sql: &Arc<str>,
        arguments: PgArguments,
        progress: &Progress,
    ) -> Result<Vec<PgRow>, Failed> {
        let query = sqlx::query_with(AssertSqlSafe(Arc::clone(sql)), arguments);
        progress.talking.store(true, Ordering::Relaxed);
        if !self.pooled {
            progress.may_be_applied.store(true, Ordering::Relaxed);
            return query.fetch_all(connection).await.map_err(Failed::committing);
        }
        let begin = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&self.begin)));
        begin.execute(&mut *connection).await.map_err(Failed::uncommitted)?;
        let rows = query.persistent(false).fetch_all(&mut *connection).await.map_err(Failed::uncommitted)?;
        progress.may_be_applied.store(true, Ordering::Relaxed);
        sqlx::raw_sql("COMMIT").execute(connection).await.map_err(Failed::at_commit)?;
        Ok(rows)
    }
}

impl Progress {
    /// Whether anything was sent.
    pub(crate) fn is_talking(&self) -> bool {
        self.talking.load(Ordering::Relaxed)
    }

    pub(crate) fn may_be_applied(&self) -> bool {
        self.may_be_applied.load(Ordering::Relaxed)
    }
}

impl Failed {
    /// A statement that commits by itself.
    fn committing(error: sqlx::Error) -> Self {
        Self { applied: error::applied(&error), reusable: error::session_lives(&error), error }
    }

    /// Whose `COMMIT` was never sent: rolled back when we hang up, as whoever drops the connection does.
    fn uncommitted(error: sqlx::Error) -> Self {
        Self { applied: Applied::No, reusable: false, error }
    }

    fn at_commit(error: sqlx::Error) -> Self {
        Self { applied: Applied::Maybe, reusable: false, error }
    }
}

/// The settings of our statements. In a session of our own they come after the application's, and go before those of
/// role and database.
fn settings(operation_timeout: Duration) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        // Otherwise a statement that waited for a row fails with 40001.
        ("default_transaction_isolation", "read committed".to_owned()),
        // A statement that nobody waits for any more must not hand out a lock later.
        ("statement_timeout", operation_timeout.as_millis().to_string()),
        // Nor may one row that somebody else's transaction holds keep a whole group of requests waiting.
        ("lock_timeout", (operation_timeout / 4).min(LONGEST_WAIT_FOR_A_ROW).as_millis().to_string()),
    ];
    // The statements are short and always the same: to compile or plan them anew costs more than they take.
    settings.extend([("jit", "off"), ("plan_cache_mode", "force_generic_plan")].map(owned));
    // A plan made while the table was empty is kept when it has grown: so the one that looks up each name
    // in the index, whatever the statistics say (seen: 8 ms instead of 0.2 ms for a refusal).
    settings.extend(
        ["enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin"].map(|way| owned((way, "off"))),
    );
    settings
}

fn owned((name, value): (&'static str, &str)) -> (&'static str, String) {
    (name, value.to_owned())
}
