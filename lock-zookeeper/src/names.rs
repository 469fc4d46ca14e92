//! Where things are in ZooKeeper's tree, and what a lock is called there.

use std::fmt::Write;

use lock_core::{LockName, Resource};

/// The paths under which everything is kept.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    base: String,
}

impl Paths {
    /// `base` begins with a slash and doesn't end with one.
    pub(crate) fn new(base: String) -> Self {
        Self { base }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The parent of the locks' nodes.
    pub(crate) fn locks(&self) -> String {
        format!("{}/locks", self.base)
    }

    /// The parent of what each session writes its heartbeat to.
    pub(crate) fn sessions(&self) -> String {
        format!("{}/sessions", self.base)
    }

    /// The parent of the last ticks that were used up. They outlive the locks' own nodes, which vanish when nobody uses them.
    pub(crate) fn ticks(&self) -> String {
        format!("{}/ticks", self.base)
    }

    /// The parent of what resources are fenced by.
    pub(crate) fn fences(&self) -> String {
        format!("{}/fences", self.base)
    }

    pub(crate) fn lock(&self, name: &LockName) -> String {
        format!("{}/locks/{}", self.base, encoded(name.as_str()))
    }

    pub(crate) fn tick(&self, name: &LockName) -> String {
        format!("{}/ticks/{}", self.base, encoded(name.as_str()))
    }

    pub(crate) fn fence(&self, resource: &Resource) -> String {
        format!("{}/fences/{}", self.base, encoded(resource.as_str()))
    }
}

/// A lock's name, or another text, as the name of a node.
///
/// What a node's name can't hold is escaped byte by byte as in URLs: the slash, control characters, `.` and `..` by
/// themselves, and what Java's `PathUtils.validatePath` refuses, all characters beyond the first 65,536 among it. The per
/// cent sign is too, so that it can be read back and no two names meet.
pub(crate) fn encoded(name: &str) -> String {
    let mut node = String::with_capacity(name.len());
    let dots = matches!(name, "." | "..");
    for c in name.chars() {
        if dots || !is_plain(c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing to a string doesn't fail.
                let _ = write!(node, "%{byte:02X}");
            }
        } else {
            node.push(c);
        }
    }
    node
}

fn is_plain(c: char) -> bool {
    let refused = matches!(u32::from(c), 0xd800..=0xf8ff | 0xfff0..);
    !(refused || c.is_control() || matches!(c, '%' | '/'))
}

/// The lock of a node; `None` for what isn't the node of any lock.
pub(crate) fn decoded(node: &str) -> Option<LockName> {
    LockName::new(read_back(node)?).ok()
}

/// The text that was encoded; `None` for what was not.
pub(crate) fn read_back(node: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(node.len());
    let mut rest = node.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    // Only what we write ourselves: else two nodes could be one lock's.
    (encoded(&text) == node).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_and_stays_apart() {
        for (name, node) in [
            ("invoice-42", "invoice-42"),
            ("a/b", "a%2Fb"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("...", "..."),
            ("%2F", "%252F"),
            ("a\nb\u{85}", "a%0Ab%C2%85"),
            ("\u{1f512}", "%F0%9F%94%92"),
            ("\u{e000}\u{fffd}", "%EE%80%80%EF%BF%BD"),
            ("\u{e4}B b", "\u{e4}B b"),
        ] {
            let lock = LockName::new(name).unwrap();
            assert_eq!(encoded(name), node);
            assert_eq!(decoded(node), Some(lock));
        }
        for stranger in ["", "%", "%4", "%zz", "%+1", "%41", "%2f", "%FF", "a/b"] {
            assert_eq!(decoded(stranger), None, "{stranger}");
        }
    }
}
