//! Names in the server's words: the key of a lock's record, and the channel on which releases are published.

use lock_core::{ErrorKind, LockName, Resource, StoreError};

/// The prefix of all keys, and the database they are in.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    database: i64,
}

impl Keys {
    const LONGEST_PREFIX: usize = 128;

    /// # Errors
    /// [`ErrorKind::InvalidConfig`]: keys of two prefixes must never meet, so the first brace ends the prefix.
    pub(crate) fn new(prefix: &str) -> Result<Self, StoreError> {
        let unfit = |c: char| c.is_control() || matches!(c, '{' | '}');
        if prefix.is_empty() || prefix.len() > Self::LONGEST_PREFIX || prefix.contains(unfit) {
            let message = "the prefix must have 1 to 128 bytes, no braces and no control characters";
            return Err(StoreError::refused(ErrorKind::InvalidConfig, message));
        }
        Ok(Self { prefix: prefix.to_owned(), database: 0 })
    }

    /// Pub/sub knows no databases, so the channel names it.
    pub(crate) fn in_database(self, database: i64) -> Self {
        Self { database, ..self }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `leasehold:{name}`. What stands in the first pair of braces decides a key's slot in a cluster.
    pub(crate) fn record(&self, name: &LockName) -> Vec<u8> {
        format!("{}{{{}}}", self.prefix, name.as_str()).into_bytes()
    }

    /// Of no lock: a name is never empty.
    pub(crate) fn nobodys_record(&self) -> Vec<u8> {
        format!("{}{{}}", self.prefix).into_bytes()
    }

    /// `leasehold:{resource}:fence`. No record of a lock ends so.
    pub(crate) fn register(&self, resource: &Resource) -> Vec<u8> {
        format!("{}{}:fence", self.prefix, resource_tag(resource)).into_bytes()
    }

    /// Of no resource: a name is never empty.
    pub(crate) fn nobodys_register(&self) -> Vec<u8> {
        format!("{}{{}}:fence", self.prefix).into_bytes()
    }

    /// The lock whose record this is the key of; `None` if it is something else's.
    pub(crate) fn name(&self, key: &[u8]) -> Option<LockName> {
        let inner = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.strip_prefix('{')?.strip_suffix('}')?;
        LockName::new(inner).ok()
    }

    /// `leasehold:released/0`
    pub(crate) fn channel(&self) -> String {
        format!("{}released/{}", self.prefix, self.database)
    }

    /// What the keys of all names look like that begin so: a glob, in which the name's own signs stand for themselves.
    pub(crate) fn pattern(&self, beginning: &str) -> String {
        let mut pattern = String::new();
        for c in self.prefix.chars().chain(['{']).chain(beginning.chars()) {
            if matches!(c, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern + "*}"
    }
}

/// `{accounts}`: what brings a key into the slot of this resource's register, in a cluster. A brace would end it early.
pub(crate) fn resource_tag(resource: &Resource) -> String {
    format!("{{{}}}", resource.as_str().replace('%', "%25").replace('}', "%7D"))
}

/// `{invoice-42}`: the same for the record of a lock, whose first closing brace ends the tag. If that is at once, there
/// is none, and the whole key decides.
pub(crate) fn lock_tag(name: &LockName) -> Option<String> {
    let tag = name.as_str().split('}').next().filter(|tag| !tag.is_empty())?;
    Some(format!("{{{tag}}}"))
}

/// The mark of one call, in the slot of what it is judged by.
pub(crate) fn mark(judged_by: &[u8], call: &str) -> Vec<u8> {
    [judged_by, b":call:", call.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_name_belong_together() {
        let keys = Keys::new("leasehold:").unwrap();
        for name in ["x", "{tag}", "}", "{", "a}b", "{}", "*", "🔒", "a\\b"] {
            let name = LockName::new(name).unwrap();
            assert_eq!(keys.name(&keys.record(&name)), Some(name));
        }
        for other in ["leasehold:x", "leasehold:{}", "other:{x}", "leasehold:{x", "leasehold:{x}y"] {
            assert_eq!(keys.name(other.as_bytes()), None, "{other}");
        }
        assert_eq!(keys.nobodys_record(), b"leasehold:{}");
    }

    #[test]
    fn different_resources_and_locks_never_meet_and_tags_lead_to_their_slots() {
        let keys = Keys::new("leasehold:").unwrap();
        let names = ["x", "{tag}", "}", "{", "a}b", "a%7Db", "a%257Db", "{}", "%", "a}b}:fence", "}:fence{", "🔒"];
        let mut all = std::collections::HashSet::new();
        for name in names {
            let (resource, lock) = (Resource::new(name).unwrap(), LockName::new(name).unwrap());
            let (register, record) = (keys.register(&resource), keys.record(&lock));
            let slot = redis::cluster_routing::Slot::for_key(&register);
            assert_eq!(
                slot,
                redis::cluster_routing::Slot::for_key(format!("{}:data", resource_tag(&resource))),
                "{name}"
            );
            assert_eq!(slot, redis::cluster_routing::Slot::for_key(mark(&register, "0f")), "{name}");
            if let Some(tag) = lock_tag(&lock) {
                let slot = redis::cluster_routing::Slot::for_key(&record);
                assert_eq!(slot, redis::cluster_routing::Slot::for_key(format!("{tag}:data")), "{name}");
                assert_eq!(slot, redis::cluster_routing::Slot::for_key(mark(&record, "0f")), "{name}");
            } else {
                assert!(name.starts_with('}'), "{name}");
                let slot = redis::cluster_routing::Slot::for_key(&record);
                assert_ne!(slot, redis::cluster_routing::Slot::for_key(mark(&record, "0f")), "refused, as it must be");
            }
            assert_eq!(keys.name(&register), None);
            all.extend([register, record]);
        }
        assert_eq!(all.len(), 2 * names.len());
    }

    #[test]
    fn a_prefix_never_holds_a_brace() {
        for bad in ["", "a{", "a}", "a\n", &"x".repeat(129)] {
            assert_eq!(Keys::new(bad).unwrap_err().kind(), ErrorKind::InvalidConfig, "{bad:?}");
        }
    }

    #[test]
    fn signs_of_a_pattern_stand_for_themselves() {
        let keys = Keys::new("a*b:").unwrap().in_database(3);
        assert_eq!(keys.pattern("x[?]"), "a\\*b:{x\\[\\?\\]*}");
        assert_eq!(keys.channel(), "a*b:released/3");
    }
}
