//! Which keys there are, and how names are kept apart in them.
//!
//! | key | what |
//! |---|---|
//! | `<prefix>l/<name>\0<owner>` | somebody who holds the lock or waits for it; the oldest one holds |
//! | `<prefix>w/<name>` | who was the last to queue |
//! | `<prefix>h/<name>` | the token that its holder gave back last, while somebody waits |
//! | `<prefix>t/<name>` | the last tick that was used up, and by whose grant; nothing here deletes it |
//! | `<prefix>f/<resource>` | the highest fence that the resource has seen; nothing here deletes it but `forget` |
//!
//! A name holds no NUL, so no name's entries are another's, and keys are in byte order of the names.

use lock_core::{ErrorKind, LockName, OwnerId, Resource, StoreError};

/// What all keys begin with if nothing else is said.
const DEFAULT: &str = "leasehold/";
const LONGEST: usize = 128;

/// Where the keys are.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: Option<String>) -> Result<Self, StoreError> {
        let prefix = prefix.unwrap_or_else(|| DEFAULT.to_owned());
        if prefix.is_empty() || prefix.len() > LONGEST || prefix.chars().any(char::is_control) {
            let message = format!("the prefix of the keys must be 1 to {LONGEST} bytes, without control characters");
            return Err(StoreError::refused(ErrorKind::InvalidConfig, message));
        }
        Ok(Self { prefix })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn entry(&self, name: &LockName, owner: OwnerId) -> Vec<u8> {
        format!("{}l/{}\0{owner}", self.prefix, name.as_str()).into_bytes()
    }

    /// All entries of a lock: from here, and up to there.
    pub(crate) fn queue(&self, name: &LockName) -> (Vec<u8>, Vec<u8>) {
        let own = format!("{}l/{}", self.prefix, name.as_str());
        (format!("{own}\0").into_bytes(), format!("{own}\u{1}").into_bytes())
    }

    pub(crate) fn last(&self, name: &LockName) -> Vec<u8> {
        format!("{}w/{}", self.prefix, name.as_str()).into_bytes()
    }

    pub(crate) fn mark(&self, name: &LockName) -> Vec<u8> {
        format!("{}h/{}", self.prefix, name.as_str()).into_bytes()
    }

    pub(crate) fn tick(&self, name: &LockName) -> Vec<u8> {
        format!("{}t/{}", self.prefix, name.as_str()).into_bytes()
    }

    pub(crate) fn fence(&self, resource: &Resource) -> Vec<u8> {
        format!("{}f/{}", self.prefix, resource.as_str()).into_bytes()
    }

    /// The entries of all locks whose names begin so and come after `after`.
    pub(crate) fn page(&self, beginning: &str, after: Option<&LockName>) -> (Vec<u8>, Vec<u8>) {
        let start = format!("{}l/{beginning}", self.prefix).into_bytes();
        let end = end_of(&start);
        // After the NUL of the last name; longer names that begin with it come behind.
        let next = after.map(|after| format!("{}l/{}\u{1}", self.prefix, after.as_str()).into_bytes());
        (next.filter(|next| *next > start).unwrap_or(start), end)
    }

    /// Whose entry of which lock a key is; `None` if it is none of ours.
    pub(crate) fn read(&self, key: &[u8]) -> Option<(LockName, OwnerId)> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.strip_prefix("l/")?;
        let (name, owner) = rest.split_once('\0')?;
        Some((LockName::new(name).ok()?, owner.parse().ok()?))
    }
}

/// The first key that doesn't begin so.
fn end_of(start: &[u8]) -> Vec<u8> {
    let mut end = start.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> LockName {
        LockName::new(name).unwrap()
    }

    #[test]
    fn no_name_holds_anothers_entries() {
        let keys = Keys::new(None).unwrap();
        let owner = OwnerId::from_u128(7);
        let names = ["a", "a/", "a\u{1}", "ab", "a%", "A", "🔒"].map(name);
        for one in &names {
            let (start, end) = keys.queue(one);
            for other in &names {
                let key = keys.entry(other, owner);
                assert_eq!(key >= start && key < end, one == other, "{one:?} {other:?}");
                assert_eq!(keys.read(&key), Some((other.clone(), owner)));
            }
        }
        assert_eq!(keys.read(b"leasehold/l/x"), None);
        assert_eq!(keys.read(b"leasehold/t/x"), None);
    }

    #[test]
    fn no_resource_meets_a_lock() {
        let keys = Keys::new(None).unwrap();
        let names = ["a", "a/", "l/a", "f/a", "w/a", "../l/a", "a\u{1}"];
        let lock = name("a");
        for resource in names {
            let fence = keys.fence(&Resource::new(resource).unwrap());
            let (start, end) = keys.queue(&lock);
            assert!(!(fence >= start && fence < end), "{resource:?}");
            for name in names.map(name) {
                assert!(![keys.last(&name), keys.mark(&name), keys.tick(&name)].contains(&fence), "{resource:?}");
            }
            assert_eq!(keys.read(&fence), None);
        }
    }

    #[test]
    fn pages_go_in_byte_order_of_the_names() {
        let keys = Keys::new(Some("p:".to_owned())).unwrap();
        let owner = OwnerId::from_u128(7);
        let mut names = ["a", "a\u{1}", "aa", "b", "ä"].map(name);
        names.sort();
        for (at, after) in names.iter().enumerate() {
            let (start, end) = keys.page("", Some(after));
            for (other_at, other) in names.iter().enumerate() {
                let key = keys.entry(other, owner);
                assert_eq!(key >= start && key < end, other_at > at, "{other:?} after {after:?}");
            }
        }
        let (start, end) = keys.page("a", None);
        let found: Vec<_> = names.iter().filter(|name| (&start..&end).contains(&&keys.entry(name, owner))).collect();
        assert_eq!(found, [&names[0], &names[1], &names[2]]);
    }

    #[test]
    fn bad_prefixes_are_refused() {
        for bad in ["", "a\0b", "a\nb", &"p".repeat(129)] {
            assert_eq!(Keys::new(Some(bad.to_owned())).unwrap_err().kind(), ErrorKind::InvalidConfig);
        }
    }
}
