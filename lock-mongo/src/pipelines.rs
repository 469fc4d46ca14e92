//! What the server is told to do: the pipelines of `pipelines/`, and the filters before them.

use std::sync::Arc;

use lock_core::{ErrorKind, LockName, OwnerId, StoreError};
use mongodb::bson::{Bson, Document, doc};

use crate::records;

/// Read once; all values go in as variables, never as text.
#[derive(Debug)]
pub(crate) struct Pipelines {
    pub(crate) acquire: Arc<[Document]>,
    pub(crate) renew: Arc<[Document]>,
    pub(crate) release: Arc<[Document]>,
    pub(crate) force_release: Arc<[Document]>,
    pub(crate) watch: Arc<[Document]>,
    /// What is read of a record.
    pub(crate) shown: Document,
    live: Document,
    taken: Document,
}

impl Pipelines {
    pub(crate) fn read() -> Result<Self, StoreError> {
        Ok(Self {
            acquire: parse::<Vec<_>>(include_str!("pipelines/acquire.jsonc"))?.into(),
            renew: parse::<Vec<_>>(include_str!("pipelines/renew.jsonc"))?.into(),
            release: parse::<Vec<_>>(include_str!("pipelines/release.jsonc"))?.into(),
            force_release: parse::<Vec<_>>(include_str!("pipelines/force_release.jsonc"))?.into(),
            watch: parse::<Vec<_>>(include_str!("pipelines/watch.jsonc"))?.into(),
            shown: parse(include_str!("pipelines/shown.jsonc"))?,
            live: parse(include_str!("pipelines/live.jsonc"))?,
            taken: parse(include_str!("pipelines/taken.jsonc"))?,
        })
    }

    /// The record of this lock, while it is this owner's, under this token if it is known, and live.
    pub(crate) fn held_by(&self, name: &LockName, owner: OwnerId, token: Option<i64>) -> Document {
        let mut filter = doc! { "_id": name.as_str(), "owner": owner.to_string() };
        if let Some(token) = token {
            filter.insert("token", token);
        }
        filter.insert("$expr", self.live.clone());
        filter
    }

    /// The record of this lock, while nobody can have it, and unless this very change has freed it already: its number
    /// stays there when somebody else is granted the lock, whom a second attempt must not take it from.
    pub(crate) fn taken(&self, name: &LockName, change: i64) -> Document {
        doc! { "_id": name.as_str(), "released_by": { "$ne": change }, "$expr": self.taken.clone() }
    }
}

/// The record of this lock, while the grant with this token holds it.
pub(crate) fn held(name: &LockName, token: i64) -> Result<Document, StoreError> {
    let live: Document = parse(include_str!("pipelines/fence_hold.jsonc"))?;
    Ok(doc! { "_id": name.as_str(), "token": token, "$expr": live })
}

/// Variables as `let` wants them: its values are expressions, in which a text with a dollar sign would be a field.
pub(crate) fn literal(variables: Document) -> Document {
    variables.into_iter().map(|(name, value)| (name, Bson::Document(doc! { "$literal": value }))).collect()
}

/// The records whose names begin so and come after this one.
pub(crate) fn page(prefix: &str, after: Option<&str>) -> Document {
    // Only texts compare with a text, so a record with another kind of `_id` is none of ours.
    let mut range = doc! { "$gte": prefix };
    if let Some(after) = after {
        range.insert("$gt", after);
    }
    if let Some(end) = records::after_all_with(prefix) {
        range.insert("$lt", end);
    }
    doc! { "_id": range }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    serde_json::from_str(&lines.collect::<Vec<_>>().join("\n")).map_err(|error| {
        StoreError::refused(ErrorKind::Other, "a pipeline of this crate can't be read").caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pipelines_can_be_read() {
        let pipelines = Pipelines::read().unwrap();
        assert_eq!(pipelines.acquire.len(), 4);
        assert_eq!(pipelines.shown.get("owner"), Some(&Bson::Int32(1)));
        assert!(!format!("{pipelines:?}").contains("//"));
    }

    #[test]
    fn a_forced_release_never_matches_what_it_has_freed_itself() {
        let filter = Pipelines::read().unwrap().taken(&LockName::new("x").unwrap(), 7);
        assert_eq!(filter.get("released_by"), Some(&Bson::from(doc! { "$ne": 7_i64 })));
    }

    #[test]
    fn a_variable_is_never_an_expression() {
        let variables = literal(doc! { "holder": { "label": "$token" } });
        assert_eq!(variables, doc! { "holder": { "$literal": { "label": "$token" } } });
    }
}
