//! `sqlite:` URLs.

use std::path::PathBuf;

use lock_core::{ErrorKind, StoreError};

/// The path that a URL or a plain path names.
///
/// `sqlite:/abs/path`, `sqlite:///abs/path`, `sqlite:relative` and `sqlite://relative` are percent-decoded; a text without
/// `sqlite:` is a path as it stands.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`].
pub(crate) fn path_of(url_or_path: &str) -> Result<PathBuf, StoreError> {
    let Some(rest) = url_or_path.strip_prefix("sqlite:") else {
        return match url_or_path.split_once(':') {
            Some((scheme, rest)) if rest.starts_with("//") || scheme == "file" => {
                refuse("this is not an sqlite URL; write sqlite:/path/to/locks.db".to_owned())
            }
            _ => path_of_plain(url_or_path),
        };
    };
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    if rest.contains(['?', '#']) {
        return refuse(
            "an sqlite URL takes no options; set them on the builder, and write a ? or # of the path as %3F or %23"
                .to_owned(),
        );
    }
    path_of_plain(&decoded(rest)?)
}

/// A path as it stands, if it can name a file.
pub(crate) fn path_of_plain(path: &str) -> Result<PathBuf, StoreError> {
    if path.is_empty() {
        return refuse("the path is empty; write sqlite:/path/to/locks.db".to_owned());
    }
    if path == ":memory:" {
        return refuse("SQLite's own :memory: can't be shared; use the store memory: instead".to_owned());
    }
    if path.contains('\0') {
        return refuse("the path holds a NUL byte; name another file".to_owned());
    }
    Ok(path.into())
}

fn decoded(text: &str) -> Result<String, StoreError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = after.get(..2).filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        let byte =
            digits.and_then(|two| std::str::from_utf8(two).ok()).and_then(|two| u8::from_str_radix(two, 16).ok());
        let Some(byte) = byte else {
            return refuse("a % in an sqlite URL begins two hex digits; write %25 for the sign itself".to_owned());
        };
        bytes.push(byte);
        rest = &after[2..];
    }
    String::from_utf8(bytes).or_else(|_| refuse("the path is not UTF-8; name another file".to_owned()))
}

fn refuse<T>(message: String) -> Result<T, StoreError> {
    Err(StoreError::refused(ErrorKind::InvalidConfig, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_paths() {
        for (url, path) in [
            ("sqlite:/var/lib/locks.db", "/var/lib/locks.db"),
            ("sqlite:///var/lib/locks.db", "/var/lib/locks.db"),
            ("sqlite:locks.db", "locks.db"),
            ("sqlite://locks.db", "locks.db"),
            ("sqlite:a%20b%3F%25.db", "a b?%.db"),
            ("/plain/a%20b?.db", "/plain/a%20b?.db"),
            ("plain.db", "plain.db"),
        ] {
            assert_eq!(path_of(url).unwrap(), PathBuf::from(path), "{url}");
        }
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for bad in [
            "",
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            ":memory:",
            "sqlite:%3Amemory%3A",
            "sqlite:a%2",
            "sqlite:a%zz",
            "sqlite:a%ff",
            "sqlite:a%00b",
            "sqlite:a.db?mode=ro",
            "postgres://localhost/x",
            "file:a.db",
        ] {
            assert_eq!(path_of(bad).unwrap_err().kind(), ErrorKind::InvalidConfig, "{bad}");
        }
    }
}
