//! The keys of objects.

use lock_core::Resource;

/// The key of a resource's object: its name, in which what a key can't have, or what some store would take for something
/// else, is percent-encoded. Different resources never meet.
pub(super) fn of_resource(resource: &Resource) -> String {
    let mut key = String::new();
    let mut rest = resource.as_str().chars().peekable();
    while let Some(c) = rest.next() {
        let ends = rest.peek().is_none_or(|next| *next == '/');
        let plain = match c {
            '%' | '\\' => false,
            // No part of a path is empty, and none is `.` or `..`; Azure lets none end in a dot.
            '/' => !key.is_empty() && !key.ends_with('/') && rest.peek().is_some(),
            '.' => !ends,
            c => !c.is_ascii_control(),
        };
        if plain {
            key.push(c);
        } else {
            key.push_str(&format!("%{:02X}", u32::from(c)));
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::path::Path;

    #[test]
    fn every_resource_has_a_key_of_its_own() {
        let names = [
            "a", "A", "a ", " a", "a/b", "a//b", "a%2Fb", "a/%2Fb", "/", "//", "///", "/a", "a/", "a//", ".", "..",
            "...", "./a", "../a", "a/.", "a/..", "a./b", "a\n", "\u{7f}", "a\\b", "%", "~", "*", "#", "é", "e\u{301}",
            ".a", "a.b",
        ];
        let mut keys: Vec<String> = names.map(|name| of_resource(&Resource::new(name).unwrap())).into();
        for key in &keys {
            assert_eq!(Path::parse(key).unwrap().as_ref(), key);
        }
        assert_eq!(of_resource(&Resource::new("reports/2026 11.csv").unwrap()), "reports/2026 11.csv");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), names.len());
    }
}
