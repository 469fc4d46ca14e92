//! What is written of somebody who holds a lock or waits for it: a letter, and JSON for people.

use std::time::Duration;

use lock_core::{Entropy, HolderInfo, OsEntropy};
use serde::{Deserialize, Serialize};

/// A value below it is that of somebody who holds or waits; the others are of locks that rest.
pub(crate) const LIVE: &[u8] = b"i";

/// The value of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Whether the lock is kept taken after its release (at-least-for).
    pub(crate) rests: bool,
    pub(crate) holder: HolderInfo,
    /// For how long it is kept at most, if nobody renews it.
    pub(crate) ttl: Duration,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    holder: HolderInfo,
    ttl_ms: u64,
    /// So that no two values are the same, and one can be deleted without meaning another.
    nonce: u64,
}

impl Entry {
    pub(crate) fn write(&self) -> Vec<u8> {
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let written = Written { holder: self.holder.clone().bounded(), ttl_ms, nonce: OsEntropy.next_u64() };
        let mut value = vec![if self.rests { b'r' } else { b'h' }];
        // Texts and numbers can't fail to be written.
        value.extend(serde_json::to_vec(&written).unwrap_or_default());
        value
    }

    /// What can't be read keeps its place all the same: nobody knows whose it is.
    pub(crate) fn read(value: &[u8]) -> Self {
        let rests = value >= LIVE;
        let written: Written = value.get(1..).and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
        Self { rests, holder: written.holder.bounded(), ttl: Duration::from_millis(written.ttl_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_what_it_wrote() {
        let holder = HolderInfo::this_process("label", 5);
        for rests in [true, false] {
            let entry = Entry { rests, holder: holder.clone(), ttl: Duration::from_millis(2500) };
            let value = entry.write();
            assert_eq!(Entry::read(&value), entry);
            assert_eq!(value.as_slice() >= LIVE, rests);
            assert_ne!(entry.write(), value);
        }
    }

    #[test]
    fn what_somebody_else_wrote_is_put_up_with() {
        for strange in [&b""[..], b"h", b"h{", b"h[1]", b"h{\"holder\":{\"host\":\"\\u0007x\"}}"] {
            let entry = Entry::read(strange);
            assert!(!entry.rests && !entry.holder.host.contains('\u{7}'), "{entry:?}");
        }
    }
}
