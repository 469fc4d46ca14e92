//! Owners, and who stands behind them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    entropy::Entropy,
    error::{ErrorKind, StoreError},
};

/// A fresh random 128-bit id per acquire *call*.
///
/// Not per process: a retry of the same call is recognised as such, two holders in one process
/// exclude each other, and a late release of one hold can't hurt the next (the fault of locks whose
/// owner is the host's name). It is written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(u128);

impl OwnerId {
    /// Draws an id.
    #[must_use]
    pub fn random(entropy: &dyn Entropy) -> Self {
        Self(u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64()))
    }

    /// The id with this value; for stores that keep ids as bytes.
    #[must_use]
    pub const fn from_u128(value: u128) -> Self {
        Self(value)
    }

    /// The id's value.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for OwnerId {
    type Err = StoreError;

    /// Reads the 32 hex digits that `Display` writes, and nothing else.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self).ok_or_else(|| {
            StoreError::refused(
                ErrorKind::Corrupt,
                format!("an owner id is 32 hex digits, not {} bytes of something else", text.len()),
            )
        })
    }
}

/// Who holds a lock, for people: it decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HolderInfo {
    /// The host's name.
    pub host: String,
    /// The process id on that host.
    pub pid: u32,
    /// What the application calls this use of the lock; empty if it has no word for it.
    pub label: String,
    /// When the holder asked, by the holder's own wall clock, in microseconds since the Unix epoch.
    pub since_micros: u64,
}

impl HolderInfo {
    /// The longest host name or label kept, in bytes; longer ones are cut at a character.
    pub const MAX_TEXT_BYTES: usize = 255;

    /// This process, asked at `since_micros`.
    #[must_use]
    pub fn this_process(label: &str, since_micros: u64) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { host: cut(&host), pid: std::process::id(), label: cut(label), since_micros }
    }

    /// The same, made safe to keep: what a store returns or an application hands in is not trusted.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self { host: cut(&self.host), label: cut(&self.label), ..self }
    }
}

impl fmt::Display for HolderInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, if self.host.is_empty() { "an unnamed host" } else { &self.host })?;
        if !self.label.is_empty() {
            write!(f, " ({})", self.label)?;
        }
        Ok(())
    }
}

/// Cuts at [`HolderInfo::MAX_TEXT_BYTES`] and drops control characters, which no store and no terminal wants.
fn cut(text: &str) -> String {
    let mut kept = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > HolderInfo::MAX_TEXT_BYTES {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn an_owner_reads_back_what_it_wrote() {
        let owner = OwnerId::random(&SeededEntropy::new(7));
        assert_eq!(owner.to_string().parse::<OwnerId>().unwrap(), owner);
        for bad in ["", "12", "+0000000000000000000000000000000", &"g".repeat(32), &"0".repeat(33)] {
            assert!(bad.parse::<OwnerId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn holder_texts_are_cut_at_a_character() {
        let info = HolderInfo { label: "é".repeat(200) + "\n", ..HolderInfo::default() }.bounded();
        assert_eq!(info.label, "é".repeat(127));
    }
}
