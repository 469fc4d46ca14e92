//! An object as it is kept: a line with what it has seen, and then its content.
//!
//! Beside the content, as metadata, the fence would be no part of what a bucket's condition is judged by: the `ETag` of S3 is
//! made of the content alone, so that after a raise a late write would still find the object unchanged. A mark in the line,
//! another one in each write, makes each state of an object one of its own.

use bytes::Bytes;
use lock_core::{ErrorKind, Fence, StoreError};

use super::{conditional::Found, placed};

/// How each line begins.
const BEGINS: &str = "leasehold-fence ";

/// Stands for a fence that there is none.
const NONE: &str = "-";

/// An object that was found.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// What it has seen; or what is wrong with that.
    pub(super) seen: Seen,
    pub(super) trail: Trail,
    pub(super) content: Bytes,
}

#[derive(Debug)]
pub(super) struct Seen(Result<Option<Fence>, StoreError>);

impl Default for Seen {
    fn default() -> Self {
        Self(Ok(None))
    }
}

impl Seen {
    pub(super) fn get(self) -> Result<Option<Fence>, StoreError> {
        self.0
    }
}

impl Opened {
    /// An object without the line was written by somebody who had no fence, and has seen none.
    pub(super) fn of(found: &Found) -> Self {
        let bytes = &found.bytes;
        if !bytes.starts_with(BEGINS.as_bytes()) {
            return Self { content: bytes.clone(), ..Self::default() };
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let line = String::from_utf8_lossy(bytes.get(BEGINS.len()..end).unwrap_or_default());
        let (fence, trail) = line.split_once(' ').unwrap_or((&line, ""));
        let seen = match fence {
            NONE => Ok(None),
            text => text.parse().map(Some).map_err(|error| {
                placed(StoreError::refused(ErrorKind::Corrupt, format!("the object's first line is damaged: {error}")))
            }),
        };
        let content = if end < bytes.len() { bytes.slice(end + 1..) } else { Bytes::new() };
        Self { seen: Seen(seen), trail: Trail(trail.to_owned()), content }
    }
}

/// An object to be kept.
pub(super) fn sealed(fence: Option<&Fence>, trail: &Trail, content: &[u8]) -> Bytes {
    let fence = fence.map_or_else(|| NONE.to_owned(), Fence::to_string);
    [format!("{BEGINS}{fence} {}\n", trail.0).as_bytes(), content].concat().into()
}

/// The marks of the last writes, the latest one first, each of [`DIGITS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Trail(String);

/// How many marks are kept.
const KEPT: usize = 32;

/// How long a mark is.
const DIGITS: usize = 16;

impl Trail {
    /// With the mark of one more write.
    pub(super) fn and(&self, mark: u64) -> Self {
        let mut marks = format!("{mark:016x}{}", self.0);
        marks.truncate(KEPT * DIGITS);
        Self(marks)
    }

    /// Whether a write was done that found `before`, as far as that can be told by now.
    pub(super) fn tells_of(&self, mark: u64, before: &Self) -> Option<bool> {
        if self.marks().any(|kept| kept == format!("{mark:016x}").as_bytes()) {
            return Some(true);
        }
        // All that came after `before` is here if its own latest is, or if what began after it has lost none yet.
        let all = match before.marks().next() {
            Some(latest) => self.marks().any(|kept| kept == latest),
            None => self.marks().count() < KEPT,
        };
        all.then_some(false)
    }

    fn marks(&self) -> impl Iterator<Item = &[u8]> {
        self.0.as_bytes().chunks(DIGITS)
    }
}
