//! What the conformance suite wrote down: one JSON line per property and store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// How a property fared on a store. Ordered from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Passed,
    Ignored,
    Failed,
}

/// One line of a result file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Line {
    pub(crate) property: String,
    pub(crate) store: String,
    pub(crate) outcome: Outcome,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    #[serde(default)]
    pub(crate) seconds: f64,
}

/// The results of one run, by property and store.
#[derive(Debug, Default)]
pub(crate) struct Results {
    cells: BTreeMap<(String, String), Line>,
    /// Lines that say nothing readable: a test program that died while writing, say.
    pub(crate) unreadable: Vec<String>,
}

impl Results {
    /// Reads every `*.jsonl` of a directory. One that isn't there holds no results.
    pub(crate) fn read(directory: &Path) -> Result<Self, String> {
        let mut results = Self::default();
        let Ok(entries) = fs::read_dir(directory) else {
            return Ok(results);
        };
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                let text =
                    fs::read_to_string(&path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
                results.add(&path.display().to_string(), &text);
            }
        }
        Ok(results)
    }

    /// Adds the lines of one file.
    pub(crate) fn add(&mut self, file: &str, text: &str) {
        for (number, text) in text.lines().enumerate() {
            match serde_json::from_str::<Line>(text) {
                Ok(line) => self.add_line(line),
                Err(error) if !text.trim().is_empty() => {
                    self.unreadable.push(format!("{file}:{}: {error}", number + 1))
                }
                Err(_) => {}
            }
        }
    }

    /// Of several runs of a property the worst counts: a rerun must not hide a failure.
    fn add_line(&mut self, line: Line) {
        let key = (line.property.clone(), line.store.clone());
        match self.cells.get(&key) {
            Some(earlier) if earlier.outcome > line.outcome => {}
            _ => {
                self.cells.insert(key, line);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    pub(crate) fn properties(&self) -> BTreeSet<&str> {
        self.cells.keys().map(|(property, _)| property.as_str()).collect()
    }

    /// The stores, those of the project in its own order, then others.
    pub(crate) fn stores(&self) -> Vec<&str> {
        const ORDER: &[&str] =
            &["memory", "sqlite", "postgres", "pgbouncer", "redis", "redlock", "mongo", "mongo-standalone"];
        let found: BTreeSet<&str> = self.cells.keys().map(|(_, store)| store.as_str()).collect();
        let place = |store: &str| ORDER.iter().position(|known| *known == store);
        let mut stores: Vec<&str> = found.into_iter().collect();
        stores.sort_by_key(|store| place(store).unwrap_or(ORDER.len()));
        stores
    }

    pub(crate) fn get(&self, property: &str, store: &str) -> Option<&Line> {
        self.cells.get(&(property.to_owned(), store.to_owned()))
    }

    pub(crate) fn of_store<'a>(&'a self, store: &'a str) -> impl Iterator<Item = &'a Line> {
        self.cells.values().filter(move |line| line.store == store)
    }

    pub(crate) fn any_failed(&self) -> bool {
        self.cells.values().any(|line| line.outcome == Outcome::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(text: &str) -> Results {
        let mut results = Results::default();
        results.add("sample.jsonl", text);
        results
    }

    #[test]
    fn a_failure_outweighs_a_later_pass() {
        let results = results(
            r#"{"property":"a::b","store":"memory","outcome":"failed","reason":"no","seconds":1.5}
               {"property":"a::b","store":"memory","outcome":"passed"}"#,
        );
        let line = results.get("a::b", "memory").unwrap();
        assert_eq!(line.outcome, Outcome::Failed);
        assert!(results.any_failed());
    }

    #[test]
    fn a_broken_line_is_told_with_its_place() {
        let results = results("\n{\"property\":\"a::b\",\"sto");
        assert_eq!(results.unreadable.len(), 1);
        assert!(results.unreadable[0].starts_with("sample.jsonl:2: "));
    }

    #[test]
    fn stores_come_in_the_order_of_the_project() {
        let text = ["zzz", "postgres", "memory", "sqlite"]
            .map(|store| format!("{{\"property\":\"a\",\"store\":\"{store}\",\"outcome\":\"passed\"}}\n"));
        let results = results(&text.concat());
        assert_eq!(results.stores(), ["memory", "sqlite", "postgres", "zzz"]);
    }

    #[test]
    fn a_directory_that_is_not_there_holds_nothing() {
        let results = Results::read(Path::new("/nowhere/at/all")).unwrap();
        assert!(results.is_empty());
    }
}
