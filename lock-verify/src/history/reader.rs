//! Reading what several processes wrote, and putting it together.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use super::{
    calls::{History, Malformed},
    event::Event,
    kinds::Process,
};

/// Why files can't be read as a history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file can't be opened or read.
    #[error("{}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no event.
    #[error("{}:{line}: {told}", file.display())]
    Line {
        /// In which file.
        file: PathBuf,
        /// Which line; the first is 1.
        line: usize,
        /// What is wrong with it.
        told: String,
    },
}

/// A history that was read, and what of it was cut off.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// The events of all files.
    pub history: History,
    /// The files whose last line was cut off, as by a `kill -9` in the midst of writing; the rest of them is there.
    pub torn: Vec<PathBuf>,
}

/// Reads the files and merges them: by time, then by process, then by place.
///
/// A last line that was cut off (it has no line end, and is no event) is left out and told of; nothing else is forgiven.
///
/// # Errors
/// A file can't be read, a line is no event, or the events can't be a history: with file, line and what is wrong.
pub fn read<P: AsRef<Path>>(files: &[P]) -> Result<Recorded, ReadError> {
    let mut placed = Vec::new();
    let mut torn = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let whole = read_file(file.as_ref(), |line, event| placed.push(Placed { number, line, event }))?;
        if !whole {
            torn.push(file.as_ref().to_owned());
        }
    }
    placed.sort_by_key(|placed| placed.order());
    let places: Vec<(usize, usize)> = placed.iter().map(|placed| (placed.number, placed.line)).collect();
    let history = History::new(placed.into_iter().map(|placed| placed.event).collect());
    let history = history.map_err(|Malformed { at, told }| {
        let (number, line) = places[at];
        ReadError::Line { file: files[number].as_ref().to_owned(), line, told }
    })?;
    Ok(Recorded { history, torn })
}

struct Placed {
    number: usize,
    line: usize,
    event: Event,
}

impl Placed {
    fn order(&self) -> (lock_core::Moment, Process, usize, usize) {
        (self.event.time, self.event.process, self.number, self.line)
    }
}

/// Hands over each event with its line; `false` if the last line was cut off.
fn read_file(file: &Path, mut take: impl FnMut(usize, Event)) -> Result<bool, ReadError> {
    let unreadable = |source| ReadError::File { file: file.to_owned(), source };
    let mut from = BufReader::new(fs::File::open(file).map_err(unreadable)?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if from.read_until(b'\n', &mut bytes).map_err(unreadable)? == 0 {
            break;
        }
        match serde_json::from_slice(&bytes) {
            Ok(event) => take(line, event),
            Err(_) if bytes.last() != Some(&b'\n') => return Ok(false),
            Err(error) => {
                return Err(ReadError::Line { file: file.to_owned(), line, told: without_line(&error) });
            }
        }
    }
    Ok(true)
}

/// The error's text without the line number within the line, which is always 1.
fn without_line(error: &serde_json::Error) -> String {
    let told = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match told.strip_suffix(&place) {
        Some(told) => format!("{told} (column {})", error.column()),
        None => told,
    }
}
