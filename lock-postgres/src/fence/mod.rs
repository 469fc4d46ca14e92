//! The check at the resource, where the data is in PostgreSQL: in the transaction that writes them.

mod begin;
mod builder;
mod elsewhere;
mod guard;
mod guarding;
mod register;

pub use builder::FencesBuilder;
pub use guard::PostgresTransactions;
pub use register::PostgresFences;

use std::sync::Arc;

use lock_core::{Applied, ErrorKind, Fence, StoreError};
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgRow};

use crate::{
    error,
    schema::unready,
    statements::{Schema, Template},
};

/// A statement of the fence, for one schema.
///
/// It goes in one message without parameters. With them it would be two, unless it was prepared: and what is prepared stays
/// in the session, which a pooler may hand to others. Safe to execute: the schema's name is quoted, and all else are digits, or
/// letters that mean nothing in quotes.
#[derive(Clone, Debug)]
struct Statement(Arc<Template>);

impl Statement {
    fn new(schema: &Schema, template: &str) -> Self {
        // They are sent each time.
        let lines = template.lines().filter(|line| !line.trim_start().starts_with("--"));
        Self(Arc::new(schema.template(&lines.collect::<Vec<_>>().join("\n"))))
    }

    fn fill(&self, values: &[(&str, &str)]) -> String {
        self.0.fill(values)
    }

    async fn run(&self, connection: &mut PgConnection, values: &[(&str, &str)]) -> Result<Vec<PgRow>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(self.fill(values))).fetch_all(connection).await
    }
}

/// Text as the statements take it: whatever the session's rules for quotes are, digits have none.
fn hex(text: &str) -> String {
    let digit = |number: u8| char::from(if number < 10 { b'0' + number } else { b'a' + number - 10 });
    let mut hex = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        hex.push(digit(byte >> 4));
        hex.push(digit(byte & 15));
    }
    hex
}

/// Text as an expression, the quickest that is safe: what goes as digits is computed anew each time.
fn quoted(text: &str) -> String {
    let means_itself = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/@".contains(&byte);
    if text.bytes().all(means_itself) {
        format!("'{text}'")
    } else {
        format!("pg_catalog.convert_from(pg_catalog.decode('{}', 'hex'), 'UTF8')", hex(text))
    }
}

/// Makes a transaction that was refused one that can't be committed, whatever its program does.
///
/// If this doesn't arrive, the connection is gone, and the transaction with it.
async fn refuse(connection: &mut PgConnection) {
    let _ = sqlx::raw_sql(include_str!("../sql/fence_refused.sql")).execute(connection).await;
}

/// The error of a statement in a transaction that wasn't committed: nothing of it was kept.
fn uncommitted(error: sqlx::Error, table: &str) -> StoreError {
    of_fence(error, Applied::No, table)
}

/// The error of a statement on this table.
fn of_fence(error: sqlx::Error, applied: Applied, table: &str) -> StoreError {
    let (code, said) = match error::answered(&error) {
        Some(answer) => (answer.code(), answer.message()),
        None => ("", ""),
    };
    let (kind, message) = match code {
        "42501" => {
            let message = format!(
                "{said}: grant the role USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its table {table}"
            );
            (ErrorKind::Denied, message)
        }
        "42P01" | "3F000" if table == "fences" => (ErrorKind::NotReady, unready(said, "PostgresFences::ddl")),
        // Only statements that need a transaction say so.
        "25P01" => return ended(error),
        "25P02" => {
            let message = "the transaction has failed before, and can only be rolled back".to_owned();
            (ErrorKind::Other, message)
        }
        "40001" => {
            let message = format!("{said}: nothing was written; do the transaction again from its beginning");
            (ErrorKind::Contention, message)
        }
        _ => return error::of_statement(error, applied),
    };
    let new = if applied == Applied::No { StoreError::refused } else { StoreError::unknown };
    new(kind, message).caused_by(error)
}

/// The error of a transaction that its work ended, or its driver for it, before we did.
fn ended(error: sqlx::Error) -> StoreError {
    let message = "the transaction had ended before: what was written since may stand, without the fence of its lock";
    StoreError::unknown(ErrorKind::Other, message.to_owned()).caused_by(error)
}

fn token(fence: &Fence) -> String {
    fence.token_i64().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_as_digits_unless_they_are_plain_and_comments_stay_here() {
        let name = "'; \\ $1 {{token}} é";
        assert_eq!(hex(name), "273b205c202431207b7b746f6b656e7d7d20c3a9");
        let statement = Statement::new(&Schema::usual(), include_str!("../sql/fence_look_held.sql"));
        let filled = statement.0.fill(&[("lock", &quoted(name)), ("token", "5")]);
        assert!(filled.contains("decode('273b20") && filled.contains("l.token <> 5 OR"), "{filled}");
        assert!(!filled.contains("--") && !filled.contains("{{"), "{filled}");
        assert_eq!(quoted("team/invoice-42:x.y_z@1"), "'team/invoice-42:x.y_z@1'");
        for other in ["a'b", "a b", "a\\", "$$", "é", "{{token}}", "a\n"] {
            assert!(
                quoted(other).starts_with("pg_catalog.convert_from(pg_catalog.decode('")
                    && !quoted(other).contains(other),
                "{other}"
            );
        }
    }
}
