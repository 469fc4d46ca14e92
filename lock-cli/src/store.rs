//! Which store is meant, and getting in touch with it.

use std::{
    ffi::OsString,
    fs::DirBuilder,
    io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use leasehold::Locks;

use crate::{args::StoreArg, exit::Failure};

/// Carries a store's URL from the command line to ourselves, started anew without it.
pub(crate) const HIDDEN_URL: &str = "LEASEHOLD_INTERNAL_STORE";

/// How long the first contact with a store may take in all.
pub(crate) const FIRST_CONTACT: Duration = Duration::from_millis(4500);

/// Starts ourselves anew without the store's URL on the command line, if that URL may hold a password: the
/// command line of a process is for everybody to see (`ps`), its environment isn't.
///
/// Returns if there is nothing to hide, or if it could not be hidden: why.
pub(crate) fn hide_password(arguments: &[OsString]) -> Result<(), Failure> {
    let Some((url, rest)) = take_url(arguments) else { return Ok(()) };
    if !may_hold_password(&url) {
        return Ok(());
    }
    let error = Command::new(crate::launch::ourselves()).arg0("leasehold").args(rest).env(HIDDEN_URL, url).exec();
    Err(Failure::internal(format!("the store's URL could not be hidden from ps: {error}")))
}

/// The value of the last `--store` before `--`, and the arguments (without the program) without any.
fn take_url(arguments: &[OsString]) -> Option<(OsString, Vec<OsString>)> {
    let mut url = None;
    let mut rest = Vec::new();
    let mut arguments = arguments.iter().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            rest.push(argument.clone());
            rest.extend(arguments.by_ref().cloned());
        } else if argument == "--store" {
            url = Some(arguments.next()?.clone());
        } else if let Some(value) = argument.as_bytes().strip_prefix(b"--store=") {
            url = Some(std::ffi::OsStr::from_bytes(value).to_owned());
        } else {
            rest.push(argument.clone());
        }
    }
    Some((url?, rest))
}

/// Whether it has user information or parameters: what these mean is the store's own affair.
fn may_hold_password(url: &OsString) -> bool {
    url.as_bytes().iter().any(|byte| matches!(byte, b'@' | b'?'))
}

/// The URL of the store that is meant: `--store`, else `LEASEHOLD_STORE`, else a file of the user's.
pub(crate) fn url(store: &StoreArg) -> Result<String, Failure> {
    if let Some(hidden) = std::env::var_os(HIDDEN_URL) {
        return hidden.into_string().map_err(|_| Failure::usage("the store's URL must be UTF-8"));
    }
    // An empty LEASEHOLD_STORE is as good as none.
    if let Some(url) = store.url.as_ref().filter(|url| !url.is_empty()) {
        return Ok(url.clone());
    }
    let directory = state_directory()?;
    prepare(&directory).map_err(|error| Failure {
        code: crate::exit::STORE,
        message: format!("the directory of the default store, {}, can't be made: {error}", directory.display()),
    })?;
    let file = directory.join("locks.db");
    let file = file.to_str().ok_or_else(|| Failure::usage("the state directory's path must be UTF-8; use --store"))?;
    Ok(format!("sqlite:{}", file.replace('%', "%25").replace('?', "%3f").replace('#', "%23")))
}

/// `$XDG_STATE_HOME/leasehold`, else `~/.local/state/leasehold` (XDG Base Directory Specification).
fn state_directory() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("leasehold"))
        .ok_or_else(|| {
            Failure::usage("neither HOME nor XDG_STATE_HOME is set, so there is no default store; use --store")
        })
}

fn prepare(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Gets in touch with the store.
///
/// # Errors
/// Usage, if the URL is wrong; the store's, if it can't be had within [`FIRST_CONTACT`].
pub(crate) async fn connect(url: &str) -> Result<Locks, Failure> {
    within(url, leasehold::connect(url)).await?.map_err(Failure::from)
}

/// Gives the first contact its time.
///
/// # Errors
/// One sentence that names the store, without what is secret in its URL.
pub(crate) async fn within<T>(url: &str, contact: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(FIRST_CONTACT, contact).await.map_err(|_| Failure {
        code: crate::exit::STORE,
        message: format!("the store at {} did not answer within {FIRST_CONTACT:?}", without_secrets(url)),
    })
}

/// The URL without user information and parameters.
fn without_secrets(url: &str) -> String {
    let url = url.split_once(['?', '#']).map_or(url, |(before, _)| before);
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_url_is_taken_out_of_the_command_line() {
        for line in
            ["leasehold run --store pg://u:p@h x -- a --store b", "leasehold run --store=pg://u:p@h x -- a --store b"]
        {
            let (url, rest) = take_url(&words(line)).unwrap();
            assert_eq!(url, "pg://u:p@h");
            assert_eq!(rest, words("run x -- a --store b"), "what is the command's stays");
        }
        assert!(take_url(&words("leasehold run x -- a --store b")).is_none());
        assert!(take_url(&words("leasehold run --store")).is_none());
    }

    #[test]
    fn messages_name_the_store_without_its_secrets() {
        assert_eq!(without_secrets("postgres://app:p@ss@db:5432/prod?password=x"), "postgres://db:5432/prod");
        assert_eq!(without_secrets("sqlite:/var/lib/locks.db"), "sqlite:/var/lib/locks.db");
    }
}
