//! The first line of a fenced object.

use std::fmt;

use bytes::Bytes;
use lock_core::{Entropy, Fence, OsEntropy};

const BEGINNING: &str = "leasehold-fence ";

/// How many writes an object remembers.
pub(super) const REMEMBERED: usize = 16;

/// The longest line: a fence has 1,556 bytes at most.
const LONGEST: usize = 4096;

/// What tells one write from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u128);

impl Mark {
    pub(super) fn random() -> Self {
        Self(u128::from(OsEntropy.next_u64()) << 64 | u128::from(OsEntropy.next_u64()))
    }
}

/// What an object has seen, and the last writes it was made by, the last one first. As text
/// `leasehold-fence 1 TOKEN@LOCK MARK,MARK\n`, with `-` for a fence that was forgotten.
///
/// An object that has no such line is another's: it has seen nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) fence: Option<Fence>,
    pub(super) marks: Vec<Mark>,
}

impl Line {
    /// The line of the write that makes the next state of this one.
    pub(super) fn next(&self, fence: Option<Fence>, mark: Mark) -> Self {
        let marks = std::iter::once(mark).chain(self.marks.iter().copied()).take(REMEMBERED).collect();
        Self { fence, marks }
    }

    /// The object that has this line and this content.
    pub(super) fn before(&self, content: &[u8]) -> Bytes {
        [self.to_string().as_bytes(), content].concat().into()
    }

    /// An object's line and its content; `None` if it begins as a line does, and isn't one.
    pub(super) fn split(object: &Bytes) -> Option<(Self, Bytes)> {
        if !object.starts_with(BEGINNING.as_bytes()) {
            return Some((Self::default(), object.clone()));
        }
        let end = 1 + object.iter().take(LONGEST).position(|byte| *byte == b'\n')?;
        let text = std::str::from_utf8(&object[..end]).ok()?;
        Some((Self::parse(text)?, object.slice(end..)))
    }

    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(BEGINNING)?.strip_prefix("1 ")?.strip_suffix('\n')?;
        let (fence, marks) = rest.split_once(' ')?;
        let fence = if fence == "-" { None } else { Some(fence.parse().ok()?) };
        let marks: Option<Vec<Mark>> =
            marks.split(',').map(|mark| u128::from_str_radix(mark, 16).ok().map(Mark)).collect();
        let line = Self { fence, marks: marks? };
        // One spelling only.
        (line.marks.len() <= REMEMBERED && line.to_string() == text).then_some(line)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BEGINNING}1 ")?;
        match &self.fence {
            Some(fence) => write!(f, "{fence} ")?,
            None => f.write_str("- ")?,
        }
        for (at, Mark(mark)) in self.marks.iter().enumerate() {
            write!(f, "{}{mark:032x}", if at == 0 { "" } else { "," })?;
        }
        f.write_str("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::{FencingToken, LockName};

    #[test]
    fn what_is_written_is_read_whatever_the_content() {
        let lock = LockName::new("é".repeat(256)).unwrap();
        for fence in [None, Some(Fence::new(lock, FencingToken::MAX).unwrap())] {
            let mut line = Line::default();
            for _ in 0..REMEMBERED + 3 {
                line = line.next(fence.clone(), Mark::random());
                for content in ["", "\n", "a\nb", "leasehold-fence 1 5@x 0\n"] {
                    let object = line.before(content.as_bytes());
                    assert_eq!(Line::split(&object).unwrap(), (line.clone(), Bytes::from(content)));
                }
            }
            assert_eq!(line.marks.len(), REMEMBERED);
        }
    }

    #[test]
    fn what_only_begins_like_a_line_is_refused() {
        let mark = "0123456789abcdef0123456789abcdef";
        let good = format!("leasehold-fence 1 5@x {mark}\n");
        assert!(Line::split(&Bytes::from(good.clone())).is_some());
        let many = vec![mark; REMEMBERED + 1].join(",");
        let torn = (BEGINNING.len()..good.len()).map(|end| good[..end].to_owned());
        let bad = [
            format!("leasehold-fence 2 5@x {mark}\n"),
            format!("leasehold-fence 1 -5@x {mark}\n"),
            format!("leasehold-fence 1 05@x {mark}\n"),
            format!("leasehold-fence 1  5@x {mark}\n"),
            format!("leasehold-fence 1 5@x {mark},\n"),
            format!("leasehold-fence 1 5@x {}\n", mark.to_uppercase()),
            format!("leasehold-fence 1 5@x +{}\n", &mark[1..]),
            format!("leasehold-fence 1 5@x {many}\n"),
            format!("leasehold-fence 1 5@x {mark}\r\n"),
            "leasehold-fence 1 5@x \n".to_owned(),
        ];
        for object in bad.into_iter().chain(torn) {
            assert_eq!(Line::split(&Bytes::from(object.clone())), None, "{object:?}");
        }
    }
}
