//! `leasehold schema`: the statements that set a store up, for its administrator.

use serde_json::json;

use crate::{args::Schema, exit::Failure, people};

/// Prints them on stdout.
///
/// # Errors
/// Usage, if that kind of store has none.
pub(crate) fn print(task: &Schema) -> Result<u8, Failure> {
    let statements = leasehold::schema_ddl(&task.kind, task.schema.as_deref())?;
    if task.json.json {
        return people::print(&format!("{}\n", json!({ "store": task.kind, "statements": statements })));
    }
    people::print(&format!("{}\n", statements.trim_end()))
}
