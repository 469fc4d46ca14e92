//! The schema: found, checked, and created when it isn't there.

use std::{sync::Arc, time::Duration};

use lock_core::{Applied, Durability, ErrorKind, StoreError};
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow};

use crate::{
    error::{self, LOCK_NOT_AVAILABLE},
    rows,
    statements::Schema,
};

/// What marks a table of ours that this version can use; `table.sql` writes it.
const VERSION_COMMENT: &str = "leasehold locks, version 1";

/// How often a column is tried to be added to a table that somebody's transaction uses; between them others have their turn.
const ATTEMPTS_AT_THE_TABLE: u32 = 5;

/// PostgreSQL 12 brought `AS MATERIALIZED`.
const OLDEST_SERVER: i32 = 120_000;

/// The statements that an administrator runs.
pub(crate) fn ddl(schema: &Schema) -> String {
    format!("BEGIN;\n\n{}\nCOMMIT;\n", script(schema, true))
}

/// The statements that create the table, and its schema too unless there is one.
///
/// `CREATE SCHEMA IF NOT EXISTS` asks for the right to create a schema even where it exists.
fn script(schema: &Schema, with_schema: bool) -> String {
    let lock = include_str!("sql/ddl_lock.sql");
    let create_schema = if with_schema { include_str!("sql/schema.sql") } else { "" };
    let table = include_str!("sql/table.sql");
    [lock, create_schema, table, include_str!("sql/columns.sql")].map(|part| schema.qualify(part)).join("\n")
}

/// The statements that add to a table of an earlier version what it lacks. They need its owner, and no right to create.
fn upgrade(schema: &Schema) -> String {
    [include_str!("sql/ddl_lock.sql"), include_str!("sql/columns.sql")].map(|part| schema.qualify(part)).join("\n")
}

/// The sentence for a schema that isn't there.
pub(crate) fn missing(said: &str) -> String {
    unready(said, "`leasehold schema postgres`")
}

/// The sentence for something that isn't there, and what prints the statements that create it.
pub(crate) fn unready(said: &str, printer: &str) -> String {
    format!("{said}: run the output of {printer} in this database as its administrator")
}

/// What the server says of itself.
#[derive(Debug)]
pub(crate) struct Server {
    fsync: bool,
    has_schema: bool,
    has_table: bool,
    table_comment: Option<String>,
    /// Whether it has the column that came later.
    has_ticks: bool,
    /// Whether the settings we asked for are in force.
    as_asked: bool,
    /// How old the server's session is, in microseconds.
    session_age: i64,
}

/// A session that is older than the connection by this much isn't the connection's own.
const OLDER: Duration = Duration::from_secs(1);

impl Server {
    /// Looks, in one round trip; refuses a server that can't keep locks.
    ///
    /// One message without parameters: with them it were two, and a pooler may give the second to another session.
    pub(crate) async fn probe(
        connection: &mut PgConnection,
        schema: &Schema,
        settings: &[(&'static str, String)],
    ) -> Result<Self, StoreError> {
        let found =
            sqlx::raw_sql(AssertSqlSafe(probe(schema, settings))).fetch_one(connection).await.map_err(unread)?;
        let not_ready = |message: String| Err(StoreError::refused(ErrorKind::NotReady, message));
        let encoding: String = column(&found, "encoding")?;
        if column::<i32>(&found, "version")? < OLDEST_SERVER {
            return not_ready("the server is older than PostgreSQL 12".to_owned());
        }
        if encoding != "UTF8" {
            return not_ready(format!("the database is encoded in {encoding}; names of locks need one in UTF8"));
        }
        if column(&found, "standby")? {
            return not_ready("this server is a read-only standby; connect to the primary server".to_owned());
        }
        Ok(Self {
            fsync: column(&found, "fsync")?,
            has_schema: column(&found, "has_schema")?,
            has_table: column(&found, "has_table")?,
            table_comment: column(&found, "table_comment")?,
            has_ticks: column(&found, "has_ticks")?,
            as_asked: column(&found, "as_asked")?,
            session_age: column(&found, "session_age")?,
        })
    }

    pub(crate) fn durability(&self) -> Durability {
        if self.fsync { Durability::Durable } else { Durability::Volatile }
    }

    /// Whether a pooler hands out the server's sessions; `connecting` is how long making the connection and looking took.
    ///
    /// One that drops the settings is told by that, unless they are the database's own; any, once it hands out a session
    /// that somebody had before.
    pub(crate) fn is_pooled(&self, connecting: Duration) -> bool {
        !self.as_asked || rows::span(self.session_age) > connecting + OLDER
    }

    /// Makes sure that the table is there in the right version; creates it, or adds what it lacks, if it may.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] with what to do.
    pub(crate) async fn ensure_table(
        self,
        connection: &mut PgConnection,
        schema: &Schema,
        may_create: bool,
    ) -> Result<(), StoreError> {
        if self.has_table {
            self.check_version(schema)?;
            if self.has_ticks {
                return Ok(());
            }
        }
        let quoted = format!("\"{}\"", schema.as_str());
        let (lacking, statements) = if self.has_table {
            (format!("the table locks in the schema {quoted} lacks the column last_tick"), upgrade(schema))
        } else {
            (format!("there is no table locks in the schema {quoted}"), script(schema, !self.has_schema))
        };
        if !may_create {
            return Err(StoreError::refused(ErrorKind::NotReady, missing(&lacking)));
        }
        let done = execute(connection, &statements, &lacking, missing).await;
        // Somebody else may have been faster: with this version, and nothing is lacking, or with another one.
        match (done, Self::probe(connection, schema, &[]).await) {
            (Ok(()), found) => found?.check_version(schema),
            (Err(_), Ok(found)) if found.has_table && found.has_ticks => found.check_version(schema),
            (Err(error), _) => Err(error),
        }
    }

    fn check_version(&self, schema: &Schema) -> Result<(), StoreError> {
        if self.table_comment.as_deref() == Some(VERSION_COMMENT) {
            return Ok(());
        }
        let found = self.table_comment.as_deref().unwrap_or("a table without a comment");
        Err(StoreError::refused(
            ErrorKind::NotReady,
            format!(
                "the table locks in the schema \"{}\" is not the one this version uses (it says: {found:?}): choose another schema",
                schema.as_str()
            ),
        ))
    }
}

/// Runs statements that create what is lacking.
pub(crate) async fn execute(
    connection: &mut PgConnection,
    statements: &str,
    lacking: &str,
    missing: fn(&str) -> String,
) -> Result<(), StoreError> {
    // Several statements sent as one are one transaction, and leave none open when one of them fails. Whoever creates it
    // at the same time, as twenty processes of one fleet may, is waited for longer than for a lock's row.
    let patient = "SELECT set_config('lock_timeout', '0', true);";
    let script: Arc<str> = format!("{patient}\n{statements}").into();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let done = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&script))).execute(&mut *connection).await;
        let Err(error) = done else { return Ok(()) };
        let code = error::answered(&error).map_or("", |answer| answer.code());
        return Err(match code {
            LOCK_NOT_AVAILABLE if attempts < ATTEMPTS_AT_THE_TABLE => continue,
            LOCK_NOT_AVAILABLE => {
                let message = format!(
                    "{lacking}, and another transaction keeps the table from being changed; look for it in pg_stat_activity, and try again"
                );
                StoreError::refused(ErrorKind::Contention, message).caused_by(error)
            }
            "42501" => {
                let said = format!("{lacking}, and this role may not create it");
                StoreError::refused(ErrorKind::NotReady, missing(&said)).caused_by(error)
            }
            _ => {
                let applied = error::applied(&error);
                error::of_statement(error, applied)
            }
        });
    }
}

fn column<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    name: &str,
) -> Result<T, StoreError> {
    row.try_get(name).map_err(unread)
}

/// The error of a look, which changes nothing.
fn unread(error: sqlx::Error) -> StoreError {
    error::of_statement(error, Applied::No)
}

/// The look, with the schema's name and the settings put in.
///
/// Safe to execute: the name goes as hex digits, whatever the session's rules for quotes are; the settings are our own words.
fn probe(schema: &Schema, settings: &[(&'static str, String)]) -> String {
    let name: String = schema.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
    let asked: String = settings.iter().map(|(name, value)| format!(", ('{name}', '{value}')")).collect();
    include_str!("sql/probe.sql").replace("{{name}}", &name).replace("{{asked}}", &asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pooler_is_told_by_dropped_settings_or_by_a_session_older_than_the_connection() {
        let look = |as_asked, session_age| Server {
            fsync: true,
            has_schema: true,
            has_table: true,
            table_comment: None,
            has_ticks: true,
            as_asked,
            session_age,
        };
        let connecting = Duration::from_millis(200);
        assert!(look(false, 0).is_pooled(connecting));
        assert!(!look(true, 199_000).is_pooled(connecting));
        // Clocks step; one that stepped back during the connect tells nothing.
        assert!(!look(true, 1_200_000).is_pooled(connecting));
        assert!(!look(true, -5_000_000).is_pooled(connecting));
        assert!(look(true, 1_200_001).is_pooled(connecting));
    }

    #[test]
    fn the_look_holds_a_name_as_digits_only() {
        let schema = Schema::new("a'); {{asked}} \\").unwrap();
        let sql = probe(&schema, &[("jit", "off".to_owned())]);
        assert!(sql.contains("decode('6127293b207b7b61736b65647d7d205c', 'hex')"), "{sql}");
        assert!(sql.contains("(VALUES (NULL, NULL), ('jit', 'off'))"), "{sql}");
    }
}
