//! How a register is set up: its table is found, checked, and created when it isn't there.

use std::time::Duration;

use lock_core::{Applied, ErrorKind, Operation, StoreError};
use sqlx::{PgConnection, PgPool, postgres::PgPoolOptions};

use super::{Statement, hex, of_fence, register::PostgresFences};
use crate::{
    config,
    rows::column,
    schema::{execute, unready},
    statements::Schema,
};

/// What marks a table of ours that this version can use; `fences.sql` writes it.
const VERSION_COMMENT: &str = "leasehold fences, version 1";

/// Builds a [`PostgresFences`]. Made by [`PostgresFences::builder`].
#[derive(Debug)]
#[must_use]
pub struct FencesBuilder {
    pool: Result<PgPool, StoreError>,
    schema: Option<String>,
    create: bool,
}

impl FencesBuilder {
    pub(super) fn of_pool(pool: PgPool) -> Self {
        Self { pool: Ok(pool), schema: None, create: true }
    }

    pub(super) fn of_url(url: &str) -> Self {
        match config::parse(url) {
            Ok(config::Given { options, schema }) => {
                let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(3));
                Self { pool: Ok(pool.connect_lazy_with(options)), schema, create: true }
            }
            Err(error) => Self { pool: Err(error), schema: None, create: true },
        }
    }

    /// The schema of the table `fences`: 1 to 63 bytes, any characters. Default: `leasehold`.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = Some(name.into());
        self
    }

    /// Whether a missing table, and its schema, is created. Default `true`.
    pub fn create_schema(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Checks the table, and creates it if need be.
    ///
    /// Cancel safe: at most it was created.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] before anything is sent; [`ErrorKind::Unreachable`] or [`ErrorKind::Denied`] from the
    /// attempt to connect; [`ErrorKind::NotReady`] if the table can't be used, with what to do.
    pub async fn build(self) -> Result<PostgresFences, StoreError> {
        let at_connect = |error: StoreError| error.at("postgres", Operation::Connect, None);
        self.start().await.map_err(at_connect)
    }

    async fn start(self) -> Result<PostgresFences, StoreError> {
        let schema = self.schema.as_deref().map_or_else(|| Ok(Schema::usual()), Schema::new)?;
        let pool = self.pool?;
        let mut connection = pool.acquire().await.map_err(unread)?;
        ensure_table(&mut connection, &schema, self.create).await?;
        drop(connection);
        Ok(PostgresFences::new(pool, schema))
    }
}

/// The statements that an administrator runs.
pub(super) fn ddl(schema: &Schema) -> String {
    format!("BEGIN;\n\n{}\nCOMMIT;\n", script(schema, true))
}

fn script(schema: &Schema, with_schema: bool) -> String {
    let create_schema = if with_schema { include_str!("../sql/schema.sql") } else { "" };
    [include_str!("../sql/ddl_lock.sql"), create_schema, include_str!("../sql/fences.sql")]
        .map(|part| schema.qualify(part))
        .join("\n")
}

fn missing(said: &str) -> String {
    unready(said, "PostgresFences::ddl")
}

/// What is there.
struct Found {
    has_schema: bool,
    has_table: bool,
    table_comment: Option<String>,
}

impl Found {
    async fn look(connection: &mut PgConnection, schema: &Schema) -> Result<Self, StoreError> {
        let probe = Statement::new(schema, include_str!("../sql/fence_probe.sql"));
        let found = probe.run(connection, &[("name", &hex(schema.as_str()))]).await.map_err(unread)?;
        let row = found.first().ok_or_else(|| crate::rows::corrupt("the server said nothing"))?;
        let encoding: &str = column(row, "encoding")?;
        if encoding != "UTF8" {
            let message = format!("the database is encoded in {encoding}; names of resources need one in UTF8");
            return Err(StoreError::refused(ErrorKind::NotReady, message));
        }
        Ok(Self {
            has_schema: column(row, "has_schema")?,
            has_table: column(row, "has_table")?,
            table_comment: column(row, "table_comment")?,
        })
    }

    fn check_version(&self, schema: &Schema) -> Result<(), StoreError> {
        if self.table_comment.as_deref() == Some(VERSION_COMMENT) {
            return Ok(());
        }
        let found = self.table_comment.as_deref().unwrap_or("a table without a comment");
        let message = format!(
            "the table fences in the schema \"{}\" is not the one this version uses (it says: {found:?}): choose another schema",
            schema.as_str()
        );
        Err(StoreError::refused(ErrorKind::NotReady, message))
    }
}

async fn ensure_table(connection: &mut PgConnection, schema: &Schema, may_create: bool) -> Result<(), StoreError> {
    let found = Found::look(connection, schema).await?;
    if found.has_table {
        return found.check_version(schema);
    }
    let lacking = format!("there is no table fences in the schema \"{}\"", schema.as_str());
    if !may_create {
        return Err(StoreError::refused(ErrorKind::NotReady, missing(&lacking)));
    }
    let done = execute(connection, &script(schema, !found.has_schema), &lacking, missing).await;
    // Somebody else may have been faster.
    match (done, Found::look(connection, schema).await) {
        (Err(error), Ok(found)) if !found.has_table => Err(error),
        (Err(error), Err(_)) => Err(error),
        (_, found) => found?.check_version(schema),
    }
}

/// The error of a look, which changes nothing.
fn unread(error: sqlx::Error) -> StoreError {
    of_fence(error, Applied::No, "fences")
}
