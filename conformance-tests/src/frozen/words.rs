//! What a writer appends, and what it says about it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What is appended: who wrote it, under which token, and its how manieth it was.
///
/// As text `TOKEN-WRITER-NUMBER`, and in one spelling only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Entry {
    pub(super) token: u64,
    pub(super) writer: usize,
    pub(super) number: u64,
}

/// A writer's line. Moments are nanoseconds on the clock since boot, which all processes of a host share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// It is connected.
    Ready,
    /// It was granted the lock under this token, and learned so at this moment.
    Holds(u64, u64),
    /// It is about to append.
    Tries(Entry, u64),
    /// It was told that the entry is there.
    Acked(Entry, u64),
    /// The check said no.
    Refused(Entry, u64),
    /// The store failed, and says that the entry isn't there.
    NotDone(Entry, u64, String),
    /// The store failed, and the entry may be there or not.
    InDoubt(Entry, u64, String),
    /// It is about to give the lock back, or knows that it has lost it.
    Ends(u64),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.token, self.writer, self.number)
    }
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '-').map(str::parse::<u64>);
        let mut part = || parts.next()?.ok();
        let entry: Option<(u64, u64, u64)> = (|| Some((part()?, part()?, part()?)))();
        let entry = entry
            .and_then(|(token, writer, number)| Some(Self { token, writer: usize::try_from(writer).ok()?, number }));
        entry.filter(|entry| entry.to_string() == text).ok_or_else(|| format!("not an entry: {text:?}"))
    }
}

impl From<Entry> for String {
    fn from(entry: Entry) -> Self {
        entry.to_string()
    }
}

impl TryFrom<String> for Entry {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
