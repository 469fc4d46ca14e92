//! The keys of objects.

use lock_core::Resource;

/// The key of a resource's object: its name, in which what a key can't have, or what some store would take for something
/// else, is `%` and one letter or digit. Different resources never meet, and none has a key of more than 1,024 bytes, which
/// is the most that S3 takes: a name has 512 at most.
pub(super) fn of_resource(resource: &Resource) -> String {
    let mut key = String::new();
    let mut rest = resource.as_str().chars().peekable();
    while let Some(c) = rest.next() {
        let ends = rest.peek().is_none_or(|next| *next == '/');
        let plain = match c {
            // No part of a path is empty, and none is `.` or `..`; Azure lets none end in a dot.
            '/' => !key.is_empty() && !key.ends_with('/') && rest.peek().is_some(),
            '.' => !ends,
            _ => false,
        };
        match letter(c).filter(|_| !plain) {
            Some(letter) => key.extend(['%', letter]),
            None => key.push(c),
        }
    }
    key
}

/// What stands for a character that isn't to be in a key, or not everywhere.
fn letter(c: char) -> Option<char> {
    Some(match c {
        '%' => 'p',
        '\\' => 'b',
        '/' => 's',
        '.' => 'd',
        '\u{7f}' => 'x',
        // As a terminal has them: ^A to ^Z, and the last five.
        '\u{1}'..='\u{1a}' => char::from(b'A' + (c as u8 - 1)),
        '\u{1b}'..='\u{1f}' => char::from(b'0' + (c as u8 - 0x1b)),
        _ => return None,
    })
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
        for (name, key) in [("reports/2026 11.csv", "reports/2026 11.csv"), ("a/../%", "a/.%d/%p"), ("a\n/", "a%J%s")] {
            assert_eq!(of_resource(&Resource::new(name).unwrap()), key);
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), names.len());
    }

    #[test]
    fn every_character_has_a_letter_of_its_own_and_no_key_is_too_long() {
        let special: Vec<char> = (1..128_u8).map(char::from).filter(|c| letter(*c).is_some()).collect();
        let mut letters: Vec<char> = special.iter().filter_map(|c| letter(*c)).collect();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!((letters.len(), special.len()), (36, 36));
        assert!(letters.iter().all(char::is_ascii_alphanumeric), "{letters:?}");
        for c in special {
            let longest = Resource::new(c.to_string().repeat(Resource::MAX_BYTES)).unwrap();
            assert!(of_resource(&longest).len() <= 1024, "{c:?}");
        }
    }
}
