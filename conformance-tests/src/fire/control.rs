//! The negative control: a set that takes whatever comes, written by holders that are frozen.

use std::{fs, io, path::Path};

use lock_core::FencingToken;
use lock_verify::history::Entry;

/// The set that nothing fences, and its lock.
pub(super) const SET: &str = "unfenced";
/// The file that is the set.
pub(super) const FILE: &str = "unfenced.txt";
/// What the files of its history are called.
pub(super) const HISTORY: &str = "control";

/// What is in the set, in its order. Nothing if nobody has written yet.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    match fs::read_to_string(folder.join(FILE)) {
        Ok(text) => text.lines().map(parse).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// How often a token falls from one entry to the next.
pub(super) fn falls(entries: &[Entry]) -> usize {
    entries.windows(2).filter(|pair| pair[1].0 < pair[0].0).count()
}

/// An entry as lists have it: `TOKEN-VALUE`.
pub(super) fn parse(text: &str) -> io::Result<Entry> {
    let parts = text
        .split_once('-')
        .and_then(|(token, value)| Some(Entry(FencingToken::new(token.parse().ok()?), value.parse().ok()?)));
    parts.ok_or_else(|| io::Error::other(format!("an entry that nobody wrote: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_are_counted() {
        let entries: Vec<_> = ["3-1", "3-2", "2-3", "4-4"].into_iter().map(|text| parse(text).unwrap()).collect();
        assert_eq!(falls(&entries), 1);
        assert!(parse("3").is_err() && parse("x-1").is_err());
    }
}
