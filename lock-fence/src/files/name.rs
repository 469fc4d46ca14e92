//! Names of files: those of the data, and those that resources have in the register.

use std::path::PathBuf;

use lock_core::{ErrorKind, Resource, StoreError};

/// The directory, within the one that is fenced, that has the register.
pub(crate) const REGISTER: &str = ".leasehold-fences";

/// The longest part of a path that is made here; file systems take 255 bytes.
const PART: usize = 200;

/// A plain name of a file in the directory that is fenced.
///
/// # Errors
/// [`ErrorKind::InvalidName`] for anything that leads elsewhere, or to the register.
pub(crate) fn checked(file: &str) -> Result<&str, StoreError> {
    let leads_elsewhere = file.is_empty() || matches!(file, "." | "..") || file.contains(['/', '\\', '\0']);
    // Also where the file system makes no difference between cases.
    if leads_elsewhere || file.eq_ignore_ascii_case(REGISTER) {
        let what = format!("{file:?} is not the plain name of a file in this directory; name one without a path");
        return Err(StoreError::refused(ErrorKind::InvalidName, what));
    }
    Ok(file)
}

/// Where a resource's fence is kept, within the register. Different resources never meet, case included, wherever the file
/// system tells no cases apart; and `lock` and `next` are no resource's.
pub(crate) fn of_resource(resource: &Resource) -> PathBuf {
    let mut text = String::new();
    for byte in resource.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(byte)),
            other => text.push_str(&format!("%{other:02x}")),
        }
    }
    let mut path = PathBuf::new();
    let mut rest = text.as_str();
    while rest.len() > PART {
        let (part, after) = rest.split_at(PART);
        // A sign that no name has: a directory is never in a file's place.
        path.push(format!("{part}+"));
        rest = after;
    }
    path.push(format!("{rest}.fence"));
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn different_resources_never_meet() {
        let long = ["x".repeat(200), "x".repeat(201), "X".repeat(512), "x".repeat(512), "é".repeat(256)];
        let names =
            ["a", "A", "a ", "a.fence", ".", "..", "/", "a/b", "a%2fb", "%", "+", "lock", "next", "é", "e\u{301}"];
        let names = names.into_iter().chain(long.iter().map(String::as_str));
        let paths: Vec<_> = names.map(|name| of_resource(&Resource::new(name).unwrap())).collect();
        let told_apart: HashSet<_> = paths.iter().map(|path| path.to_str().unwrap().to_lowercase()).collect();
        assert_eq!(told_apart.len(), paths.len(), "{paths:?}");
        for path in &paths {
            assert!(path.components().all(|part| part.as_os_str().len() < 255), "{path:?}");
            assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
        }
    }

    #[test]
    fn names_of_data_lead_nowhere_else() {
        for bad in ["", ".", "..", "a/b", "/a", "../a", "a\\b", "a\0", ".leasehold-fences", ".Leasehold-Fences"] {
            assert_eq!(checked(bad).unwrap_err().kind(), ErrorKind::InvalidName, "{bad:?}");
        }
        for good in ["a", "a b", "...", ".leasehold", "é\n"] {
            assert_eq!(checked(good).unwrap(), good);
        }
    }
}
