//! The results as lines of JSON, for who makes tables of them.

use std::{fs::OpenOptions, io::Write, path::PathBuf};

use serde::Serialize;

/// Names the folder into which each run appends, to one file per store.
const FOLDER: &str = "LEASEHOLD_CONFORMANCE_RESULTS";

/// What became of one property.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    pub(crate) property: &'a str,
    pub(crate) store: &'a str,
    pub(crate) outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
    pub(crate) seconds: f64,
}

/// Appends the line, if anybody wants it; says why on stderr if it can't.
pub(crate) fn note(line: &Line<'_>) {
    let Some(folder) = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).map(PathBuf::from) else { return };
    let written = std::fs::create_dir_all(&folder).and_then(|()| {
        let path = folder.join(line.store).with_extension("jsonl");
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        // One write per line: other processes append to the same file.
        OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
    });
    if let Err(error) = written {
        eprintln!("the result of {} was not kept in {}: {error}", line.property, folder.display());
    }
}
